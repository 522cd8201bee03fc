"""Turns of the engine at a node that cannot be reached, and is back."""

from datetime import timedelta

import pytest

from edgeplane.model.tasks import Outcome, TaskKind, TaskStatus
from edgeplane.store import mailboxes
from kit.engines import came_back
from kit.factories import ended_attempts

PURGE = TaskKind.PURGE_CACHE
REFUSED = "127.0.0.1:9090: connection refused"


def ids(turn):
    """Return the ids of what began."""
    return [delivery.task.id for delivery in turn.begun]


@pytest.fixture
def gone(turner, ask, node_id):
    """Ask for tasks at a node whose agent is gone: the first delivery does not arrive."""

    async def lose(number=3):
        asked = [*await ask(node_id, number=number - 1), *await ask(node_id, PURGE)]
        turn = await turner.take()
        results = [came_back(delivery, Outcome.UNREACHABLE, REFUSED) for delivery in turn.begun]
        return asked, await turner.take(results)

    return lose


async def test_one_failed_probe_speaks_for_all_that_waits(gone, look):
    """All are failed with the same words after one attempt, and due together."""
    asked, turn = await gone(5)
    found = await look(asked)
    assert [task.status for task in found] == [TaskStatus.FAILED] * 5
    assert [task.attempts for task in found] == [1] * 5
    assert [task.counted_attempts for task in found] == [0] * 5
    assert {task.last_error for task in found} == {REFUSED}
    assert {task.next_retry_at for task in found} == {turn.next_due}
    assert ids(turn) == []


async def test_each_shared_failure_is_on_record(gone, turner):
    """A task's attempts say why it failed, also where a sibling was sent."""
    asked, _ = await gone()
    for task in asked:
        found = await turner.database.read(lambda tx, task=task: ended_attempts(tx, task.id))
        assert [(a.number, a.outcome, a.message) for a in found] == [
            (1, Outcome.UNREACHABLE, REFUSED)
        ]


async def test_one_probe_per_interval(gone, turner):
    """Nothing is sent before it is due; then the oldest alone; a failure moves all again."""
    asked, turn = await gone(4)
    early = await turner.take(now=turn.next_due - timedelta(milliseconds=1))
    assert (ids(early), early.held) == ([], {})
    for _ in range(3):
        turn = await turner.take(now=turn.next_due)
        assert ids(turn) == [asked[0].id]
        result = came_back(turn.begun[0], Outcome.UNREACHABLE, REFUSED)
        turn = await turner.take([result], now=turn.now)
        assert ids(turn) == []


async def test_a_new_arrival_is_probed_and_fails_at_once(gone, turner, ask, look, node_id):
    """A task asked for while the agent is down is failed, with the reason, in one probe."""
    asked, _ = await gone()
    (late,) = await ask(node_id)
    turn = await turner.take()
    assert ids(turn) == [asked[0].id]
    turn = await turner.take([came_back(turn.begun[0], Outcome.UNREACHABLE, REFUSED)])
    (failed,) = await look([late])
    assert (failed.status, failed.last_error) == (TaskStatus.FAILED, REFUSED)
    assert (failed.attempts, failed.next_retry_at) == (1, turn.next_due)


async def test_a_node_that_is_back_gets_everything_due_at_once(gone, turner, look, node_id):
    """The answer to one probe makes all due now, whatever was left of their delays."""
    asked, turn = await gone(4)
    turn = await turner.take(now=turn.next_due)
    turn = await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)], now=turn.now)
    assert ids(turn) == [asked[1].id, asked[3].id]
    assert {task.next_retry_at for task in await look([asked[2]])} == {turn.now}
    box = await turner.database.write(lambda tx: mailboxes.lock(tx, [node_id]))
    assert box[node_id].unreachable_since is None


async def test_new_tasks_do_not_put_off_the_next_probe(turner, ask, node_id):
    """Each calls for a probe of its own; how far the next one is depends on the time alone."""
    for _ in range(40):
        await ask(node_id, PURGE)
        turn = await turner.take()
        assert len(turn.begun) == 1
        turn = await turner.take([came_back(turn.begun[0], Outcome.UNREACHABLE, REFUSED)])
        since = (await turner.database.write(lambda tx: mailboxes.lock(tx, [node_id])))[node_id]
        cap = max(1, since.away_seconds(turn.now))
        assert turn.next_due - turn.now <= timedelta(seconds=cap)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.BUSY, Outcome.UNANSWERED])
async def test_any_answer_shows_that_a_node_is_back(gone, turner, node_id, outcome):
    """A failure told by the agent is an answer too."""
    _, turn = await gone()
    turn = await turner.take(now=turn.next_due)
    turn = await turner.take([came_back(turn.begun[0], outcome)], now=turn.now)
    box = await turner.database.write(lambda tx: mailboxes.lock(tx, [node_id]))
    assert box[node_id].unreachable_since is None
    assert ids(turn) != []


async def test_being_unreachable_uses_up_no_attempt(turner, ask, look, node_id):
    """After many probes a task with two attempts allowed still has both."""
    (asked,) = await ask(node_id, max_attempts=2)
    now = None
    for _ in range(25):
        turn = await turner.take(now=now)
        result = came_back(turn.begun[0], Outcome.UNREACHABLE, REFUSED)
        turn = await turner.take([result], now=now)
        assert turn.next_due - turn.now <= timedelta(seconds=60)
        now = turn.next_due
    (waiting,) = await look([asked])
    assert (waiting.attempts, waiting.counted_attempts, waiting.final) == (25, 0, False)
    turn = await turner.take(now=now)
    turn = await turner.take([came_back(turn.begun[0], Outcome.BUSY)], now=now)
    (waiting,) = await look([asked])
    assert (waiting.counted_attempts, waiting.final) == (1, False)


async def test_a_sibling_with_one_attempt_allowed_ends_with_the_probe(turner, ask, look, node_id):
    """It fails for good, and the others go on waiting."""
    (first,) = await ask(node_id)
    (once,) = await ask(node_id, max_attempts=1)
    turn = await turner.take()
    await turner.take([came_back(turn.begun[0], Outcome.UNREACHABLE, REFUSED)])
    found = await look([first, once])
    assert [task.final for task in found] == [False, True]
    assert found[1].last_error == REFUSED


async def test_a_probe_that_is_final_still_speaks_for_its_siblings(turner, ask, look, node_id):
    """They wait for a time of their own."""
    (once,) = await ask(node_id, max_attempts=1)
    (second,) = await ask(node_id)
    turn = await turner.take()
    turn = await turner.take([came_back(turn.begun[0], Outcome.UNREACHABLE, REFUSED)])
    found = await look([once, second])
    assert [task.final for task in found] == [True, False]
    assert turn.next_due == found[1].next_retry_at


async def test_an_answer_outweighs_a_failed_connection(turner, ask, node_id):
    """Of two deliveries back in one turn one arrived: the node is there."""
    await ask(node_id, PURGE, number=2)
    turn = await turner.take()
    outcomes = (Outcome.UNREACHABLE, Outcome.SUCCEEDED)
    results = [came_back(d, outcome) for d, outcome in zip(turn.begun, outcomes, strict=True)]
    await turner.take(results)
    box = await turner.database.write(lambda tx: mailboxes.lock(tx, [node_id]))
    assert box[node_id].unreachable_since is None
