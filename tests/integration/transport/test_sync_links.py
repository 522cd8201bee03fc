"""Agents that connect out: exchanges over real sockets, against the door and its links."""

import asyncio
import json
import socket

import pytest
from msgspec import Raw

from edgeplane.model.errors import NotFound
from edgeplane.transport import link as rules
from edgeplane.transport.base import Busy, Inbound, Refused, Unanswered, Unreachable
from edgeplane.transport.link import Pace
from edgeplane.transport.links import Links
from edgeplane.transport.sync import SyncTransport
from edgeplane.transport.sync_door import SyncDoor
from edgeplane.wire import ExecuteRequest
from kit.sync_agent import TOKEN, SyncAgent, ended

NODE = Inbound(7)
PATIENCE = 10


def asked(request_id="r-1", **given):
    """Make a request."""
    return ExecuteRequest(request_id, "reload", Raw(b"{}"), node_id=7, epoch=3, **given)


class Place:
    """A door on a free port, its links, and the transport over them."""

    def __init__(self, pace):
        self.links = Links(pace)
        self.transport = SyncTransport(self.links)
        self.door = SyncDoor(self.links, TOKEN, self.admit)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.gone = asyncio.Queue()
        self.links.ended = self.gone.put_nowait

    async def admit(self, name):
        """Admit the nodes there are."""
        if not name.startswith("node-"):
            raise NotFound(f"node: no node is named {name}")
        return 6 + int(name.removeprefix("node-"))

    def agent(self, node="node-1", **given):
        """Return an agent that calls here."""
        return SyncAgent(self.port, node, **given)

    async def linked(self, exchange=1):
        """Wait until the agent of node 7 holds this exchange, or a later one."""
        async with asyncio.timeout(PATIENCE):
            while (
                (link := self.links.of(NODE.node_id)) is None
                or link.held is None
                or link.exchange < exchange
            ):
                await asyncio.sleep(0.001)
        return link


@pytest.fixture
async def place():
    """A door that holds exchanges for long."""
    made = Place(Pace())
    await made.door.listen(made.listener)
    yield made
    await made.transport.close()
    await made.door.stop()


@pytest.fixture
async def agent(place):
    """The agent of node 7, which is known here: its first exchange has been answered."""
    made = place.agent()
    await made.sync()
    yield made
    made.cut()


async def test_a_task_and_its_result(place, agent):
    """A task goes out over the held exchange; its result comes with the next."""
    first = agent.hold()
    await place.linked()
    delivery = asyncio.create_task(place.transport.deliver(NODE, asked(attempt=2), PATIENCE))
    reply = await first
    assert [(t.request_id, t.attempt, t.epoch) for t in reply.tasks] == [("r-1", 2, 3)]
    assert reply.node_id == 7
    second = agent.hold(results=[ended("r-1", attempt=2)])
    answer = await delivery
    assert (answer.status, answer.message) == ("success", "r-1 ended")
    place.transport.committed(NODE, "r-1", 2)
    place.links.of(7).let_go()
    told = (await second).acknowledged
    assert [(each.request_id, each.attempt) for each in told] == [("r-1", 2)]


async def test_a_result_is_not_acknowledged_before_it_is_committed(place, agent):
    """Told again meanwhile, it is taken once."""
    first = agent.hold()
    await place.linked()
    delivery = asyncio.create_task(place.transport.deliver(NODE, asked(), PATIENCE))
    await first
    agent.hold(results=[ended("r-1")])
    await delivery
    again = agent.hold(results=[ended("r-1")])
    link = await place.linked(4)
    link.let_go()
    assert (await again).acknowledged == []


async def test_tasks_of_one_moment_go_together(place, agent):
    """What is asked for in one turn of the loop costs one exchange."""
    first = agent.hold()
    await place.linked()
    requests = [asked(f"r-{n}") for n in range(5)]
    deliveries = [
        asyncio.create_task(place.transport.deliver(NODE, each, PATIENCE)) for each in requests[:2]
    ]
    deliveries.append(
        asyncio.create_task(place.transport.deliver_many(NODE, requests[2:], PATIENCE))
    )
    assert [t.request_id for t in (await first).tasks] == [f"r-{n}" for n in range(5)]
    agent.hold(results=[ended(f"r-{n}") for n in range(5)])
    one, two, many = await asyncio.gather(*deliveries)
    assert [r.request_id for r in (one, two, *many)] == [f"r-{n}" for n in range(5)]


async def test_a_newer_exchange_frees_the_older(place, agent):
    """Two connections: what ends while one is held is told by the other."""
    older = agent.hold()
    await place.linked()
    newer = agent.hold()
    assert (await older).tasks == []
    delivery = asyncio.create_task(place.transport.deliver(NODE, asked(), PATIENCE))
    assert len((await newer).tasks) == 1
    late = {"node": "node-1", "session": "session-1", "exchange": 2, "results": [ended("r-1")]}
    answer = await agent.post(json.dumps(late).encode())
    assert json.loads(answer.body)["data"]["tasks"] == []
    assert (await delivery).status == "success", "what comes late is heard all the same"


async def test_an_exchange_is_held_as_long_as_its_agent_was_told(place, agent):
    """Not as long as the reply to an older one says, which that agent may not have yet."""
    agent.hold()
    link = await place.linked()
    link.wait = 5.0
    agent.hold()
    await place.linked(3)
    assert link.held_until <= asyncio.get_running_loop().time() + 5.0


async def test_a_lost_reply_is_sent_again(place, agent):
    """The agent says that a reply was lost; all that is waited for comes again."""
    first = agent.hold()
    await place.linked()
    delivery = asyncio.create_task(place.transport.deliver(NODE, asked(), PATIENCE))
    await first
    reply = await agent.sync(again=True)
    assert [t.request_id for t in reply.tasks] == ["r-1"]
    agent.hold(results=[ended("r-1")])
    assert (await delivery).status == "success"


async def test_a_restarted_agent_is_asked_again(place, agent):
    """A new session knows nothing of what the one before was handed."""
    first = agent.hold()
    await place.linked()
    delivery = asyncio.create_task(place.transport.deliver(NODE, asked(), PATIENCE))
    await first
    agent.restart("session-2")
    assert [t.request_id for t in (await agent.sync()).tasks] == ["r-1"]
    agent.hold(results=[ended("r-1")])
    assert (await delivery).status == "success"


async def test_a_result_nobody_asked_for_waits_for_whoever_does(place, agent):
    """A control plane that has started anew asks again, and has the answer already."""
    agent.hold(results=[ended("r-1", attempt=3)])
    await place.linked(2)
    answer = await place.transport.deliver(NODE, asked(attempt=3), PATIENCE)
    assert answer.message == "r-1 ended"


async def test_a_result_of_an_earlier_run_is_no_answer(place, agent):
    """Only the run that was asked for answers."""
    held = agent.hold(results=[ended("r-1", attempt=1, status="failed")])
    await place.linked()
    delivery = asyncio.create_task(place.transport.deliver(NODE, asked(attempt=2), PATIENCE))
    assert [t.attempt for t in (await held).tasks] == [2]
    agent.hold(results=[ended("r-1", attempt=1, status="failed"), ended("r-1", attempt=2)])
    assert (await delivery).status == "success"


async def test_a_refusal_nobody_asked_for_is_no_answer(place, agent):
    """It was another owner who was refused; it is acknowledged, and this one asks."""
    refusal = {"requestId": "r-1", "httpStatus": 409, "code": 3003, "error": "stale epoch 2"}
    held = agent.hold(results=[{"attempt": 1, "result": refusal}])
    await place.linked(2)
    delivery = asyncio.create_task(place.transport.deliver(NODE, asked(), PATIENCE))
    reply = await held
    assert [t.request_id for t in reply.tasks] == ["r-1"]
    agent.hold(results=[ended("r-1")])
    assert (await delivery).status == "success"


async def test_what_nobody_asks_for_is_acknowledged_in_the_end(place, agent, monkeypatch):
    """Or an agent would tell it for ever."""
    monkeypatch.setattr(rules, "_EARLY_SECONDS", 0.0)
    held = agent.hold(results=[ended("r-9")])
    link = await place.linked()
    link.let_go()
    assert [told.request_id for told in (await held).acknowledged] == ["r-9"]


async def test_whoever_asks_last_is_answered(place, agent):
    """A run may be asked for again while its first asker still waits: its lease has lapsed."""
    held = agent.hold()
    await place.linked()
    first = asyncio.create_task(place.transport.deliver(NODE, asked(), PATIENCE))
    await held
    held = agent.hold()
    await place.linked(3)
    second = asyncio.create_task(place.transport.deliver(NODE, asked(), PATIENCE))
    assert [t.request_id for t in (await held).tasks] == ["r-1"]
    with pytest.raises(Unanswered, match="asked for again"):
        await first
    agent.hold(results=[ended("r-1")])
    assert (await second).status == "success"


async def test_refusals_are_results(place, agent):
    """Each says what kind of failure it is, as over push."""
    first = agent.hold()
    await place.linked()
    many = asyncio.create_task(
        place.transport.deliver_many(NODE, [asked("r-1"), asked("r-2")], PATIENCE)
    )
    await first
    refusals = [
        {"requestId": "r-1", "httpStatus": 409, "code": 3002, "error": "used for another"},
        {"requestId": "r-2", "httpStatus": 429, "code": 3004, "error": "busy", "retryAfter": 2},
    ]
    agent.hold(results=[{"attempt": 1, "result": each} for each in refusals])
    refused, busy = await many
    assert isinstance(refused, Refused)
    assert isinstance(busy, Busy)
    assert busy.retry_after == 2


async def test_cancel(place, agent):
    """A cancel goes out, and its answer comes in."""
    first = agent.hold()
    await place.linked()
    cancel = asyncio.create_task(place.transport.cancel(NODE, "r-1", 7, 3, PATIENCE, attempt=1))
    assert [(c.request_id, c.attempt) for c in (await first).cancels] == [("r-1", 1)]
    agent.hold(cancels=[{"requestId": "r-1", "state": "done"}])
    assert await cancel == "done"


async def test_the_first_exchange_is_answered_at_once(place):
    """An agent learns its node and its times, and is handed what waits already."""
    agent = place.agent()
    reply = await agent.sync()
    assert (reply.node_id, reply.tasks) == (7, [])
    assert 5 <= reply.wait_seconds <= 8
    assert reply.reconnect_seconds == 1.0
    agent.cut()


async def test_nobody_there(place):
    """Without an agent nothing is sent, and that is told."""
    with pytest.raises(Unreachable, match="not connected"):
        await place.transport.deliver(NODE, asked(), PATIENCE)
    with pytest.raises(Unreachable):
        await place.transport.cancel(NODE, "r-1", 7, 3, PATIENCE)


async def test_sent_and_never_told(place, agent):
    """In time it is unanswered; what was never handed over is unreachable."""
    first = agent.hold()
    await place.linked()
    with pytest.raises(Unanswered, match=r"no answer within 0\.05 s"):
        await place.transport.deliver(NODE, asked(), 0.05)
    await first
    with pytest.raises(Unreachable, match="not sent to 127"):
        await place.transport.deliver(NODE, asked("r-2"), 0.05)


async def test_an_agent_that_stays_away_is_gone(place, agent):
    """Whoever waits is told, and so is the house."""
    place.links.pace = Pace(absence=0.0)
    first = agent.hold()
    await place.linked()
    delivery = asyncio.create_task(place.transport.deliver(NODE, asked(), PATIENCE))
    await first
    with pytest.raises(Unanswered, match="went away"):
        await delivery
    assert await asyncio.wait_for(place.gone.get(), PATIENCE) == 7
    assert len(place.links) == 0


async def test_an_agent_that_ends_its_connection_is_sent_nothing_more(place, agent):
    """What is asked for afterwards is not taken for sent: it waits for the agent to be back."""
    holding = agent.hold()
    link = await place.linked(2)
    agent.cut()
    async with asyncio.timeout(PATIENCE):
        while link.held is not None:
            await asyncio.sleep(0.001)
    delivery = asyncio.create_task(place.transport.deliver(NODE, asked(), PATIENCE))
    holding.cancel()
    back = await agent.sync(again=True)
    assert [task.request_id for task in back.tasks] == ["r-1"]
    agent.hold(results=[ended("r-1")])
    assert (await delivery).status == "success"


async def test_an_agent_is_shown_where_it_called_from_last(place, agent):
    """Within a session too: what stands between may have given it another address."""
    for exchange in (2, 3):
        agent.hold()
        await place.linked(exchange)
        ours = agent.connections[-1]._transport.get_extra_info("sockname")
        assert place.transport.shown(NODE) == f"sync from {ours[0]}:{ours[1]}"


async def test_an_exchange_is_held_for_so_long_only(place, agent):
    """With nothing to do it is answered when its time is over, and the agent stays."""
    held = agent.hold()
    (await place.linked(2)).held_until = 0.0
    reply = await held
    assert (reply.tasks, reply.cancels) == ([], [])
    assert len(place.links) == 1


async def test_a_rival_takes_over_and_the_first_is_told(place, agent):
    """The newest speaks; the older one is refused for as long as that is there."""
    held = asyncio.create_task(agent.ask())
    await place.linked()
    rival = place.agent(session="session-of-another")
    await rival.sync()
    answer = await held
    assert (answer.status, answer.retry_after) == (409, "10")
    assert b"another agent speaks for node-1 now" in answer.body
    again = await agent.ask()
    assert again.status == 409
    assert b"another agent speaks for node-1" in again.body
    rival.cut()


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"token": "another-token-than-it-should-be"}, 401, "unauthorized"),
        ({"path": "/agent/v1/tasks/execute"}, 404, "nothing is here"),
        ({"method": "PUT"}, 405, "takes POST"),
        ({"body": b"{"}, 400, "not valid JSON"),
        ({"body": b'{"node": "node-1"}'}, 400, "session: is required"),
        ({"body": b'{"node": "n", "session": "s", "exchange": 1}'}, 400, "session"),
        ({"body": b'{"node":"x","session":"s2345678","exchange":1,"more":1}'}, 400, "more"),
        ({"body": b'{"node":"elsewhere","session":"s2345678","exchange":1}'}, 404, "elsewhere"),
    ],
)
async def test_misuse(place, agent, given, status, words):
    """Each is answered in the envelope, in words, and changes nothing."""
    body = given.pop("body", b'{"node":"node-2","session":"s2345678","exchange":1}')
    answer = await agent.post(body, **given)
    assert answer.status == status
    assert words in json.loads(answer.body)["message"]
    assert answer.retry_after == "10"
    assert [link.session for link in place.links] == ["session-1"]


async def test_nothing_is_kept_of_what_a_stranger_sends(place):
    """Its body is passed over as it comes, however many strangers there are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    lines = (
        b"POST /agent/v1/sync HTTP/1.1",
        b"Authorization: Bearer x",
        b"Content-Length: 1000001",
    )
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    writer.write(head + b" " * 1_000_000)
    await writer.drain()
    (connection,) = place.door.connections
    async with asyncio.timeout(PATIENCE):
        while connection._arrival is None or connection._arrival.size < 1_000_000:
            await asyncio.sleep(0.001)
    assert connection._arrival.parts == []
    writer.write(b" ")
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()


async def test_large_payloads_go_one_by_one(place, agent):
    """A reply is bounded; what does not fit goes with the next."""
    big = Raw(b'{"x":"' + b"a" * (700 << 10) + b'"}')
    first = agent.hold()
    await place.linked()
    requests = [ExecuteRequest(f"r-{n}", "purge_cache", big) for n in range(2)]
    many = asyncio.create_task(place.transport.deliver_many(NODE, requests, PATIENCE))
    assert [t.request_id for t in (await first).tasks] == ["r-0"]
    assert [t.request_id for t in (await agent.sync(results=[ended("r-0")])).tasks] == ["r-1"]
    agent.hold(results=[ended("r-1")])
    assert len(await many) == 2


async def test_the_door_closes(place, agent):
    """A control plane that stops answers what is held."""
    held = asyncio.create_task(agent.ask())
    await place.linked()
    await place.transport.close()
    answer = await held
    assert (answer.status, answer.retry_after) == (409, "1")
