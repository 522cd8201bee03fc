"""Many requests in one: each has the answer it would have had alone."""

import asyncio
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeplane.agent.batches import LATE_SECONDS, Batches
from edgeplane.agent.executors.base import NotNow, Outcome
from edgeplane.agent.journal_file import JournalFile
from edgeplane.model.errors import TooMany
from edgeplane.wire import BatchRefusal, ExecuteReply
from kit.executors import asking, entered


async def test_each_is_answered_in_the_order_asked(start, executor):
    """Success, failure, refusals of every kind, and an answer from the journal, side by side."""
    executions = start()
    await executions.execute(asking("known", node_id=1, epoch=5))
    await executions.execute(asking("g", kind="apply_config", node_id=1, generation=7))
    reply = await Batches(executions).execute(
        [
            asking("new"),
            asking("known"),
            asking("known", payload=b'{"a":1}'),
            asking("stale", node_id=1, epoch=4),
            asking("old", kind="apply_config", node_id=1, generation=6),
        ]
    )
    made, known, other, stale, old = reply.results
    assert made == ExecuteReply("new", "success", "made")
    assert known == ExecuteReply("known", "success", "made")
    assert isinstance(other, BatchRefusal)
    assert isinstance(stale, BatchRefusal)
    assert isinstance(old, BatchRefusal)
    assert (other.request_id, other.http_status, other.code) == ("known", 409, 3002)
    assert (stale.http_status, stale.code, stale.data) == (409, 3003, None)
    assert stale.error == "stale epoch 4 for node 1: this agent follows 5"
    assert (old.http_status, old.code) == (409, 3003)
    assert old.data is not None
    assert old.data.begun_generation == 7
    assert [name for name, _ in executor.executed] == ["known", "g", "new"]


async def test_what_can_pass_says_so_for_each(start, executor):
    """Too many, not now, an executor that breaks: the others are not touched by it."""
    executor.outcomes = [NotNow("no room")]
    executions = start(limit=1)
    reply = await Batches(executions).execute([asking("a"), asking("b")])
    first, second = reply.results
    assert first == BatchRefusal("a", 503, 5001, "no room")
    assert second == BatchRefusal("b", 429, 3004, "1 tasks are running; ask again", retry_after=1)


async def test_what_nobody_foresaw_concerns_one(start, monkeypatch, caplog):
    """The log has it under its request id; the answer has no internals."""
    executions = start()
    execute = executions.execute

    async def break_one(request):
        if request.request_id == "b":
            raise RuntimeError("internals")
        return await execute(request)

    monkeypatch.setattr(executions, "execute", break_one)
    reply = await Batches(executions).execute([asking("a"), asking("b")])
    good, bad = reply.results
    assert isinstance(good, ExecuteReply)
    assert isinstance(bad, BatchRefusal)
    assert (bad.http_status, bad.code) == (500, 5001)
    assert "internals" not in bad.error
    assert "internals" in caplog.text


async def test_the_same_id_twice_is_one_execution(start, executor):
    """The second joins the first."""
    executor.outcomes = [Outcome("failed", "no")]
    reply = await Batches(start()).execute([asking(), asking(), asking(attempt=2)])
    assert reply.results == [ExecuteReply("r1", "failed", "no")] * 2 + [
        ExecuteReply("r1", "success", "made")
    ]
    assert executor.executed == [("r1", 1), ("r1", 2)]


async def test_what_runs_is_joined(start, executor):
    """Also by a batch, whoever asked first."""
    executor.gate.clear()
    executions = start()
    alone = asyncio.create_task(executions.execute(asking("a")))
    await entered(executor)
    batch = asyncio.create_task(Batches(executions).execute([asking("a"), asking("b")]))
    await entered(executor)
    executor.gate.set()
    assert (await batch).results[0] == await alone
    assert sorted(executor.effects) == ["a", "b"]


async def test_begins_share_commits(start, executor, monkeypatch):
    """A hundred tasks cost a few commits, not two hundred."""
    commits = []
    commit = JournalFile.commit
    monkeypatch.setattr(JournalFile, "commit", lambda file: (commits.append(1), commit(file)))
    executor.gate.clear()
    batch = asyncio.create_task(
        Batches(start()).execute([asking(f"r{number}") for number in range(100)])
    )
    await entered(executor)
    assert len(commits) <= 20
    executor.gate.set()
    assert len((await batch).results) == 100


@pytest.fixture
def the_time_of(monkeypatch):
    """Return a function: a wait for so many seconds is over when the event is set."""

    def over(seconds, event):
        original = asyncio.wait

        async def wait(futures, **named):
            if named.get("timeout") == seconds:
                await event.wait()
                named["timeout"] = 0
            return await original(futures, **named)

        monkeypatch.setattr(asyncio, "wait", wait)

    return over


async def test_an_effect_past_its_time_does_not_keep_the_others_results(
    start, executor, the_time_of
):
    """It has no result in the answer, goes on, and is joined by whoever asks for it."""
    executions = start()
    executor.after_permit.clear()
    over = asyncio.Event()
    the_time_of(9 + LATE_SECONDS, over)
    alone = asyncio.create_task(executions.execute(asking("a")))
    await entered(executor)
    await entered(executor)
    asked = [asking("a", timeout_seconds=9), asking("a", payload=b"[1]", timeout_seconds=9)]
    batch = asyncio.create_task(Batches(executions).execute(asked))
    await asyncio.sleep(0)
    over.set()
    (refused,) = (await batch).results
    assert isinstance(refused, BatchRefusal)
    assert refused.code == 3002
    executor.after_permit.set()
    assert (await alone).status == "success"
    assert (await executions.execute(asking("a"))).status == "success"


async def test_a_caller_that_goes_away_changes_nothing(start, executor):
    """All of it goes on, and is answered from the journal later."""
    executor.gate.clear()
    executions = start()
    batches = Batches(executions, limit=1)
    caller = asyncio.create_task(batches.execute([asking("a"), asking("b")]))
    await entered(executor)
    await entered(executor)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    executor.gate.set()
    reply = await batches.execute([asking("a"), asking("b")])
    assert reply.results == [ExecuteReply(name, "success", "made") for name in ("a", "b")]
    assert len(executor.executed) == 2


async def test_the_number_of_batches_is_bounded(start, executor):
    """One too many is told to come back; when one ends there is room again."""
    executor.gate.clear()
    batches = Batches(start(), limit=1)
    first = asyncio.create_task(batches.execute([asking()]))
    await entered(executor)
    with pytest.raises(TooMany) as refused:
        await batches.execute([asking("r2")])
    assert refused.value.retry_after == 1
    executor.gate.set()
    await first
    assert len((await batches.execute([asking("r2")])).results) == 1


NUMBERS = count()
ASKED = st.tuples(
    st.sampled_from(["a", "b", "c"]), st.sampled_from([b"{}", b'{"x":1}']), st.integers(1, 2)
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(asked=st.lists(ASKED, min_size=1, max_size=12))
async def test_a_batch_and_its_repetition_make_one_effect_for_each_id(start, executor, asked):
    """Whatever is mixed in it: one result for each, the same again, and no id bound to two."""
    if not hasattr(executor, "shared"):
        executor.shared = Batches(start())
    mark = next(NUMBERS)
    requests = [
        asking(f"{name}-{mark}", payload=payload, attempt=attempt)
        for name, payload, attempt in asked
    ]
    first = await executor.shared.execute(requests)
    again = await executor.shared.execute(requests)
    assert [result.request_id for result in first.results] == [
        request.request_id for request in requests
    ]
    assert again.results == first.results
    mine = [name for name in executor.effects if name.endswith(f"-{mark}")]
    assert sorted(mine) == sorted({request.request_id for request in requests})
