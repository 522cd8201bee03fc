"""Turns of two owners: rescue, late results, leases renewed and lost."""

from datetime import timedelta

import pytest

from edgeplane.dispatch.work import Result
from edgeplane.model.tasks import MAX_OUTPUT_BYTES, Outcome, Report, TaskKind, TaskStatus
from edgeplane.store import mailboxes
from kit.engines import Turner, came_back
from kit.factories import ended_attempts


@pytest.fixture
def rival(database):
    """Another owner on the same tables."""
    return Turner(database, owner="rival")


def after_lease(turn):
    """Return a time at which the lease of a turn has lapsed."""
    return turn.now + timedelta(seconds=10)


async def outcomes(database, task):
    """Return how a task's attempts ended."""
    found = await database.read(lambda tx: ended_attempts(tx, task.id))
    return [(attempt.number, attempt.outcome) for attempt in found]


async def test_a_held_mailbox_is_nobody_elses(turner, rival, ask, node_id):
    """Until the lease lapses, whatever is asked for."""
    await ask(node_id)
    turn = await turner.take()
    await ask(node_id, TaskKind.PURGE_CACHE)
    assert (await rival.take(now=after_lease(turn) - timedelta(milliseconds=1))).held == {}
    assert list((await rival.take(now=after_lease(turn))).held) == [node_id]


async def test_a_lapsed_lease_is_rescued_by_the_next_turn(turner, rival, ask, node_id):
    """The running task is asked for again, as the same run under a higher epoch."""
    (asked,) = await ask(node_id)
    old = (await turner.take()).begun[0]
    turn = await rival.take(now=after_lease(await turner.take()))
    (new,) = turn.begun
    assert (new.task.id, new.task.attempts, new.task.run) == (asked.id, 2, 1)
    assert new.epoch > old.epoch
    assert turn.rescued == 1
    assert await outcomes(rival.database, asked) == [(1, Outcome.LOST)]


async def test_an_attempt_is_on_record_with_who_sent_it(turner, rival, ask, node_id):
    """The one that was lost with its owner is that owner's; where it went to nobody knows."""
    (asked,) = await ask(node_id)
    await turner.take()
    turn = await rival.take(now=after_lease(await turner.take()))
    report = Report(
        outcome=Outcome.SUCCEEDED, message="done", output="x" * 20_000, address="192.0.2.1:9090"
    )
    await rival.take([Result(turn.begun[0], report)])
    lost, done = await rival.database.read(lambda tx: ended_attempts(tx, asked.id))
    assert (lost.replica, lost.address, lost.output) == ("me", None, None)
    assert (done.replica, done.address) == ("rival", "192.0.2.1:9090")
    assert len(done.output.encode()) == MAX_OUTPUT_BYTES
    assert done.output.endswith("20000 bytes in all]")


async def test_a_late_result_is_dropped_and_counted(turner, rival, ask, look, node_id):
    """The old owner's result changes nothing; the new owner's settles."""
    (asked,) = await ask(node_id)
    old = (turn := await turner.take()).begun[0]
    turn = await rival.take(now=after_lease(turn))
    before = await look([asked])
    late = await turner.take([came_back(old, Outcome.FAILED, "late")])
    assert (late.late, late.settled, late.gone) == (1, [], {node_id})
    assert await look([asked]) == before
    turn = await rival.take([came_back(turn.begun[0], Outcome.SUCCEEDED, "in time")])
    (done,) = await look([asked])
    assert (turn.late, done.status, done.result) == (0, TaskStatus.SUCCESS, "in time")
    assert await outcomes(rival.database, asked) == [(1, Outcome.LOST), (2, Outcome.SUCCEEDED)]


async def test_a_result_settles_while_nobody_has_rescued_its_task(
    turner, rival, ask, look, node_id
):
    """Though its lease lapsed: it is the truth; the rescuer then finds nothing to do."""
    (asked,) = await ask(node_id)
    turn = await turner.take()
    done = await turner.take(
        [came_back(turn.begun[0], Outcome.SUCCEEDED)], now=after_lease(turn), claim=0
    )
    assert (len(done.settled), done.late) == (1, 0)
    after = await rival.take(now=after_lease(done))
    assert (after.begun, after.rescued) == ([], 0)
    assert [task.status for task in await look([asked])] == [TaskStatus.SUCCESS]
    assert await outcomes(rival.database, asked) == [(1, Outcome.SUCCEEDED)]


async def test_the_same_result_twice_settles_once(turner, ask, node_id):
    """In one turn or in two, the second one is late."""
    (asked,) = await ask(node_id)
    turn = await turner.take()
    result = came_back(turn.begun[0], Outcome.SUCCEEDED)
    turn = await turner.take([result, result])
    assert (len(turn.settled), turn.late) == (1, 1)
    assert (await turner.take([result])).late == 1
    assert await outcomes(turner.database, asked) == [(1, Outcome.SUCCEEDED)]


async def test_a_lost_attempt_uses_up_none(turner, rival, ask, look, node_id):
    """A task with one attempt allowed is asked for again after its owner died."""
    (asked,) = await ask(node_id, max_attempts=1)
    turn = await rival.take(now=after_lease(await turner.take()))
    (running,) = await look([asked])
    assert (running.status, running.attempts, running.counted_attempts) == (
        TaskStatus.RUNNING,
        2,
        0,
    )
    await rival.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert [task.status for task in await look([asked])] == [TaskStatus.SUCCESS]


async def test_renewing_extends_the_lease_and_sees_new_work(turner, rival, ask, node_id):
    """No hint is needed: the mailbox's work_seq has grown."""
    await ask(node_id)
    turn = await turner.take()
    quiet = await turner.take(renew=True, now=after_lease(turn) - timedelta(seconds=1))
    assert (quiet.begun, list(quiet.held)) == ([], [node_id])
    assert (await rival.take(now=after_lease(turn))).held == {}
    (purge,) = await ask(node_id, TaskKind.PURGE_CACHE)
    turn = await turner.take(renew=True)
    assert [delivery.task.id for delivery in turn.begun] == [purge.id]


async def test_a_lease_lost_to_another_owner_is_gone(turner, rival, ask, node_id):
    """The old owner neither renews it nor begins anything there."""
    await ask(node_id)
    await ask(node_id, TaskKind.PURGE_CACHE)
    turn = await rival.take(now=after_lease(await turner.take()))
    lost = await turner.take(renew=True, look_at=[node_id])
    assert (lost.gone, lost.begun, lost.held) == ({node_id}, [], {})
    box = await rival.database.write(lambda tx: mailboxes.lock(tx, [node_id]))
    assert (box[node_id].owner, box[node_id].epoch) == ("rival", turn.held[node_id].epoch)


async def test_a_node_deleted_meanwhile_is_gone(turner, rival, ask, node_id):
    """An owner that lost it forgets it, though there is no mailbox left to look at."""
    from edgeplane.services import nodes as rule

    await ask(node_id)
    turn = await rival.take(now=after_lease(await turner.take()))
    await rival.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert await rule.delete(turner.database, [node_id]) == 1
    assert (await turner.take(renew=True)).gone == {node_id}


async def test_what_began_unheard_of_is_asked_for_again(turner, ask, node_id):
    """An owner that never heard of its own commit finds the task running under nobody."""
    (asked,) = await ask(node_id)
    await turner.take()
    turner.held.clear()  # as if the answer to the commit had been lost
    turn = await turner.take(now=after_lease(await turner.take()))
    assert [(d.task.id, d.task.attempts) for d in turn.begun] == [(asked.id, 2)]
    assert await outcomes(turner.database, asked) == [(1, Outcome.LOST)]


async def test_an_older_attempt_of_the_same_task_is_not_taken_for_the_running_one(
    turner, ask, node_id
):
    """What is out is known by its number: the running attempt goes on, whatever comes in late."""
    await ask(node_id)
    first = (await turner.take()).begun[0]
    await turner.database.write(lambda tx: mailboxes.release_all(tx, "me"))
    second = (await turner.take()).begun[0]
    assert second.task.attempts == 2
    turn = await turner.take([came_back(first, Outcome.SUCCEEDED)])
    assert (turn.late, turn.begun, turn.rescued) == (1, [], 0)
    turn = await turner.take([came_back(second, Outcome.SUCCEEDED)])
    assert len(turn.settled) == 1
