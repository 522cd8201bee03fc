"""An agent of the swarm keeps the agent's promises, whatever befalls it."""

import asyncio

import pytest
from msgspec import Raw

from edgeplane.swarm.addresses import address_of
from edgeplane.swarm.faults import Dice, Faults, Point
from edgeplane.transport.base import Address, Outdated, Refused, Stale, Unanswered
from edgeplane.wire import CANCELLED, ExecuteReply, ExecuteRequest
from unit.swarm.conftest import seed_that_kills


async def test_a_request_is_done_once_and_told_the_same_again(swarm):
    """The second answer is the journal's."""
    here = await swarm()
    first = await here.ask("r1")
    assert (first.status, await here.ask("r1", attempt=2)) == ("success", first)
    assert here.told("effect") == ["r1"]
    assert here.tally.counts.duplicates == 1


async def test_agents_do_not_know_each_others_requests(swarm):
    """One id at two agents is two effects."""
    here = await swarm()
    await here.ask("r1", agent=1)
    await here.ask("r1", agent=2)
    assert here.told("effect") == ["r1", "r1"]


@pytest.mark.parametrize("point", Point)
async def test_a_killed_agent_makes_one_effect_all_the_same(swarm, point):
    """Wherever it dies: its journal says what it was at, and its file whether that was done."""
    here = await swarm(kill=0.3, seed=seed_that_kills(point), down=0.01)
    with pytest.raises(Unanswered):
        await here.ask("r1")
    await here.back()
    assert (await here.ask("r1", attempt=2)).status == "success"
    assert here.told("effect") == ["r1"]
    assert here.tally.counts.kills == 1
    assert here.tally.counts.duplicates == (point is Point.BEFORE_ANSWER)
    assert here.tally.counts.recovered == (point is Point.AFTER_EFFECT)


async def test_a_killed_agent_is_away_alone_and_forgets_what_it_ran(swarm):
    """What ran at it has no effect until it is asked for again; its neighbour serves on."""
    here = await swarm(latency=0.05, down=0.01)
    agent = here.fleet.at("127.1.0.1")
    running = asyncio.create_task(here.ask("r1"))
    while not any(run.begun for run in agent.running.values()):
        await asyncio.sleep(0.001)
    here.fleet.kill(agent)
    with pytest.raises(Unanswered):
        await running
    assert (await here.ask("r2", agent=2)).status == "success"
    await here.back()
    assert here.told("effect") == ["r2"]
    await here.ask("r1")
    assert here.told("effect") == ["r2", "r1"]


async def test_who_joins_under_a_new_epoch_dies_with_the_agent(swarm):
    """What waited for the epoch to be on record is forgotten too; the epoch is not."""
    here = await swarm(latency=1e6, down=0.01)
    agent = here.fleet.at("127.1.0.1")
    told = []
    for epoch in (1, 2):
        request = ExecuteRequest("r1", "reload", node_id=1, epoch=epoch)
        here.fleet.execute(agent, request, told.append)
    here.fleet.kill(agent)
    await here.back()
    assert (agent.running, agent.epochs, told) == ({}, {1: 2}, [])


@pytest.mark.parametrize("point", [Point.AFTER_BEGUN, Point.AFTER_EFFECT])
async def test_a_swarm_that_is_started_again_knows_what_its_agents_were_at(swarm, point):
    """Journal and effects are read from their files."""
    here = await swarm(kill=0.3, seed=seed_that_kills(point), down=0.01)
    await here.ask("done", agent=2)
    with pytest.raises(Unanswered):
        await here.ask("r1")
    here = await swarm()
    await here.ask("done", agent=2)
    await here.ask("r1")
    assert sorted(here.told("effect")) == ["done", "r1"]


async def test_an_answer_that_is_dropped_is_in_the_journal(swarm):
    """The connection is cut after the effect, also on the new connection tried at once."""
    here = await swarm(drop=1.0)
    with pytest.raises(Unanswered):
        await here.ask("r1")
    assert here.told("effect") == ["r1"]
    assert here.tally.counts.drops == 1


async def test_what_is_to_fail_fails_without_an_effect_until_a_higher_attempt(swarm):
    """The failure is the journal's until then."""
    here = await swarm(fail=1.0)
    failed = await here.ask("r1")
    assert (failed.status, await here.ask("r1")) == ("failed", failed)
    assert (here.told("effect"), here.tally.counts.failures) == ([], 1)
    assert (await here.ask("r1", attempt=2)).status == "failed"
    assert here.tally.counts.failures == 2


async def test_a_zombie_answers_after_the_limit_and_others_meanwhile(swarm):
    """Its effect is made in time: who asks again is answered, if that one is no zombie too."""
    here = await swarm(zombie=0.5, seed=_zombie_seed())
    late = asyncio.create_task(here.ask("r1", timeout_seconds=1))
    while not here.told("effect"):
        await asyncio.sleep(0.001)
    prompt = await here.ask("r1", attempt=2, timeout_seconds=1)
    assert not late.done()
    assert await late == prompt
    assert here.told("effect") == ["r1"]


def _zombie_seed():
    """Return a seed that makes a zombie of the first request only."""
    for seed in range(1_000):
        dice = Dice(Faults(zombie=0.5, seed=seed))
        if [dice.fate(1, turn).late for turn in (1, 2)] == [True, False]:
            return seed
    raise AssertionError


async def test_requests_at_the_same_time_are_joined(swarm):
    """One effect, one answer for all."""
    here = await swarm(latency=0.01)
    told = await asyncio.gather(*(here.ask("r1") for _ in range(20)))
    assert (len(set(map(str, told))), here.told("effect")) == (1, ["r1"])


async def test_an_execution_over_its_limit_is_given_up_without_an_effect(swarm):
    """It stays begun, and goes on when it is asked for again."""
    here = await swarm(latency=1000.0)
    with pytest.raises(Exception, match="503: timed out after 1 s"):
        await here.ask("r1", timeout_seconds=1)
    assert here.told("effect") == []


async def test_a_stale_epoch_is_refused_for_its_node_only(swarm):
    """Also by an agent that was killed since."""
    here = await swarm(down=0.01)
    await here.ask("r1", node_id=1, epoch=5)
    await here.ask("r2", node_id=2, epoch=1)
    here.fleet.kill(here.fleet.at("127.1.0.1"))
    await here.back()
    with pytest.raises(Stale, match="stale epoch 4 for node 1: this agent follows 5"):
        await here.ask("r3", node_id=1, epoch=4)
    await here.ask("r4", node_id=1, epoch=5, agent=2)
    assert here.told("effect") == ["r1", "r2", "r4"]


async def test_an_id_belongs_to_its_type_and_payload(swarm):
    """Another payload under it is refused, and changes nothing."""
    here = await swarm()
    await here.ask("r1", payload=Raw(b'{"a":1}'))
    for other in ({"payload": Raw(b'{"a":2}')}, {"kind": "purge_cache"}):
        with pytest.raises(Refused, match="409: requestId: r1 was used"):
            await here.ask("r1", **other)
    await here.ask("r1", payload=Raw(b'{ "a": 1 }'))
    assert here.told("effect") == ["r1"]


def _at(swarm, agent=1):
    return Address(address_of(agent), swarm.port)


async def _begun(swarm, request_id):
    """Wait until the first agent's journal has a request as begun."""
    running = swarm.fleet.at(address_of(1)).running
    while request_id not in running or not running[request_id].begun:
        await asyncio.sleep(0.001)


async def test_a_batch_is_answered_together_each_for_itself(swarm):
    """A refusal among the results costs the others nothing."""
    here = await swarm()
    await here.ask("r1")
    asked = [ExecuteRequest(*what) for what in (("r0", "reload"), ("r1", "purge_cache"))]
    done, refused = await here.client.deliver_many(_at(here), asked, 20)
    assert isinstance(done, ExecuteReply)
    assert (done.status, type(refused)) == ("success", Refused)
    assert here.told("effect") == ["r1", "r0"]


async def test_a_batch_whose_answer_is_dropped_is_in_the_journal(swarm):
    """All of it."""
    here = await swarm(drop=1.0)
    asked = [ExecuteRequest(f"r{number}", "reload") for number in range(3)]
    endings = await here.client.deliver_many(_at(here), asked, 20)
    assert {type(ending) for ending in endings} == {Unanswered}
    assert sorted(set(here.told("effect"))) == sorted(here.told("effect")) == ["r0", "r1", "r2"]


async def test_an_agent_that_is_killed_does_no_more_of_a_batch(swarm):
    """It dies with the first of them; the others had not begun."""
    here = await swarm(kill=0.3, seed=seed_that_kills(Point.ON_ARRIVAL), down=0.01)
    asked = [ExecuteRequest(name, "reload") for name in ("r1", "r2", "r3")]
    endings = await here.client.deliver_many(_at(here), asked, 20)
    assert {type(ending) for ending in endings} == {Unanswered}
    await here.back()
    assert (here.tally.counts.requests, here.told("effect")) == (1, [])


async def test_a_batch_does_not_wait_for_zombies(swarm):
    """When the largest limit is over, what is there is told; the rest has no result."""
    here = await swarm(zombie=0.5, seed=_zombie_seed())
    asked = [ExecuteRequest(f"r{number}", "reload", timeout_seconds=1) for number in (1, 2)]
    late, prompt = await here.client.deliver_many(_at(here), asked, 20)
    assert (type(late), type(prompt)) == (Unanswered, ExecuteReply)


async def test_what_has_no_effect_yet_can_be_cancelled(swarm):
    """Whoever waits is told so; a higher attempt runs again."""
    here = await swarm(latency=20.0, uniform=True)
    waiting = asyncio.create_task(here.ask("r1"))
    await _begun(here, "r1")
    assert await here.client.cancel(_at(here), "r1", None, None, 20) == "cancelled"
    assert (await waiting).message == CANCELLED
    assert await here.ask("r1") == await waiting
    assert here.told("effect") == []


async def test_what_is_cancelled_before_it_arrives_has_no_effect(swarm):
    """Also by an agent that was killed since; of what has ended the state is told."""
    here = await swarm(down=0.01)
    assert await here.client.cancel(_at(here), "r1", None, None, 20) == "unknown"
    here.fleet.kill(here.fleet.at(address_of(1)))
    await here.back()
    assert (await here.ask("r1")).message == CANCELLED
    assert (await here.ask("r2")).status == "success"
    assert await here.client.cancel(_at(here), "r2", None, None, 20) == "done"
    assert here.told("effect") == ["r2"]


async def test_a_later_config_overtakes_one_that_waits(swarm):
    """The older one fails; asked for again it is outdated for ever."""
    here = await swarm(latency=20.0, uniform=True)
    old = asyncio.create_task(here.ask("r1", "apply_config", node_id=7, generation=1))
    await _begun(here, "r1")
    new = asyncio.create_task(here.ask("r2", "apply_config", node_id=7, generation=2))
    assert (await old).message.startswith("generation: 1 is older than 2, ")
    with pytest.raises(Outdated):
        await here.ask("r3", "apply_config", node_id=7, generation=1)
    new.cancel()
    assert here.told("effect") == []
