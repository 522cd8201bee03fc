"""The loop of an agent that connects out: what it tells when, and what it begins."""

import asyncio
import logging

import pytest

from edgeplane.agent import comeback, syncing
from edgeplane.agent.control_urls import read_control_urls
from edgeplane.agent.executors.base import NotNow, Outcome
from edgeplane.agent.syncing import Speaker, Syncing
from edgeplane.transport.links import Pace
from kit.executors import WAIT, entered
from kit.processes import AGENT_TOKEN
from kit.sync_control import SyncControl, task


@pytest.fixture
async def control():
    """Make a control plane on loopback; at the end the agent must have kept to the protocol."""
    made = SyncControl()
    yield made
    await asyncio.to_thread(made.close)


class Loop:
    """The loop of one agent, and the exchanges it sends."""

    def __init__(self, executions, urls, controls):
        self.stop = asyncio.Event()
        self.nodes = []
        self._controls = controls
        speaker = Speaker(
            node="edge-1",
            urls=read_control_urls("URLS", ",".join(urls)),
            token=AGENT_TOKEN,
            version="1",
            tls=None,
        )
        self.syncing = Syncing(speaker, executions, self.nodes.append)
        self.task = asyncio.create_task(self.syncing.run(self.stop, grace=WAIT))

    async def next(self, number=0):
        """Return the next exchange."""
        return await asyncio.to_thread(self._controls[number].next)

    async def end(self):
        """Ask it to stop, and wait until it has."""
        self.stop.set()
        await self.task


@pytest.fixture
async def agent(start, executor, control, monkeypatch):
    """Start the loop of an agent, with executions the test can hold."""
    monkeypatch.setattr(syncing, "LAST_SECONDS", 0.2)
    made = Loop(start(), [control.url], [control])
    yield made
    executor.gate.set()
    await made.end()


@pytest.fixture
def long_moment(monkeypatch):
    """Let what has just begun end before the next exchange, however slow the machine is."""
    monkeypatch.setattr(syncing, "MOMENT_SECONDS", WAIT)


@pytest.fixture
def refused_soon(monkeypatch):
    """Let a refused agent come again at once."""
    monkeypatch.setattr(comeback, "REFUSED_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(comeback, "MALFORMED_SECONDS", 0.0)


def _made(request_id):
    return {"requestId": request_id, "status": "success", "message": "made"}


@pytest.mark.usefixtures("long_moment")
async def test_a_fast_task_is_told_in_the_next_exchange(agent, control):
    """One exchange for each, all on one connection; acknowledged, it is told no more."""
    for number in range(5):
        (await agent.next()).reply(task(f"r{number}", attempt=number + 1))
        told = await agent.next()
        assert told.results == [(number + 1, _made(f"r{number}"))]
        told.reply(acknowledged=[(f"r{number}", number + 1)])
    assert (await agent.next()).results == []
    assert control.connections == 1
    assert agent.nodes == [7]


async def test_a_slow_task_is_told_at_once_in_a_newer_exchange(agent, executor, control):
    """An exchange is held meanwhile; the newer one goes out on a second connection."""
    executor.gate.clear()
    (await agent.next()).reply(task("slow"))
    held = await agent.next()
    assert held.results == []
    executor.gate.set()
    newer = await agent.next()
    assert newer.results == [(1, _made("slow"))]
    assert newer.request.exchange == held.request.exchange + 1
    assert newer.number != held.number
    held.reply()
    newer.reply(acknowledged=[("slow", 1)])
    assert (await agent.next()).results == []
    assert control.connections == 2


async def test_what_ends_while_two_exchanges_are_open_waits_for_one(agent, executor, control):
    """Two at most; as soon as one is answered, the next tells what has ended since."""
    executor.gate.clear()
    (await agent.next()).reply(task("a"), task("b", payload={"b": 1}))
    held = await agent.next()
    executor.after_permit.clear()
    executor.gate.set()
    for _ in range(4):
        await entered(executor)
    executor.after_permit.set()
    newer = await agent.next()
    told = set(newer.told)
    held.reply()
    while told != {"a", "b"}:
        newest = await agent.next()
        newer.reply()
        newer = newest
        told |= set(newer.told)
    assert control.none_waits()


@pytest.mark.usefixtures("long_moment")
async def test_a_result_is_told_again_until_it_is_acknowledged(agent):
    """In every exchange, whatever else is told."""
    (await agent.next()).reply(task("a"))
    for name in ("b", "c"):
        exchange = await agent.next()
        assert "a" in exchange.told
        exchange.reply(task(name))
    last = await agent.next()
    assert sorted(last.told) == ["a", "b", "c"]
    last.reply(acknowledged=[("a", 1), ("c", 2)])  # of another attempt: not meant
    assert sorted((await agent.next()).told) == ["b", "c"]


async def test_a_task_that_comes_twice_while_it_runs_is_begun_once(agent, executor):
    """Also after its connection was lost; it has one result."""
    executor.gate.clear()
    (await agent.next()).reply(task("r1", epoch=1))
    await entered(executor)
    (await agent.next()).hang_up()
    again = await agent.next()
    assert again.request.again
    again.reply(task("r1", epoch=1))
    held = await agent.next()
    executor.gate.set()
    newer = await agent.next()
    assert newer.results == [(1, _made("r1"))]
    held.reply()
    newer.reply(acknowledged=[("r1", 1)])
    assert (await agent.next()).results == []
    assert executor.executed == [("r1", 1)]


@pytest.mark.usefixtures("long_moment")
async def test_a_task_whose_result_waits_is_not_begun_again(agent, executor, monkeypatch):
    """What is kept is told again; it is not even looked up."""
    (await agent.next()).reply(task("r1"))
    told = await agent.next()
    monkeypatch.setattr(agent.syncing._executions, "execute", None)
    told.reply(task("r1"))
    assert (await agent.next()).results == told.results
    assert executor.executed == [("r1", 1)]


@pytest.mark.usefixtures("long_moment")
async def test_a_new_owner_is_not_answered_with_what_the_former_was_refused(agent, executor):
    """The same run under a higher epoch is judged anew, and its answer counts."""
    (await agent.next()).reply(task("first", nodeId=7, epoch=5))
    (await agent.next()).reply(task("r1", nodeId=7, epoch=4), acknowledged=[("first", 1)])
    refused = await agent.next()
    assert refused.results[0][1]["error"].startswith("stale epoch 4 for node 7")
    refused.reply(task("r1", nodeId=7, epoch=6))
    assert (await agent.next()).results == [(1, _made("r1"))]
    assert executor.executed == [("first", 1), ("r1", 1)]


async def test_a_new_owner_joins_what_the_former_began(agent, executor):
    """Its effect is made once, told once, and the new epoch is followed."""
    executor.gate.clear()
    (await agent.next()).reply(task("r1", nodeId=7, epoch=4))
    await entered(executor)
    (await agent.next()).reply(task("r1", nodeId=7, epoch=6))
    held = await agent.next()
    executor.gate.set()
    newer = await agent.next()
    assert newer.results == [(1, _made("r1"))]
    held.reply()
    newer.reply(task("old", nodeId=7, epoch=5), acknowledged=[("r1", 1)])
    while not (exchange := await agent.next()).results:
        exchange.reply()
    assert exchange.results[0][1]["error"].startswith("stale epoch 5 for node 7")
    assert executor.executed == [("r1", 1)]


async def test_a_cancel_is_answered_and_stops_what_runs(agent, executor):
    """The task ends as failed; the answer is told until an exchange with it is replied to."""
    executor.gate.clear()
    (await agent.next()).reply(task("r1"))
    await entered(executor)
    (await agent.next()).reply(cancels=[{"requestId": "r1", "attempt": 1}])
    cancels, results = {}, []
    while not (cancels and results):
        exchange = await agent.next()
        cancels |= exchange.cancels
        results += exchange.results
        exchange.reply()
    assert cancels == {"r1": "cancelled"}
    words = "cancelled before it took effect"
    assert results[0] == (1, {"requestId": "r1", "status": "failed", "message": words})
    executor.gate.set()
    assert executor.effects == []


@pytest.mark.usefixtures("long_moment")
async def test_an_answer_to_a_cancel_is_told_again_only_where_it_may_be_lost(agent):
    """Nothing acknowledges it but the reply."""
    (await agent.next()).reply(cancels=[{"requestId": "r1"}])
    lost = await agent.next()
    assert lost.cancels == {"r1": "unknown"}
    lost.hang_up()
    again = await agent.next()
    assert again.cancels == lost.cancels
    again.reply()
    assert (await agent.next()).cancels == {}


@pytest.mark.usefixtures("long_moment")
async def test_refusals_are_results(agent, executor, caplog):
    """Each as execute-batch tells it; what is malformed is refused alone."""
    executor.outcomes = [NotNow("no room"), Outcome("failed", "the executor's words")]
    first = await agent.next()
    first.reply(task("busy"))
    (await agent.next()).reply(
        task("fails"),
        task("malformed", kind="magic"),
        {**task("unknown-key"), "colour": "red"},
        {"type": "reload"},
        task("busy", kind="purge_cache", attempt=2),
        cancels=[{"requestId": "no such id"}],
        acknowledged=[("busy", 1)],
    )
    told = {result["requestId"]: result for _, result in (await agent.next()).results}
    assert told["fails"]["message"] == "the executor's words"
    assert (told["malformed"]["httpStatus"], told["malformed"]["code"]) == (400, 2002)
    assert told["malformed"]["error"].startswith("type: ")
    assert told["unknown-key"]["error"] == "colour: unknown field"
    assert (told["busy"]["httpStatus"], told["busy"]["code"]) == (409, 3002)
    assert set(told) == {"fails", "malformed", "unknown-key", "busy"}
    assert "a task without a requestId is not answered" in caplog.text
    assert "a cancel is not answered" in caplog.text


@pytest.mark.usefixtures("long_moment")
async def test_what_can_pass_is_told_with_its_status(agent, executor):
    """An executor that has no room: 503, and the attempt is not used up here."""
    executor.outcomes = [NotNow("no room")]
    (await agent.next()).reply(task("r1"))
    told = await agent.next()
    assert told.results == [
        (1, {"requestId": "r1", "httpStatus": 503, "code": 5001, "error": "no room"})
    ]


@pytest.mark.usefixtures("long_moment")
async def test_more_results_than_fit_go_in_the_next_exchange_at_once(agent, executor, monkeypatch):
    """By number; nothing waits for a reply but the room for it."""
    from edgeplane.agent import outbox

    monkeypatch.setattr(outbox, "MAX_TOLD", 3)
    names = [f"r{number}" for number in range(8)]
    (await agent.next()).reply(*(task(name, payload={"n": name}) for name in names))
    opened = [await agent.next(), await agent.next()]
    opened.sort(key=lambda exchange: exchange.request.exchange)
    told = [*opened[0].told, *opened[1].told]
    opened[0].reply()
    third = await agent.next()
    told += third.told
    assert [len(exchange.told) for exchange in (*opened, third)] == [3, 3, 3]
    assert sorted(set(told)) == names


@pytest.mark.usefixtures("refused_soon", "long_moment")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 302])
async def test_a_refusal_is_told_in_its_own_words_and_tried_again(agent, caplog, status):
    """Loudly, once; what it was to tell is told when it is taken in again."""
    (await agent.next()).reply(task("r1"))
    for _ in range(3):
        refused = await agent.next()
        assert refused.told == ["r1"]
        assert not refused.request.again  # nothing was lost
        refused.refuse(status, 1001, "not\nlike this", "Location: http://a/")
    (await agent.next()).reply(acknowledged=[("r1", 1)])
    assert (await agent.next()).results == []
    said = [record for record in caplog.records if "refuses this agent" in record.message]
    assert [record.levelno for record in said] == [
        logging.WARNING if status == 409 else logging.ERROR
    ]
    assert f"({status}): not\nlike this" in said[0].message


@pytest.mark.parametrize("status", [429, 503, 500, 408])
async def test_what_can_pass_is_a_warning_and_is_tried_again(agent, caplog, monkeypatch, status):
    """With the time that is asked for."""
    asked = []
    seconds = comeback.Comeback.seconds

    def at_once(made, trouble):
        asked.append(seconds(made, trouble))
        return 0.0

    monkeypatch.setattr(comeback.Comeback, "seconds", at_once)
    (await agent.next()).refuse(status, 3004, "too many", "Retry-After: 40")
    assert (await agent.next()).results == []
    assert 40 <= asked[0] <= 60
    assert [r.levelno for r in caplog.records if "refuses" in r.message] == [logging.WARNING]


@pytest.mark.usefixtures("long_moment")
@pytest.mark.parametrize("body", [b"<html>", b'{"code":0,"data":{}}', b'{"code":7,"message":"no"}'])
async def test_an_answer_that_is_none_is_a_lost_reply(agent, caplog, body):
    """A portal in between, say; what was told is told again, and all is sent again."""
    (await agent.next()).reply(task("r1"))
    (await agent.next()).say(200, body)
    again = await agent.next()
    assert again.request.again
    assert again.told == ["r1"]
    assert "its answer is not understood" in caplog.text


async def test_silence_ends_an_exchange(agent, control, monkeypatch, caplog):
    """What the reply says and a little more; then the connection is made anew."""
    monkeypatch.setattr(syncing, "SILENCE_SECONDS", 0.05)
    (await agent.next()).reply(wait=0.1)
    silent = await agent.next()
    again = await agent.next()
    assert again.request.again
    assert again.number != silent.number
    assert "lost: no answer within 0.15 s" in caplog.text
    silent.wait_until_gone()


async def test_one_that_never_answers_is_left_for_the_next(start, control, monkeypatch, caplog):
    """A process that stands still is connected to all the same, by its kernel."""
    monkeypatch.setattr(syncing, "TURN_SECONDS", 0.05)
    second = SyncControl()
    agent = Loop(start(), [control.url, second.url], [control, second])
    await agent.next(0)
    (await agent.next(1)).reply()
    assert f"control plane {control.url} lost: no answer within 0.05 s" in caplog.text
    await agent.end()
    await asyncio.to_thread(second.close)


async def test_the_only_one_is_waited_for_longer(agent):
    """A crowd that it lets in may be before this agent."""
    assert agent.syncing._patience == syncing.FIRST_SECONDS > syncing.TURN_SECONDS


def test_a_control_plane_that_stands_still_is_left_in_time():
    """The longest hold, the silence beyond it and the return leave room in the 15 s of a repair."""
    pace = Pace()
    assert pace.hold[1] + syncing.SILENCE_SECONDS + pace.least_return <= 13


async def test_the_pause_a_reply_asks_for_is_kept(agent, executor):
    """What ends meanwhile waits for it: one exchange tells it."""
    (await agent.next()).reply(task("a"), task("b", payload={"b": 1}), pause=0.3)
    loop = asyncio.get_running_loop()
    replied = loop.time()
    told = await agent.next()
    assert loop.time() - replied >= 0.29
    assert sorted(told.told) == ["a", "b"]


@pytest.mark.usefixtures("long_moment")
async def test_it_goes_on_with_the_next_control_plane(start, control, caplog):
    """With the same session: what was not acknowledged by the first is told to the second."""
    caplog.set_level(logging.INFO)
    second = SyncControl()
    agent = Loop(start(), [control.url, second.url], [control, second])
    (await agent.next(0)).reply(task("r1"))
    (await agent.next(0)).hang_up()
    taken = await agent.next(1)
    assert taken.told == ["r1"]
    taken.reply(acknowledged=[("r1", 1)])
    (await agent.next(1)).hang_up()
    (await agent.next(0)).reply()
    await agent.next(0)
    assert caplog.text.count(f"connected to control plane {control.url}") == 2
    assert caplog.text.count(f"connected to control plane {second.url}") == 1
    assert agent.nodes == [7]
    await agent.end()
    await asyncio.to_thread(second.close)


@pytest.mark.usefixtures("long_moment")
async def test_a_fault_of_ours_does_not_leave_the_node_alone(agent, monkeypatch, caplog):
    """It is logged with its traceback, and another talk begins."""
    take = agent.syncing._orders.take
    faults = [RuntimeError("a fault")]

    def break_once(tasks, cancels):
        if faults:
            raise faults.pop()
        return take(tasks, cancels)

    monkeypatch.setattr(agent.syncing._orders, "take", break_once)
    (await agent.next()).reply()
    (await agent.next()).reply(task("r1"))
    assert (await agent.next()).told == ["r1"]
    assert "failed unexpectedly" in caplog.text


async def test_what_is_too_much_to_keep_is_left_alone(agent, executor, monkeypatch, caplog):
    """It is not begun, and not told: it will be asked for again."""
    from edgeplane.agent import orders

    monkeypatch.setattr(orders, "MAX_KEPT", 2)
    executor.gate.clear()
    (await agent.next()).reply(*(task(f"r{n}", payload={"n": n}) for n in range(4)))
    for _ in range(2):
        await entered(executor)
    await agent.next()
    assert sorted(executor.executed) == [("r0", 1), ("r1", 1)]
    assert caplog.text.count("is left alone") == 2
