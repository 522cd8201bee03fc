"""What may be removed, what goes with it, and who is told to lead."""

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import func, select, update

from edgeplane.model.errors import NotFound, WrongState
from edgeplane.model.tasks import Attempt, Outcome, TaskKind, TaskStatus
from edgeplane.services import tasks as rules
from edgeplane.store import attempts, leaders, removal, task_moves
from edgeplane.store.database import Database
from edgeplane.store.removal import Walk
from edgeplane.store.rows import agent_tasks, task_attempts
from kit.factories import add_nodes, add_tasks, clear, new_task


def over(tx, number=1, *, days=40, **given):
    """Store tasks that were made and finished so many days ago, with an attempt each."""
    kind = given.pop("kind", TaskKind.RELOAD)
    (node,) = add_nodes(tx, 1)
    made = add_tasks(tx, [new_task(node, kind=kind) for _ in range(number)])
    then = tx.now - timedelta(days=days)
    values = {"status": "success", "lane": None, "created_at": then, "finished_at": then}
    ids = [task.id for task in made]
    statement = update(agent_tasks).where(agent_tasks.c.id.in_(ids))
    tx.conn.execute(statement.values(**{**values, **given}))
    attempts.add(
        tx,
        [
            Attempt(
                task_id=task_id,
                number=1,
                begun_at=then,
                ended_at=then,
                outcome=Outcome.SUCCEEDED,
                message="done",
            )
            for task_id in ids
        ],
    )
    return ids


def walk(tx, status=TaskStatus.SUCCESS, days=30):
    """Walk the reloads that are over for so many days."""
    return Walk(kind=TaskKind.RELOAD, status=status, before=tx.now - timedelta(days=days))


def left(tx):
    """Return the ids of the tasks that are there, and of those that have attempts."""
    there = tx.conn.scalars(select(agent_tasks.c.id).order_by(agent_tasks.c.id))
    left = tx.conn.scalars(select(task_attempts.c.task_id).order_by(task_attempts.c.task_id))
    return list(there), list(left)


async def test_what_is_over_goes_with_its_attempts(database):
    """And nothing else: not the young, the open, the other kinds and statuses."""

    def work(tx):
        gone = over(tx, 3)
        young = tx.now - timedelta(days=1)
        kept = [
            *over(tx, days=40, finished_at=young),
            *over(tx, days=40, finished_at=None),
            *over(tx, days=40, status="failed"),
            *over(tx, days=40, lane="config"),
            *over(tx, days=10),
        ]
        other = over(tx, days=40, kind=TaskKind.PURGE_CACHE)
        found = removal.look(tx, walk(tx), 0)
        assert found.ids == gone
        assert found.last is None
        assert removal.remove(tx, walk(tx), [*found.ids, *kept, 10**9]) == (3, 3)
        assert left(tx) == (kept + other, kept + other)

    await database.write(work)


async def test_a_walk_goes_on_where_it_was(database, monkeypatch):
    """In steps of so many rows; one that is out of time's order stops it nowhere."""
    monkeypatch.setattr(removal, "MAX_ROWS", 4)
    monkeypatch.setattr(removal, "STEP", removal.Prepared(removal._step))

    def work(tx):
        first = over(tx, 6)
        later = over(tx, 1, finished_at=tx.now)
        rest = over(tx, 3)
        over(tx, 4, days=3)
        too_far = over(tx, 1)
        one = removal.look(tx, walk(tx), 0)
        assert (one.ids, one.last) == (first[:4], first[3])
        two = removal.look(tx, walk(tx), one.last or 0)
        assert (two.ids, two.last) == ([*first[4:], rest[0]], rest[0])
        assert later[0] not in two.ids
        three = removal.look(tx, walk(tx), two.last or 0)
        assert three.ids == rest[1:]
        four = removal.look(tx, walk(tx), three.last or 0)
        assert (four.ids, four.last) == (too_far, None)

    await database.write(work)


async def test_large_payloads_are_removed_few_at_a_time(database):
    """A step ends before its bytes pass the bound; one task alone always goes."""

    def work(tx):
        ids = over(tx, 5, payload_bytes=removal.MAX_BYTES // 2)
        found = removal.look(tx, walk(tx), 0)
        assert (found.ids, found.last) == (ids[:2], ids[1])
        huge = update(agent_tasks).values(payload_bytes=removal.MAX_BYTES * 2)
        tx.conn.execute(huge)
        assert removal.look(tx, walk(tx), 0).ids == ids[:1]

    await database.write(work)


@pytest.mark.parametrize("moment", ["before", "between"])
async def test_a_retry_that_meets_a_removal_finds_nothing(database, monkeypatch, moment):
    """404, whether the task went before it looked or after."""
    (task_id,) = await database.write(lambda tx: over(tx, status="failed"))
    failed = TaskStatus.FAILED
    if moment == "before":
        await database.write(lambda tx: removal.remove(tx, walk(tx, failed), [task_id]))
    else:
        lock = rules.mailboxes.lock

        def lock_late(tx, nodes):
            removal.remove(tx, walk(tx, failed), [task_id])
            return lock(tx, nodes)

        monkeypatch.setattr(rules.mailboxes, "lock", lock_late)
    with pytest.raises(NotFound, match=f"task {task_id} not found"):
        await rules.retry(database, task_id)


async def test_a_retry_whose_task_goes_as_it_writes_finds_nothing(database, monkeypatch):
    """One that was only moved is told so instead."""
    (task_id,) = await database.write(lambda tx: over(tx, status="failed"))
    write = task_moves.write_moved

    def late(tx, moves):
        removal.remove(tx, walk(tx, TaskStatus.FAILED), [task_id])
        return write(tx, moves)

    monkeypatch.setattr(task_moves, "write_moved", lambda tx, moves: 0)
    with pytest.raises(WrongState, match="moved just now"):
        await rules.retry(database, task_id)
    monkeypatch.setattr(task_moves, "write_moved", late)
    with pytest.raises(NotFound):
        await rules.retry(database, task_id)


async def test_a_task_that_is_being_retried_is_passed_over(mariadb_tables):
    """Not waited for: the retry holds its row; afterwards it is pending, and stays."""
    retrying, removing = Database(mariadb_tables), Database(mariadb_tables)
    held, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    try:
        await retrying.write(clear)
        one, other = await retrying.write(lambda tx: over(tx, 2, status="failed"))

        def retry(tx):
            rules._retry(tx, one)
            loop.call_soon_threadsafe(held.set)
            assert go_on.wait(10)

        under_way = asyncio.ensure_future(retrying.write(retry))
        await held.wait()
        failed = TaskStatus.FAILED
        went = await removing.write(lambda tx: removal.remove(tx, walk(tx, failed), [one, other]))
        assert went == (1, 1)
        go_on.set()
        await under_way
        went = await removing.write(lambda tx: removal.remove(tx, walk(tx, failed), [one]))
        assert went == (0, 0)
        assert await removing.read(left) == ([one], [one])
    finally:
        go_on.set()
        await retrying.close()
        await removing.close()


async def test_one_leads_until_its_time_is_over(database):
    """A term for each change of hands; the row is made by whoever comes first."""

    def work(tx):
        later = Later(tx)
        assert leaders.due_at(tx, "a-duty") is None
        assert leaders.take(tx, "a-duty", "one", 60) == 1
        assert leaders.take(tx, "a-duty", "two", 60) is None
        assert leaders.hold(later(30), "a-duty", "one", 1, 60)
        assert leaders.take(later(61), "a-duty", "two", 60) is None
        assert leaders.take(later(90), "a-duty", "two", 60) == 2
        # The first one wakes up: its term is over, whatever its clock says.
        assert not leaders.hold(later(30), "a-duty", "one", 1, 60)
        assert not leaders.lay_down(later(30), "a-duty", "one", 1, 60)
        assert leaders.take(later(91), "other", "one", 60) == 1

    await database.write(work)


async def test_a_duty_that_is_done_is_due_later(database):
    """For everybody."""

    def work(tx):
        later = Later(tx)
        term = leaders.take(tx, "a-duty", "one", 60)
        assert term == 1
        assert leaders.lay_down(tx, "a-duty", "one", term, 3600)
        assert leaders.due_at(tx, "a-duty") == later(3600).now
        assert leaders.take(later(3599), "a-duty", "one", 60) is None
        assert leaders.take(later(3600), "a-duty", "two", 60) == term + 1

    await database.write(work)


class Later:
    """The same transaction, so many seconds later."""

    def __init__(self, tx):
        self._tx = tx

    def __call__(self, seconds):
        """Return it."""
        return replace(self._tx, now=self._tx.now + timedelta(seconds=seconds))


def _take(tx, owner):
    return leaders.take(tx, "a-duty", owner, 60)


async def test_two_who_come_first_at_once_make_one_leader(mariadb_tables):
    """The row is made by one of them."""
    replicas = [Database(mariadb_tables) for _ in range(4)]
    try:
        await replicas[0].write(clear)
        works = [partial(_take, owner=str(number)) for number in range(len(replicas))]
        terms = await asyncio.gather(*map(Database.write, replicas, works))
        assert sorted(map(str, terms)) == ["1", "None", "None", "None"]
        count = select(func.count()).select_from(leaders.leaders)
        assert await replicas[0].read(lambda tx: tx.conn.scalar(count)) == 1
    finally:
        for replica in replicas:
            await replica.close()


async def test_a_walk_ends_where_all_are_too_young(database, monkeypatch):
    """Or each sweep would read the whole table."""
    monkeypatch.setattr(removal, "MAX_ROWS", 4)
    monkeypatch.setattr(removal, "STEP", removal.Prepared(removal._step))

    def work(tx):
        over(tx, 5, days=3)
        found = removal.look(tx, walk(tx), 0)
        assert (found.ids, found.last) == ([], None)

    await database.write(work)
