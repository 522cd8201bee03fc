"""Agents that connect out keep their end of the protocol, against a control plane of a test."""

import asyncio
from contextlib import asynccontextmanager
from random import Random

import pytest

from edgeplane.swarm import sync
from edgeplane.swarm.addresses import address_of, name_of
from edgeplane.swarm.controls import find
from edgeplane.swarm.effects import Effects
from edgeplane.swarm.faults import Dice, Faults, Point
from edgeplane.swarm.fleet import Fleet
from edgeplane.swarm.journal import DurableJournal
from edgeplane.swarm.journal_file import JournalFile
from edgeplane.swarm.sync import SyncAgent
from edgeplane.swarm.syncing import Syncing
from edgeplane.swarm.tally import Tally
from edgeplane.wire import CancelReply, Told
from kit.ports import free_port
from kit.syncing import SyncControl
from unit.swarm.conftest import TOKEN, seed_that_kills


class Stage:
    """A control plane of the test, and one agent that connects out to it."""

    def __init__(self, folder, *, most=100, urls="http://127.0.0.1:{port}", **faults):
        self.folder, self.faults, self.most, self.urls = folder, Faults(**faults), most, urls
        self.control = SyncControl()
        self.tally = Tally()

    @property
    def counts(self):
        """What was counted."""
        return self.tally.counts

    async def start(self):
        """Begin."""
        await self.control.listen()
        file = JournalFile(self.folder / "journal.db")
        self.effects = Effects(self.folder / "effects", file.begun())
        self.journal = DurableJournal(file)
        self.fleet = Fleet(1, self.journal, self.effects, self.faults, self.tally)
        controls = find("--control", self.urls.format(port=self.control.port), TOKEN)
        self.shared = Syncing(self.fleet, controls, self.tally, most=self.most)
        (agent,) = self.fleet.everyone()
        self.client = SyncAgent(self.shared, agent)
        self.shared.start([self.client])
        return self

    async def close(self):
        """End everything."""
        self.shared.end()
        await self.control.close()
        self.journal.close()
        self.effects.close()

    async def next(self):
        """Wait for the next exchange."""
        return await self.control.exchange()

    async def quiet(self):
        """Let whatever is on its way arrive; fail where that is an exchange."""
        for _ in range(20):
            await asyncio.sleep(0)
        assert not self.control.waiting


@pytest.fixture
async def stage(tmp_path):
    """Return a function that starts a stage."""
    async with _stages(tmp_path) as start:
        yield start


@asynccontextmanager
async def _stages(folder):
    made = []

    async def start(**options):
        made.append(await Stage(folder, **options).start())
        return made[-1]

    yield start
    for one in made:
        await one.close()


@pytest.fixture
def long_moment(monkeypatch):
    """Let a fast task be fast, however slow the machine."""
    monkeypatch.setattr(sync, "MOMENT_SECONDS", 15.0)


async def test_the_first_exchange_says_who_comes(stage):
    """By name, with the token, from an address of its own."""
    here = await stage()
    first = await here.next()
    asked = first.request
    assert (asked.node, asked.exchange, asked.again) == (name_of(1), 1, False)
    assert (asked.results, asked.cancels) == ([], [])
    assert len(asked.session) >= 8
    assert f"authorization: Bearer {TOKEN}\r\n" in first.head
    assert first.writer.get_extra_info("peername")[0] == address_of(1)


async def test_fast_tasks_cost_one_exchange(stage, long_moment):
    """All their results ride with the next, on the same connection; acknowledged, no more."""
    here = await stage()
    (await here.next()).reply("r1", "r2", "r3")
    second = await here.next()
    assert sorted(second.results) == ["r1", "r2", "r3"]
    assert {one["status"] for one in second.results.values()} == {"success"}
    assert [told.attempt for told in second.request.results] == [1, 1, 1]
    second.reply("r4", acknowledged=(Told("r1", 1), Told("r3", 1)))
    third = await here.next()
    assert sorted(third.results) == ["r2", "r4"]
    assert [third.request.exchange, here.counts.exchanges] == [3, 3]
    assert (here.counts.effects, here.counts.connections_made) == (4, 1)


async def test_a_slow_result_comes_in_a_newer_exchange_on_a_second_connection(stage):
    """The older exchange is still held; once answered, its connection is used in turn."""
    here = await stage(latency=0.2, uniform=True, seed=4)
    first = await here.next()
    first.reply("r1")
    held = await here.next()
    assert held.results == {}
    newer = await here.next()
    assert list(newer.results) == ["r1"]
    assert newer.writer is not held.writer
    held.reply()
    newer.reply("r2", acknowledged=(Told("r1", 1),))
    third, fourth = await here.next(), await here.next()
    assert {third.writer, fourth.writer} == {held.writer, newer.writer}
    assert (third.results, list(fourth.results)) == ({}, ["r2"])
    assert here.counts.connections_made == 2


async def test_without_room_for_a_second_connection_it_waits_for_the_reply(stage):
    """The result rides with the next exchange then."""
    here = await stage(latency=0.03, uniform=True, seed=4, most=1)
    (await here.next()).reply("r1")
    held = await here.next()
    while not here.client._telling.anything:
        await asyncio.sleep(0.001)
    await here.quiet()
    held.reply()
    assert list((await here.next()).results) == ["r1"]
    assert here.counts.connections_made == 1


async def test_a_pause_is_kept(stage):
    """Nothing is sent before it is over, though all has ended."""
    here = await stage()
    first = await here.next()
    loop = asyncio.get_running_loop()
    first.reply("r1", pause=0.2)
    replied = loop.time()
    assert list((await here.next()).results) == ["r1"]
    assert loop.time() - replied >= 0.2


async def test_after_a_lost_reply_it_asks_for_everything_again(stage, long_moment):
    """In the same session, once; and what was not acknowledged is told again."""
    here = await stage()
    first = await here.next()
    first.reply("r1")
    second = await here.next()
    second.cut()
    third = await here.next()
    assert third.request.session == first.request.session
    assert (third.request.exchange, third.request.again) == (3, True)
    assert list(third.results) == ["r1"]
    third.reply("r1")
    fourth = await here.next()
    assert (fourth.request.again, list(fourth.results)) == (False, ["r1"])
    assert (here.counts.effects, here.counts.duplicates) == (1, 1)
    assert (here.counts.reconnects, here.counts.lost_exchanges) == (1, 1)


async def test_an_exchange_without_a_reply_in_its_time_is_lost(stage):
    """Not before it may be held no longer, and something more."""
    here = await stage()
    (await here.next()).reply(wait=30.0)
    await here.next()
    now = asyncio.get_running_loop().time()
    here.client.look(now + 30 + sync.GRACE_SECONDS - 1)
    await here.quiet()
    here.client.look(now + 30 + sync.GRACE_SECONDS + 1)
    assert (await here.next()).request.again


async def test_an_exchange_may_be_held_as_long_as_the_latest_reply_says(stage):
    """The older one's, which comes when the newer one is on its way, counts for that too."""
    here = await stage(latency=0.03, uniform=True, seed=4)
    (await here.next()).reply("r1", wait=1.0)
    held, newer = await here.next(), await here.next()
    held.reply(wait=60.0)
    while here.client._lines[0].busy:
        await asyncio.sleep(0.001)
    now = asyncio.get_running_loop().time()
    here.client.look(now + 60 + sync.GRACE_SECONDS - 1)
    newer.reply()
    assert not (await here.next()).request.again
    assert here.counts.lost_exchanges == 0


async def test_a_second_connection_that_idles_is_closed(stage):
    """Never the one that is used."""
    here = await stage(latency=0.03, uniform=True, seed=4)
    (await here.next()).reply("r1")
    held, newer = await here.next(), await here.next()
    held.reply()
    while here.client._lines[0].busy:
        await asyncio.sleep(0.001)
    here.client.look(asyncio.get_running_loop().time() + sync.IDLE_SECONDS + 1)
    while here.counts.connections > 1:
        await asyncio.sleep(0.001)
    newer.reply()
    assert (await here.next()).writer is newer.writer
    assert here.counts.lost_exchanges == 0


@pytest.fixture
def no_delay(monkeypatch):
    """Return the spans of seconds in which agents are to come back; they come back at once."""
    spans = []

    def uniform(self, least, most):
        spans.append((least, most))
        return 0.0

    monkeypatch.setattr(Random, "uniform", uniform)
    return spans


@pytest.mark.parametrize(
    ("status", "headers", "span"),
    [
        (401, ("retry-after: 3",), (15.0, 30.0)),
        (404, ("retry-after: 3",), (15.0, 30.0)),
        (409, ("retry-after: 0",), (0, 4.0)),
        (500, (), (15.0, 30.0)),
    ],
)
async def test_who_is_turned_away_comes_again_and_counts_it(stage, no_delay, status, headers, span):
    """After a while where a person has to mend it; no reply was lost, so nothing is sent again."""
    here = await stage()
    (await here.next()).reply(reconnect=4.0)
    (await here.next()).answer(status, b"{}", *headers)
    third = await here.next()
    assert (third.request.exchange, third.request.again) == (3, False)
    assert here.counts.turned_away == {status: 1}
    assert no_delay[-1] == span


async def test_what_is_no_reply_is_an_answer_that_turns_away(stage, no_delay):
    """Whatever its status says."""
    here = await stage()
    (await here.next()).reply()
    (await here.next()).answer(200, b'{"code":0,"message":"success","data":{"nodeId":"x"}}')
    assert (await here.next()).request.exchange == 3
    assert here.counts.turned_away == {200: 1}


async def test_who_is_turned_away_after_a_lost_reply_still_asks_for_everything(stage):
    """The reply was lost all the same."""
    here = await stage()
    (await here.next()).reply()
    (await here.next()).cut()
    (await here.next()).answer(503, b"{}", "retry-after: 0")
    fourth = await here.next()
    assert fourth.request.again
    fourth.reply()
    assert not (await here.next()).request.again


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_kept(stage, status):
    """And what comes too early for it is not told."""
    here = await stage()
    (await here.next()).reply()
    second = await here.next()
    loop = asyncio.get_running_loop()
    second.answer(status, b"{}", "retry-after: 1")
    answered = loop.time()
    await here.next()
    assert loop.time() - answered >= 1.0
    assert here.counts.put_off == 1


async def test_nonsense_ends_the_connection(stage):
    """As does a second answer to one exchange."""
    here = await stage()
    (await here.next()).reply()
    second = await here.next()
    second.writer.write(b"nonsense\r\n\r\n")
    third = await here.next()
    assert (third.request.again, third.writer is second.writer) == (True, False)


async def test_intervals_between_tries_double(stage, no_delay):
    """At first at any time within what was told; up to 10 s, or what was told if that is more."""
    here = await stage()
    for told, wanted in (
        (4.0, [(0, 4.0), (4.0, 8.0), (5.0, 10.0), (5.0, 10.0)]),
        (25.0, [(0, 25.0), (12.5, 25.0), (12.5, 25.0), (12.5, 25.0)]),
    ):
        (await here.next()).reply(reconnect=told)
        await here.next()
        no_delay.clear()
        for _ in range(4):
            here.client._come_back()
        assert no_delay == wanted


async def test_the_next_control_plane_is_tried_when_one_is_not_reached(stage):
    """At once, without a wait between them."""
    here = await stage(urls=f"http://127.0.0.1:{free_port()}, http://127.0.0.1:{{port}}/")
    assert (await here.next()).request.exchange == 1
    assert here.counts.unreached == 1


async def test_the_next_control_plane_is_tried_when_one_turns_it_away(stage):
    """It has nothing to lose there; what it has to tell, it tells the other."""
    here = await stage(urls="http://127.0.0.1:{port},http://127.0.0.2:{port}")
    other = await SyncControl().listen(here.control.port, "127.0.0.2")
    try:
        (await here.next()).reply()
        (await here.next()).answer(409, b"{}", "retry-after: 0")
        assert (await other.exchange()).request.exchange == 3
    finally:
        await other.close()


async def test_a_dropped_result_is_asked_for_again(stage, long_moment):
    """The connection is cut where it was to be told; the journal answers the next time."""
    here = await stage(drop=0.5, seed=_seed_that_drops())
    (await here.next()).reply("r1")
    second = await here.next()
    assert (second.request.again, second.results) == (True, {})
    second.reply("r1")
    assert list((await here.next()).results) == ["r1"]
    assert (here.counts.drops, here.counts.effects, here.counts.duplicates) == (1, 1, 1)


@pytest.mark.parametrize("point", Point)
async def test_a_killed_agent_comes_back_in_a_session_of_its_own(stage, point, long_moment):
    """It remembers nothing but its journal: one effect, wherever it died."""
    here = await stage(kill=0.3, down=0.01, seed=seed_that_kills(point))
    first = await here.next()
    first.reply("r1")
    second = await here.next()
    assert second.request.session != first.request.session
    assert (second.request.exchange, second.request.again) == (1, False)
    assert second.results == {}
    second.reply("r1", attempt=2)
    third = await here.next()
    while not third.results:
        third = await here.next()
    assert third.request.results[0].attempt == 2
    assert (here.counts.kills, here.counts.effects) == (1, 1)


async def test_who_is_killed_while_connecting_does_not_use_the_connection(stage):
    """It was of a life that is over."""
    here = await stage(down=0.05)
    while here.client._connecting is None:
        await asyncio.sleep(0)
    (agent,) = here.fleet.everyone()
    here.fleet.kill(agent)
    first = await here.next()
    assert agent.up
    assert first.request.session == here.client._session
    await here.quiet()
    assert here.counts.connections == 1


async def test_what_is_killed_does_no_more_of_a_reply(stage):
    """Nor does anything of it have an effect until it is back and asked again."""
    here = await stage(kill=1.0, down=0.01, seed=2)
    (await here.next()).reply("r1", "r2", "r3")
    await here.next()
    assert here.counts.requests <= 3
    assert here.counts.kills == 1


async def test_a_zombie_tells_too_late(stage):
    """After twice the time limit, in an exchange of then."""
    here = await stage(zombie=1.0)
    (await here.next()).reply("r1", timeoutSeconds=1)
    assert (await here.next()).results == {}
    assert list((await here.next()).results) == ["r1"]
    assert here.counts.zombies == 1


async def test_cancels_are_answered(stage, long_moment):
    """In the next exchange, and only there."""
    here = await stage()
    (await here.next()).reply("r1")
    (await here.next()).reply(cancels=("r1", "r2"))
    third = await here.next()
    assert third.request.cancels == [CancelReply("r1", "done"), CancelReply("r2", "unknown")]
    third.reply()
    assert (await here.next()).request.cancels == []


async def test_answers_to_cancels_that_are_turned_away_are_asked_for_again(stage, long_moment):
    """Nobody has heard them."""
    here = await stage()
    (await here.next()).reply(cancels=("r1",))
    second = await here.next()
    assert second.request.cancels == [CancelReply("r1", "unknown")]
    second.answer(429, b"{}", "retry-after: 0")
    assert (await here.next()).request.again


async def test_a_refusal_is_a_result(stage, long_moment):
    """Of a stale epoch, and of what is malformed: in the words of execute."""
    here = await stage()
    (await here.next()).reply("r1", epoch=5)
    (await here.next()).reply("r2", epoch=4, acknowledged=(Told("r1", 1),))
    third = await here.next()
    assert (third.results["r2"]["httpStatus"], third.results["r2"]["code"]) == (409, 3003)
    third.reply("not an id", acknowledged=(Told("r2", 1),))
    told = (await here.next()).results["not an id"]
    assert (told["httpStatus"], told["code"]) == (400, 2002)


async def test_more_results_than_one_exchange_takes_need_two(stage, long_moment):
    """None is lost, and none of them is too many for a control plane."""
    here = await stage()
    held = await here.next()
    told = set()
    for start in range(0, 600, 100):
        held.reply(*(f"r{number}" for number in range(start, start + 100)))
        held = await here.next()
        assert len(held.request.results) <= 512
        told |= set(held.results)
    assert told == {f"r{number}" for number in range(600)}


def _seed_that_drops():
    for seed in range(1000):
        dice = Dice(Faults(drop=0.5, seed=seed))
        if [dice.fate(1, turn).drops for turn in (1, 2)] == [True, False]:
            return seed
    raise AssertionError
