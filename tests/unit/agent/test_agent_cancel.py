"""What a cancel stops, what it leaves alone, and how it is told."""

import asyncio
import logging

import pytest

from edgeplane.agent import executions as executions_module
from edgeplane.agent.executors.base import NotNow, Outcome
from edgeplane.model.errors import DatabaseError, Internal, WrongState
from edgeplane.wire import CANCELLED, CancelRequest
from kit.executors import asking, end, entered


async def _cancel(executions, request_id="r1", **more):
    return (await executions.cancel(CancelRequest(request_id, **more))).state


async def test_what_has_not_taken_effect_is_stopped_at_once(start, executor, caplog):
    """Whoever waits is told that it failed, and why; so is everyone after, also after a restart."""
    caplog.set_level(logging.INFO)
    executor.gate.clear()
    first = start()
    callers = [asyncio.create_task(first.execute(asking())) for _ in range(2)]
    await entered(executor)
    assert await _cancel(first) == "cancelled"
    for caller in callers:
        reply = await caller
        assert (reply.status, reply.message) == ("failed", "cancelled before it took effect")
    given_up = set(first._workers.jobs)
    executor.gate.set()
    await asyncio.wait(given_up)
    assert executor.effects == []
    assert f"[ERROR] Task r1 (reload) failed: {CANCELLED}" in caplog.messages
    await end(first)
    second = start()
    assert await second.execute(asking()) == reply
    assert await _cancel(second) == "cancelled"
    assert executor.effects == []


async def test_an_effect_under_way_is_not_stopped(start, executor):
    """It is running; afterwards it is done."""
    executor.after_permit.clear()
    executions = start()
    caller = asyncio.create_task(executions.execute(asking()))
    await entered(executor)
    await entered(executor)
    assert await _cancel(executions) == "running"
    executor.after_permit.set()
    assert (await caller).status == "success"
    assert await _cancel(executions) == "done"


@pytest.mark.parametrize("outcome", [Outcome("success", "made"), Outcome("failed", "no")])
async def test_what_has_ended_is_done_and_stays_as_it_is(start, executor, outcome):
    """Its answer is what it was."""
    executor.outcomes = [outcome]
    executions = start()
    reply = await executions.execute(asking())
    assert await _cancel(executions) == "done"
    assert await executions.execute(asking()) == reply


async def test_what_is_not_known_does_nothing_when_it_arrives(start, executor):
    """However late, under whatever attempt, also after a restart."""
    first = start()
    assert await _cancel(first) == "unknown"
    await end(first)
    second = start()
    assert (await second.execute(asking(attempt=3))).message == CANCELLED
    assert executor.executed == []


async def test_a_run_asked_for_after_the_cancelled_one_is_carried_out(start, executor):
    """A higher attempt is not what was cancelled."""
    executor.gate.clear()
    executions = start()
    caller = asyncio.create_task(executions.execute(asking(attempt=1)))
    await entered(executor)
    assert await _cancel(executions, attempt=1) == "cancelled"
    assert (await caller).message == CANCELLED
    executor.gate.set()
    assert (await executions.execute(asking(attempt=2))).status == "success"
    assert executor.asked_to_recover == []


async def test_a_higher_attempt_does_not_join_what_is_being_cancelled(start, executor, commits):
    """It arrives while the end of the run before is on its way into the journal."""
    executor.gate.clear()
    executions = start()
    caller = asyncio.create_task(executions.execute(asking(attempt=1)))
    await entered(executor)
    commits.let_go.clear()
    cancel = asyncio.create_task(_cancel(executions, attempt=1))
    await asyncio.sleep(0)
    higher = asyncio.create_task(executions.execute(asking(attempt=2)))
    await asyncio.sleep(0)
    executor.gate.set()
    commits.let_go.set()
    assert (await caller).message == CANCELLED
    assert (await higher).status == "success"
    assert await cancel in {
        "cancelled",
        "done",
        "running",
    }  # by then the higher one is in its place


async def test_a_run_that_is_not_begun_yet_never_begins(start, executor, commits):
    """The executor does not hear of it."""
    commits.let_go.clear()
    executions = start()
    caller = asyncio.create_task(executions.execute(asking()))
    await asyncio.sleep(0)
    cancel = asyncio.create_task(_cancel(executions))
    await asyncio.sleep(0)
    commits.let_go.set()
    assert (await caller).message == CANCELLED
    assert await cancel == "cancelled"
    assert executor.executed == []


async def test_an_answer_on_its_way_from_the_journal_is_not_changed(start, commits):
    """What had succeeded before has succeeded."""
    executions = start()
    await executions.execute(asking())
    commits.let_go.clear()
    again = asyncio.create_task(executions.execute(asking()))
    await asyncio.sleep(0)
    cancel = asyncio.create_task(_cancel(executions))
    await asyncio.sleep(0)
    commits.let_go.set()
    assert (await again).status == "success"
    assert await cancel == "done"


@pytest.mark.parametrize("found", [None, Outcome("success", "was made")])
async def test_an_interrupted_run_tells_what_it_did_and_does_no_more(start, executor, found):
    """Nobody knows until it is asked for: only then is its payload there to look for it."""
    executor.outcomes = [NotNow("no room")]
    executions = start()
    with pytest.raises(Internal):
        await executions.execute(asking())
    assert [await _cancel(executions), await _cancel(executions)] == ["unknown", "unknown"]
    executor.recovered = found
    reply = await executions.execute(asking())
    assert reply.message == ("was made" if found else CANCELLED)
    assert len(executor.executed) == 1
    assert await _cancel(executions) == ("done" if found else "cancelled")


@pytest.mark.parametrize("found", [None, Outcome("success", "was made")])
async def test_a_look_for_an_effect_goes_on_and_decides(start, executor, found):
    """What is there is told; what is not there is not made."""
    executor.outcomes = [NotNow("no room")]
    executions = start()
    with pytest.raises(Internal):
        await executions.execute(asking())
    await entered(executor)
    await entered(executor)
    executor.recovery.clear()
    executor.recovered = found
    caller = asyncio.create_task(executions.execute(asking()))
    await entered(executor)
    cancel = asyncio.create_task(_cancel(executions))
    await asyncio.sleep(0)
    executor.recovery.set()
    assert await cancel == ("done" if found else "cancelled")
    assert (await caller).message == ("was made" if found else CANCELLED)
    assert len(executor.executed) == 1


async def test_a_look_that_takes_long_is_told_as_running(start, executor, monkeypatch):
    """A cancel has an end of its own."""
    monkeypatch.setattr(executions_module, "CANCEL_SECONDS", 0.0)
    executor.outcomes = [NotNow("no room")]
    executions = start()
    with pytest.raises(Internal):
        await executions.execute(asking())
    executor.recovery.clear()
    caller = asyncio.create_task(executions.execute(asking()))
    while not executor.asked_to_recover:
        await entered(executor)
    assert await _cancel(executions) == "running"
    executor.recovery.set()
    assert (await caller).message == CANCELLED


async def test_a_run_over_its_time_can_still_be_cancelled(start, executor, time_is_up):
    """It was given up and stayed begun."""
    executor.gate.clear()
    executions = start()
    time_is_up(1)
    caller = asyncio.create_task(executions.execute(asking(timeout_seconds=3)))
    with pytest.raises(Internal, match="timed out"):
        await caller
    assert await _cancel(executions) == "unknown"
    assert (await executions.execute(asking())).message == CANCELLED
    assert executor.effects == []


async def test_a_cancel_is_fenced_by_the_epoch(start, executor):
    """Whoever lost the node cancels nothing there; a higher one counts, also after a restart."""
    first = start()
    assert await _cancel(first, node_id=7, epoch=5) == "unknown"
    with pytest.raises(WrongState, match="stale epoch 4 for node 7"):
        await _cancel(first, "r2", node_id=7, epoch=4)
    await end(first)
    second = start()
    with pytest.raises(WrongState, match="follows 5"):
        await second.execute(asking("r2", node_id=7, epoch=4))
    assert (await second.execute(asking("r2", node_id=7, epoch=5))).status == "success"


async def test_the_epoch_of_a_cancel_that_came_too_late_counts(start, executor):
    """It is on disk before the answer."""
    executor.after_permit.clear()
    first = start()
    caller = asyncio.create_task(first.execute(asking()))
    await entered(executor)
    await entered(executor)
    assert await _cancel(first, node_id=7, epoch=5) == "running"
    executor.after_permit.set()
    await caller
    await end(first)
    with pytest.raises(WrongState, match="follows 5"):
        await start().execute(asking("r2", node_id=7, epoch=4))


async def test_a_cancel_that_cannot_be_journaled_is_told_so(start, executor, monkeypatch):
    """Nobody is told of a state that is not on record."""
    executions = start()

    def full():
        raise OSError("disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(executions._journal._file, "commit", full)
        with pytest.raises(DatabaseError):
            await _cancel(executions)
    assert (await executions.execute(asking())).status == "success"
