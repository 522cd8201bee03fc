"""The order of configs: once a generation has begun, no earlier one of its node begins."""

import asyncio

import pytest

from edgeplane.agent.executors.base import NotNow, Outcome
from edgeplane.agent.refusals import Outdated
from edgeplane.model.errors import Internal, WrongState
from edgeplane.wire import CANCELLED, CancelRequest
from kit.executors import asking, end, entered


def _config(request_id, generation, node_id=1, **more):
    return asking(request_id, kind="apply_config", node_id=node_id, generation=generation, **more)


async def test_an_earlier_generation_is_refused_also_after_a_restart(start, executor):
    """In words that say which one stands before it; an equal one is taken."""
    first = start()
    await first.execute(_config("a", 7))
    await end(first)
    second = start()
    with pytest.raises(Outdated) as refused:
        await second.execute(_config("b", 5))
    assert refused.value.message == (
        "generation: 5 is older than 7, which this agent has begun for node 1"
    )
    assert (refused.value.status, refused.value.code) == (409, 3003)
    assert refused.value.data.begun_generation == 7
    assert (await second.execute(_config("c", 7))).status == "success"
    assert [name for name, _ in executor.executed] == ["a", "c"]
    assert second._journal.entries == 2


async def test_a_success_is_answered_whatever_has_begun_since(start, executor):
    """From the journal."""
    executions = start()
    reply = await executions.execute(_config("a", 5))
    await executions.execute(_config("b", 7))
    assert await executions.execute(_config("a", 5, attempt=2)) == reply
    assert len(executor.executed) == 2


async def test_only_configs_of_the_same_node_have_an_order(start):
    """Neither other kinds nor other nodes nor those that say no generation or node are in it."""
    executions = start()
    await executions.execute(_config("a", 7))
    for other in (
        _config("b", 5, node_id=2),
        _config("c", None),
        asking("d", kind="apply_config", generation=5),
        asking("e", kind="reload", node_id=1, generation=5),
        asking("f", kind="purge_cache", node_id=1, generation=5),
    ):
        assert (await executions.execute(other)).status == "success"


async def test_a_stale_epoch_is_told_first(start):
    """Whoever lost the node does not learn that its task is past."""
    executions = start()
    await executions.execute(_config("a", 7, epoch=3))
    with pytest.raises(WrongState, match="stale epoch") as refused:
        await executions.execute(_config("b", 5, epoch=2))
    assert not isinstance(refused.value, Outdated)


async def test_the_epoch_of_what_is_outdated_counts(start):
    """It is on disk before the refusal."""
    first = start()
    await first.execute(_config("a", 7, epoch=1))
    with pytest.raises(Outdated):
        await first.execute(_config("b", 5, epoch=2))
    await end(first)
    with pytest.raises(WrongState, match="follows 2"):
        await start().execute(_config("c", 7, epoch=1))


@pytest.mark.parametrize("found", [None, Outcome("success", "was made")])
async def test_an_interrupted_earlier_one_tells_what_it_did_and_does_no_more(
    start, executor, found
):
    """What it did counts; what it did not do is past."""
    executor.outcomes = [NotNow("no room")]
    executions = start()
    with pytest.raises(Internal):
        await executions.execute(_config("a", 5))
    await executions.execute(_config("b", 7))
    executor.recovered = found
    if found:
        assert (await executions.execute(_config("a", 5))).message == "was made"
    else:
        for _ in range(2):
            with pytest.raises(Outdated):
                await executions.execute(_config("a", 5))
    assert executor.effects == ["a", "b"]  # the first of them said it was none


async def test_an_earlier_one_that_has_not_taken_effect_is_overtaken(start, executor):
    """It ends as failed, in the words of the refusal; its effect never appears."""
    executor.gate.clear()
    executions = start()
    earlier = asyncio.create_task(executions.execute(_config("a", 5)))
    await entered(executor)
    later = asyncio.create_task(executions.execute(_config("b", 7)))
    reply = await earlier
    assert (reply.status, reply.message) == (
        "failed",
        "generation: 5 is older than 7, which this agent has begun for node 1",
    )
    executor.gate.set()
    assert (await later).status == "success"
    assert executor.effects == ["b"]
    assert await executions.execute(_config("a", 5)) == reply


async def test_a_later_one_waits_for_an_effect_under_way(start, executor):
    """Or that effect could come after its own."""
    executor.after_permit.clear()
    executions = start()
    earlier = asyncio.create_task(executions.execute(_config("a", 5)))
    await entered(executor)
    await entered(executor)
    later = asyncio.create_task(executions.execute(_config("b", 7)))
    other = asyncio.create_task(executions.execute(_config("c", 1, node_id=2)))
    await entered(executor)
    await entered(executor)
    assert [name for name, _ in executor.executed] == ["a", "c"]
    executor.after_permit.set()
    assert [(await task).status for task in (earlier, later, other)] == ["success"] * 3
    assert executor.effects[-1] == "b"


async def test_one_that_waits_for_another_can_be_cancelled(start, executor):
    """It has no effect yet."""
    executor.after_permit.clear()
    executions = start()
    earlier = asyncio.create_task(executions.execute(_config("a", 5)))
    await entered(executor)
    await entered(executor)
    later = asyncio.create_task(executions.execute(_config("b", 7)))
    while executions.running != ["a", "b"]:
        await asyncio.sleep(0)
    assert (await executions.cancel(CancelRequest("b"))).state == "cancelled"
    assert (await later).message == CANCELLED
    executor.after_permit.set()
    assert (await earlier).status == "success"
    assert executor.effects == ["a"]
