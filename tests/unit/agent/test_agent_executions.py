"""The rules of execution, with an executor that does what the test says."""

import asyncio
import errno
import logging
import sqlite3

import pytest

from edgeplane.agent.executors.base import NotNow, Outcome, Unclear
from edgeplane.model.errors import AlreadyExists, DatabaseError, Internal, TooMany, WrongState
from edgeplane.model.tasks import MAX_ERROR_BYTES
from edgeplane.wire import ExecuteReply
from kit.executors import WAIT, asking, end, entered


async def test_a_success_is_answered_from_the_journal_for_ever(start, executor, caplog):
    """Also after a restart and under a higher attempt; the log says so in the agreed words."""
    caplog.set_level(logging.INFO)
    first = start()
    reply = await first.execute(asking())
    assert (reply.request_id, reply.status, reply.message) == ("r1", "success", "made")
    assert await first.execute(asking(attempt=2)) == reply
    await end(first)
    assert await start().execute(asking(attempt=3)) == reply
    assert executor.executed == [("r1", 1)]
    assert caplog.messages == [
        "[SUCCESS] Task r1 (reload) completed: made",
        "[IDEMPOTENT] Request r1 already processed, returning cached result",
        "[IDEMPOTENT] Request r1 already processed, returning cached result",
    ]


async def test_a_failure_is_answered_until_a_higher_attempt_runs_it_again(start, executor, caplog):
    """The same attempt gets the same answer, the next one a run of its own."""
    caplog.set_level(logging.INFO)
    executor.outcomes = [Outcome("failed", "no room"), Outcome("success", "made")]
    executions = start()
    failed = await executions.execute(asking(attempt=1))
    assert (failed.status, failed.message) == ("failed", "no room")
    assert await executions.execute(asking(attempt=1)) == failed
    assert (await executions.execute(asking(attempt=2))).status == "success"
    assert executor.executed == [("r1", 1), ("r1", 2)]
    assert executor.asked_to_recover == []
    assert caplog.messages == [
        "[ERROR] Task r1 (reload) failed: no room",
        "[IDEMPOTENT] Request r1 already processed, returning cached result",
        "[SUCCESS] Task r1 (reload) completed: made",
    ]


@pytest.mark.parametrize("attempt", [1, 2])
async def test_what_runs_is_joined_whatever_the_attempt(start, executor, attempt):
    """One execution answers everyone who asked meanwhile, and that attempt is done with."""
    executor.gate.clear()
    executor.outcomes = [Outcome("failed", "no")]
    executions = start()
    first = asyncio.create_task(executions.execute(asking()))
    await entered(executor)
    assert executions.running == ["r1"]
    more = [asyncio.create_task(executions.execute(asking(attempt=attempt))) for _ in range(5)]
    await asyncio.sleep(0)
    executor.gate.set()
    replies = await asyncio.gather(first, *more)
    assert {reply.message for reply in replies} == {"no"}
    assert executions.running == []
    assert (await executions.execute(asking(attempt=attempt))).message == "no"
    assert len(executor.executed) == 1


async def test_duplicates_that_arrive_together_start_one_execution(start, executor):
    """Nobody has to be first."""
    executions = start()
    replies = await asyncio.gather(*(executions.execute(asking()) for _ in range(50)))
    assert len(replies) == 50
    assert executor.executed == [("r1", 1)]


async def test_a_caller_that_goes_away_changes_nothing(start, executor):
    """The execution goes on and is answered from the journal later."""
    executor.gate.clear()
    executions = start()
    caller = asyncio.create_task(executions.execute(asking()))
    await entered(executor)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    executor.gate.set()
    assert (await executions.execute(asking())).status == "success"
    assert len(executor.executed) == 1


@pytest.mark.parametrize("other", [{"payload": b'{"a":1}'}, {"kind": "apply_config"}])
async def test_an_id_with_another_type_or_payload_is_refused(start, executor, other):
    """While it runs, when it is done, and when both arrive together."""
    executor.gate.clear()
    executions = start()
    running = asyncio.create_task(executions.execute(asking()))
    await entered(executor)
    with pytest.raises(AlreadyExists, match="r1 was used for another type or payload"):
        await executions.execute(asking(**other))
    executor.gate.set()
    await running
    with pytest.raises(AlreadyExists):
        await executions.execute(asking(**other))
    asks = [executions.execute(asking(**other)), executions.execute(asking())]
    wrong, right = await asyncio.gather(*asks, return_exceptions=True)
    assert isinstance(wrong, AlreadyExists)
    assert isinstance(right, ExecuteReply)
    assert right.status == "success"


async def test_white_space_in_a_payload_makes_no_difference_the_order_of_keys_does(start):
    """An id is bound to the tokens."""
    executions = start()
    await executions.execute(asking(payload=b'{"a":1,"b":2}'))
    await executions.execute(asking(payload=b'{ "a": 1,\n"b": 2 }'))
    with pytest.raises(AlreadyExists):
        await executions.execute(asking(payload=b'{"b":2,"a":1}'))


async def test_an_interrupted_request_whose_effect_was_made_is_not_done_again(start, executor):
    """The executor recognises its effect; that is the outcome."""
    executor.gate.clear()
    before = start()
    caller = asyncio.create_task(before.execute(asking()))
    await entered(executor)
    await before.close(0)
    with pytest.raises(Internal, match="stopping"):
        await caller
    assert before.stuck
    await before._journal.close()
    executor.recovered = Outcome("success", "was made")
    after = start()
    assert (await after.execute(asking())).message == "was made"
    assert executor.asked_to_recover == ["r1"]
    assert executor.executed == [("r1", 1)]


async def test_an_interrupted_request_without_its_effect_is_executed(start, executor):
    """And what the dead run was given up over never appears."""
    executor.gate.clear()
    before = start()
    caller = asyncio.create_task(before.execute(asking()))
    await entered(executor)
    await before.close(0)
    await asyncio.wait((caller,))
    assert isinstance(caller.exception(), Internal)
    await before._journal.close()
    executor.gate.set()
    assert (await start().execute(asking())).message == "made"
    assert executor.executed == [("r1", 1), ("r1", 1)]
    assert executor.effects == ["r1"]


async def test_a_slow_look_for_an_effect_is_not_told_as_a_failure(start, executor, time_is_up):
    """The time limit is for doing it again; what is there already has no limit."""
    executor.gate.clear()
    before = start()
    caller = asyncio.create_task(before.execute(asking()))
    await entered(executor)
    await before.close(0)
    await asyncio.wait((caller,))
    assert isinstance(caller.exception(), Internal)
    await before._journal.close()
    executor.recovered = Outcome("success", "was made")
    executor.recovery.clear()
    after = start()
    time_is_up(0)
    caller = asyncio.create_task(after.execute(asking(timeout_seconds=3)))
    await entered(executor)
    assert after.running == ["r1"]
    executor.recovery.set()
    assert (await caller).message == "was made"


async def test_an_older_epoch_is_refused_also_after_a_restart(start, executor):
    """Whoever lost the node cannot act on it, not even to join or to read an answer."""
    first = start()
    await first.execute(asking(node_id=7, epoch=5))
    with pytest.raises(WrongState, match="stale epoch 4 for node 7: this agent follows 5"):
        await first.execute(asking("r2", node_id=7, epoch=4))
    await first.execute(asking("r2"))
    await end(first)
    second = start()
    with pytest.raises(WrongState):
        await second.execute(asking(node_id=7, epoch=4))
    await second.execute(asking(node_id=7, epoch=5))
    assert executor.executed == [("r1", 1), ("r2", 1)]


async def test_each_node_has_epochs_of_its_own(start, executor):
    """Two names for one machine do not shut each other out; no name counts as node 0."""
    executions = start()
    await executions.execute(asking("a", node_id=1, epoch=5))
    await executions.execute(asking("b", node_id=2, epoch=1))
    await executions.execute(asking("c", epoch=3))
    with pytest.raises(WrongState, match="stale epoch 2 for node 0: this agent follows 3"):
        await executions.execute(asking("d", epoch=2))
    with pytest.raises(WrongState, match="stale epoch 0 for node 2: this agent follows 1"):
        await executions.execute(asking("d", node_id=2, epoch=0))
    assert [name for name, _ in executor.executed] == ["a", "b", "c"]


async def test_a_higher_epoch_counts_also_when_its_request_is_only_joined(start, executor):
    """It is on disk before the answer."""
    executor.gate.clear()
    first = start()
    running = asyncio.create_task(first.execute(asking(node_id=7, epoch=1)))
    await entered(executor)
    joined = asyncio.create_task(first.execute(asking(node_id=7, epoch=2)))
    await asyncio.sleep(0)
    executor.gate.set()
    await asyncio.gather(running, joined)
    await end(first)
    with pytest.raises(WrongState, match="follows 2"):
        await start().execute(asking(node_id=7, epoch=1))


async def test_a_higher_epoch_counts_also_when_its_request_is_refused(start, executor):
    """Whatever the answer is, whoever was followed before is followed no more after a restart."""
    executor.gate.clear()
    first = start(limit=1)
    running = asyncio.create_task(first.execute(asking(node_id=7, epoch=1)))
    await entered(executor)
    with pytest.raises(AlreadyExists):
        await first.execute(asking(payload=b"[1]", node_id=7, epoch=2))
    with pytest.raises(TooMany):
        await first.execute(asking("r2", node_id=8, epoch=3))
    executor.gate.set()
    await running
    await end(first)
    second = start()
    for node_id, followed in ((7, 2), (8, 3)):
        with pytest.raises(WrongState, match=f"follows {followed}"):
            await second.execute(asking(node_id=node_id, epoch=followed - 1))


async def test_who_waits_for_a_run_to_end_may_meanwhile_be_outdated(start, executor, commits):
    """A request that is not begun yet is refused when its node has a newer owner by then."""
    executions = start()
    commits.let_go.clear()
    first = asyncio.create_task(executions.execute(asking(payload=b"[1]")))
    await asyncio.sleep(0)
    older = asyncio.create_task(executions.execute(asking(node_id=7, epoch=1)))
    await asyncio.sleep(0)
    newer = asyncio.create_task(executions.execute(asking("r2", node_id=7, epoch=2)))
    await asyncio.sleep(0)
    commits.let_go.set()
    assert (await first).status == "success"
    assert (await newer).status == "success"
    with pytest.raises(WrongState, match="stale epoch 1 for node 7: this agent follows 2"):
        await older


async def test_a_higher_attempt_does_not_take_over_an_old_failure(start, executor, commits):
    """It arrives while the journal is asked for the attempt before it: it runs all the same."""
    executor.outcomes = [Outcome("failed", "no"), Outcome("success", "made")]
    executions = start()
    await executions.execute(asking(attempt=1))
    commits.let_go.clear()
    again = asyncio.create_task(executions.execute(asking(attempt=1)))
    await asyncio.sleep(0)
    higher = asyncio.create_task(executions.execute(asking(attempt=2)))
    await asyncio.sleep(0)
    commits.let_go.set()
    assert [(await again).message, (await higher).message] == ["no", "made"]
    assert executor.executed == [("r1", 1), ("r1", 2)]


async def test_a_higher_attempt_does_not_join_what_has_ended(start, executor, commits):
    """It arrives while an outcome is being journaled: the answer of an attempt stays the same."""
    executor.outcomes = [Outcome("failed", "no"), Outcome("failed", "again no")]
    executor.gate.clear()
    executions = start()
    first = asyncio.create_task(executions.execute(asking(attempt=1)))
    await entered(executor)
    assert commits.begun.acquire(blocking=False)
    commits.let_go.clear()
    executor.gate.set()
    assert await asyncio.to_thread(commits.begun.acquire, timeout=WAIT)
    higher = asyncio.create_task(executions.execute(asking(attempt=2)))
    await asyncio.sleep(0)
    commits.let_go.set()
    assert [(await first).message, (await higher).message] == ["no", "again no"]
    assert (await executions.execute(asking(attempt=2))).message == "again no"
    assert executor.executed == [("r1", 1), ("r1", 2)]


async def test_a_run_over_its_time_is_given_up_and_runs_when_it_is_asked_for_again(
    start, executor, time_is_up
):
    """Not now, in words; the thread that was given up finds its permit gone, and makes nothing."""
    executor.gate.clear()
    executions = start()
    time_is_up(1)
    with pytest.raises(Internal) as refused:
        await executions.execute(asking(timeout_seconds=3))
    assert (refused.value.status, refused.value.message) == (503, "timed out after 3 s")
    assert executions.stuck
    assert executions.running == []
    given_up = set(executions._workers.jobs)
    executor.gate.set()
    await asyncio.wait(given_up)
    assert executor.effects == []
    assert (await executions.execute(asking())).message == "made"
    assert executor.asked_to_recover == ["r1"]
    assert executor.effects == ["r1"]


async def test_threads_that_were_given_up_count_among_those_that_may_be(
    start, executor, time_is_up
):
    """What hangs in the executor lets no queue grow behind it."""
    executor.gate.clear()
    executions = start(limit=1)
    time_is_up(1)
    with pytest.raises(Internal, match="timed out"):
        await executions.execute(asking(timeout_seconds=3))
    with pytest.raises(TooMany):
        await executions.execute(asking("r2"))
    given_up = set(executions._workers.jobs)
    executor.gate.set()
    await asyncio.wait(given_up)
    await asyncio.sleep(0)
    assert (await executions.execute(asking("r2"))).status == "success"


@pytest.mark.parametrize(("error", "status"), [(NotNow("no room"), 503), (Unclear("no sync"), 500)])
async def test_what_the_executor_could_not_do_or_tell_stays_begun(start, executor, error, status):
    """It is no outcome; asked for again, it is looked for and done."""
    executor.outcomes = [error]
    executions = start()
    with pytest.raises(Internal, match=str(error)) as refused:
        await executions.execute(asking())
    assert refused.value.status == status
    assert (await executions.execute(asking())).status == "success"
    assert executor.asked_to_recover == ["r1"]


async def test_an_effect_that_cannot_be_looked_for_is_neither_made_again_nor_failed(
    start, executor
):
    """The run stays begun until its executor can tell."""
    executor.outcomes = [Unclear("no sync")]
    executor.recovered = OSError(errno.EIO, "Input/output error")
    executions = start()
    with pytest.raises(Internal):
        await executions.execute(asking())
    for attempt in (1, 2):
        with pytest.raises(Internal, match="cannot be told") as refused:
            await executions.execute(asking(attempt=attempt))
        assert refused.value.status == 500
    executor.recovered = Outcome("success", "was made")
    assert (await executions.execute(asking())).message == "was made"
    assert executor.executed == [("r1", 1)]


async def test_an_effect_under_way_is_waited_for_past_the_limit(start, executor, time_is_up):
    """Nothing else could be told truly."""
    executor.after_permit.clear()
    executions = start()
    passed = time_is_up(2)
    caller = asyncio.create_task(executions.execute(asking(timeout_seconds=3)))
    await passed.wait()
    assert executions.running == ["r1"]
    executor.after_permit.set()
    assert (await caller).status == "success"
    assert executor.effects == ["r1"]


async def test_a_thread_inside_an_effect_is_known_of_after_the_end(start, executor, time_is_up):
    """Though its run was past its limit, and nobody waits for it any more."""
    executor.after_permit.clear()
    executions = start()
    passed = time_is_up(2)
    caller = asyncio.create_task(executions.execute(asking(timeout_seconds=3)))
    await passed.wait()
    await executions.close(0)
    with pytest.raises(Internal, match="stopping"):
        await caller
    assert executions.stuck


async def test_an_executor_that_breaks_leaves_its_run_begun(start, executor, caplog):
    """It may have had its effect: nobody says it failed. The reason is in the log alone."""
    executor.outcomes = [RuntimeError("secret inside"), Outcome("success", "done")]
    executions = start()
    with pytest.raises(Internal, match="the executor broke") as raised:
        await executions.execute(asking())
    assert "secret" not in raised.value.message
    assert "secret inside" in caplog.text
    assert (await executions.execute(asking())).status == "success"


async def test_a_message_is_bounded_in_answer_and_journal(start, executor):
    """What is told again is what was told."""
    executor.outcomes = [Outcome("failed", "x" * 100_000)]
    executions = start()
    reply = await executions.execute(asking())
    assert len(reply.message.encode()) <= MAX_ERROR_BYTES
    assert "cut, 100000 bytes in all" in reply.message
    assert (await executions.execute(asking())).message == reply.message


async def test_without_a_journaled_begin_nothing_is_executed(start, executor, monkeypatch):
    """A full disk refuses the request, and the next one may go through."""
    executions = start()
    with monkeypatch.context() as patched:
        patched.setattr(executions._journal._file, "commit", _disk_full)
        with pytest.raises(DatabaseError, match="journal cannot be written"):
            await executions.execute(asking())
    assert executor.executed == []
    assert (await executions.execute(asking())).status == "success"


async def test_an_effect_whose_ending_cannot_be_journaled_is_found_again(
    start, executor, monkeypatch
):
    """Nobody is told of a success that is not on record; asked again, it is recognised."""
    executor.gate.clear()
    executor.recovered = Outcome("success", "was made")
    executions = start()
    caller = asyncio.create_task(executions.execute(asking()))
    await entered(executor)
    with monkeypatch.context() as patched:
        patched.setattr(executions._journal._file, "commit", _disk_full)
        executor.gate.set()
        with pytest.raises(DatabaseError):
            await caller
    assert (await executions.execute(asking())).message == "was made"
    assert executor.effects == ["r1"]


def _disk_full():
    raise sqlite3.OperationalError("database or disk is full")


async def test_one_too_many_is_told_to_come_back(start, executor):
    """The bound refuses new requests; those that run may be joined all the same."""
    executor.gate.clear()
    executions = start(limit=2)
    running = [asyncio.create_task(executions.execute(asking(name))) for name in ("a", "b")]
    await entered(executor)
    await entered(executor)
    with pytest.raises(TooMany) as refused:
        await executions.execute(asking("c"))
    assert refused.value.retry_after == 1
    joined = asyncio.create_task(executions.execute(asking("a")))
    await asyncio.sleep(0)
    executor.gate.set()
    assert {reply.status for reply in await asyncio.gather(*running, joined)} == {"success"}


async def test_stopping_lets_what_runs_finish_and_takes_nothing_more(start, executor):
    """A run in time is answered; a new request is told to ask again."""
    executor.gate.clear()
    executions = start()
    caller = asyncio.create_task(executions.execute(asking()))
    await entered(executor)
    closing = asyncio.create_task(executions.close(WAIT))
    await asyncio.sleep(0)
    with pytest.raises(Internal, match="stopping"):
        await executions.execute(asking("r2"))
    executor.gate.set()
    assert (await caller).status == "success"
    await closing
    assert not executions.stuck
