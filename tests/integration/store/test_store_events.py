"""Events: each move of a task, in its transaction; none passed over, whatever commits when."""

from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from edgeplane.model import lifecycle
from edgeplane.model.retry import RetryPolicy
from edgeplane.model.tasks import Outcome, Report, TaskStatus
from edgeplane.services import tasks as rule
from edgeplane.services.feed import Feed, Wanted
from edgeplane.store import events, task_moves
from edgeplane.store.database import make_engine
from edgeplane.store.workers import Tx
from kit.factories import NOW, a_task, add_nodes, add_tasks, new_task


@pytest.fixture
async def node_id(database):
    """Register a node."""
    return (await database.write(lambda tx: add_nodes(tx, 1)))[0]


@pytest.fixture
async def created(database, node_id):
    """A task, and nothing else."""
    return (await database.write(lambda tx: add_tasks(tx, [new_task(node_id)])))[0]


async def told(database):
    """Return type, status and attempt of all events, oldest first."""
    found = await database.read(lambda tx: events.behind(tx, 0))
    return [(event.type, event.status, event.attempt) for event in found]


def begin(tx, task):
    """Begin a task's attempt; return the task."""
    begun = lifecycle.begin(task, tx.now)
    task_moves.write_begun(tx, [begun])
    return begun


def settle(tx, running, outcome):
    """Settle it as the engine does; return the task."""
    report = Report(outcome=outcome, message="words")
    after = lifecycle.settle(running, report, tx.now, RetryPolicy(), Random(1))
    if after.status is TaskStatus.SUCCESS:
        task_moves.write_succeeded(tx, [after])
    else:
        task_moves.write_moved(tx, [(running, after)])
    return after


async def test_each_move_is_told(database, created):
    """Created, begun, waiting, begun, lost, begun, failed, retried, begun, succeeded."""

    def live(tx):
        task = settle(tx, begin(tx, created), Outcome.UNANSWERED)
        running = begin(tx, task)
        task = lifecycle.rescue(running, tx.now)
        task_moves.write_moved(tx, [(running, task)])
        failed = settle(tx, begin(tx, task), Outcome.FAILED)
        task = lifecycle.retry(failed, tx.now)
        task_moves.write_moved(tx, [(failed, task)])
        settle(tx, begin(tx, task), Outcome.SUCCEEDED)

    await database.write(live)
    assert await told(database) == [
        ("created", "pending", 0),
        ("begun", "running", 1),
        ("waiting", "failed", 1),
        ("begun", "running", 2),
        ("lost", "pending", 2),
        ("begun", "running", 3),
        ("failed", "failed", 3),
        ("retried", "pending", 3),
        ("begun", "running", 4),
        ("succeeded", "success", 4),
    ]


async def test_a_deadline_that_passed_is_told(database, created):
    """As what it is, not as a failure of the agent's."""
    expired = lifecycle.expire(created, created.deadline_at)
    await database.write(lambda tx: task_moves.write_moved(tx, [(created, expired)]))
    assert (await told(database))[-1] == ("expired", "failed", 0)


async def test_a_cancel_is_told_when_it_is_asked_for(database, created):
    """While an attempt is out: once, however often, and again when that is back."""

    def run(tx):
        running = begin(tx, created)
        asked = lifecycle.cancel(running, tx.now)
        task_moves.write_moved(tx, [(running, asked)])
        task_moves.write_moved(tx, [(asked, lifecycle.cancel(asked, tx.now))])
        settle(tx, asked, Outcome.UNANSWERED)

    await database.write(run)
    assert (await told(database))[1:] == [
        ("begun", "running", 1),
        ("cancelling", "running", 1),
        ("cancelled", "cancelled", 1),
    ]


async def test_a_cancel_of_what_waits_is_one_event(database, created):
    """It has ended at once."""
    cancelled = lifecycle.cancel(created, created.created_at)
    await database.write(lambda tx: task_moves.write_moved(tx, [(created, cancelled)]))
    assert (await told(database))[1:] == [("cancelled", "cancelled", 0)]


async def test_a_time_that_is_put_off_is_no_event(database, created):
    """The next try moved: nothing happened to the task."""

    def wait(tx):
        task = settle(tx, begin(tx, created), Outcome.UNANSWERED)
        later = task._replace(next_retry_at=tx.now + timedelta(seconds=99))
        assert task_moves.write_moved(tx, [(task, later)]) == 1

    await database.write(wait)
    assert [kind for kind, _, _ in await told(database)] == ["created", "begun", "waiting"]


async def test_a_move_that_was_late_is_not_told(database, created):
    """What did not happen is not told, beside what did."""
    late = created._replace(attempts=7)

    def move(tx):
        other = add_tasks(tx, [new_task(created.node_id)])[0]
        moves = [(each, lifecycle.expire(each, tx.now)) for each in (late, other)]
        assert task_moves.write_moved(tx, moves) == 1
        return other.id

    other = await database.write(move)
    found = await database.read(lambda tx: events.behind(tx, 0))
    assert [(e.type, e.task_id) for e in found[1:]] == [("created", other), ("expired", other)]


async def test_a_transaction_that_is_undone_tells_nothing(database, created):
    """The event goes with its move."""

    def fail(tx):
        begin(tx, created)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(fail)
    assert await told(database) == [("created", "pending", 0)]


async def test_a_request_asked_again_is_created_once(database, node_id):
    """In the same batch, and later."""
    asked = new_task(node_id, request_id="mine", request_id_given=True)
    for _ in range(2):
        await database.write(lambda tx: rule.create_many(tx, [asked, asked]))
    assert await told(database) == [("created", "pending", 0)]


async def test_a_create_whose_answer_was_lost_is_told_once(database, node_id):
    """It is done again as it was, with the id the server made."""
    asked = new_task(node_id)
    first = await database.write(lambda tx: (rule.create_many(tx, [asked]), tx.now)[1])
    await database.write(
        lambda tx: rule.create_many(replace(tx, now=first + timedelta(seconds=1)), [asked])
    )
    assert await told(database) == [("created", "pending", 0)]


async def test_old_events_are_pruned_in_bounded_batches(database, node_id):
    """The oldest go first, the younger and the newest of all stay; ids are never used again."""
    hour = timedelta(hours=1)

    def fill(tx):
        for age in (3, 2, 1):
            add_tasks(replace(tx, now=NOW - age * hour), [new_task(node_id) for _ in range(2)])

    await database.write(fill)
    before = NOW - 1.5 * hour
    deleted = [
        await database.write(lambda tx: events.prune(tx, before, 3)),
        await database.write(lambda tx: events.prune(tx, before, 3)),
        await database.write(lambda tx: events.prune(tx, NOW + hour, 100)),
        await database.write(lambda tx: events.prune(tx, NOW + hour, 100)),
    ]
    assert deleted == [3, 1, 1, 0]
    first, last = await database.read(events.bounds)
    assert first == last > 5
    await database.write(lambda tx: add_tasks(tx, [new_task(node_id)]))
    assert await database.read(events.bounds) == (last, last + 1)


class Committing:
    """A second writer: a transaction that is open for as long as the test wants."""

    def __init__(self, url):
        self._engine = make_engine(url)
        self._connection = self._engine.connect()
        self._transaction = self._connection.begin()

    def tell(self, now, task_id):
        """Append an event."""
        tx = Tx(self._connection, now, self._connection.dialect.name)
        events.append(tx, [("created", a_task(id=task_id))])

    def end(self, *, commit):
        """Commit, or not."""
        (self._transaction.commit if commit else self._transaction.rollback)()
        self._connection.close()
        self._engine.dispose()


@pytest.fixture
async def shared(mariadb_tables):
    """A store where several may write at once."""
    from edgeplane.store.database import Database
    from kit.factories import clear

    opened = Database(mariadb_tables)
    await opened.write(clear)
    yield opened
    await opened.close()


@pytest.fixture
async def feed(shared):
    """Its feed."""
    opened = Feed(shared)
    yield opened
    await opened.stop()


@pytest.mark.parametrize("grace", [events.GRACE_SECONDS, 0.0], ids=["young", "old"])
async def test_an_event_committed_late_is_not_passed_over(shared, feed, monkeypatch, grace):
    """Ids 1 and 2, committed 2 first: nobody is told of 2 before 1, however long that takes."""
    monkeypatch.setattr(events, "GRACE_SECONDS", grace)
    first, second = Committing(shared.url), Committing(shared.url)
    stream = await feed.open(Wanted(), None)
    first.tell(NOW, 11)
    second.tell(NOW, 22)
    second.end(commit=True)
    assert [e.task_id for e in await shared.read(lambda tx: events.behind(tx, 0))] == [22]
    assert await stream.read(0.5) == []
    first.end(commit=True)
    found = []
    while len(found) < 2:
        found += await stream.read(15)
    assert [event.task_id for event in found] == [11, 22]


async def test_an_id_that_was_given_back_holds_nobody_up(shared, feed, monkeypatch):
    """The transaction was undone: what follows is told after a while."""
    monkeypatch.setattr(events, "GRACE_SECONDS", 0.2)
    first, second = Committing(shared.url), Committing(shared.url)
    stream = await feed.open(Wanted(), None)
    first.tell(NOW, 11)
    second.tell(NOW, 22)
    second.end(commit=True)
    first.end(commit=False)
    assert [event.task_id for event in await stream.read(15)] == [22]


async def test_who_begins_to_follow_misses_nothing_that_is_not_committed(shared, feed):
    """A younger id is committed already when it opens the stream: the older one still comes."""
    before, first, second = (Committing(shared.url) for _ in range(3))
    now = await shared.read(lambda tx: tx.now)
    before.tell(now, 1)
    before.end(commit=True)
    first.tell(now, 11)
    second.tell(now, 22)
    second.end(commit=True)
    stream = await feed.open(Wanted(), None)
    first.end(commit=True)
    found = []
    while len(found) < 2:
        found += await stream.read(15)
    assert [event.task_id for event in found] == [11, 22]
