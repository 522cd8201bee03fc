"""Push: what happens to connections, and which failure each ending is."""

import asyncio
import contextlib
import errno
import gc
import socket
import weakref

import pytest

from edgeplane.transport import push as pushing
from edgeplane.transport.base import Address, Busy, Refused, Unanswered, Unreachable
from edgeplane.wire import MAX_REPLY_BYTES
from kit.agents import Hangup, Scripted, Silence, http, reply, request
from kit.ports import free_port


async def test_many_tasks_share_one_connection(agent, push, ask):
    """A connection is kept between tasks, whatever the answers were."""
    for number in range(20):
        assert (await ask(request_id=f"r-{number}")).request_id == f"r-{number}"
    with contextlib.suppress(Refused):
        await ask(http(400, b"no"))
    await ask()
    assert len(agent.connections) == push.connections_made == 1
    assert push.requests_sent == 22


async def test_tasks_side_by_side_have_a_connection_each(agent, push, ask):
    """One request at a time on each; all of them are kept afterwards."""
    for _ in range(2):
        await asyncio.gather(*(ask(request_id=f"r-{number}") for number in range(5)))
    assert len(agent.connections) == 5


async def test_a_connection_closed_while_idle_is_replaced(agent, push, ask):
    """The agent may close what is idle: the next task goes over a new connection, unnoticed."""
    await ask()
    agent.hang_up()
    await asyncio.sleep(0)
    assert (await ask()).status == "success"
    assert len(agent.connections) == 2


async def test_a_connection_that_ended_is_freed_at_once(agent, push, ask, monkeypatch):
    """Not by the collector, which comes seldom: after an outage there are ten thousand of them."""
    made = []

    class Seen(pushing.Connection):
        def __init__(self, max_body):
            super().__init__(max_body)
            made.append(weakref.ref(self))

    monkeypatch.setattr(pushing, "Connection", Seen)
    gc.disable()
    try:
        await ask()
        agent.hang_up()
        await ask()
        assert [seen() is None for seen in made] == [True, False]
    finally:
        gc.enable()


async def test_a_kept_connection_that_dies_unanswered_is_replaced_once(agent, push, ask):
    """Closed in the very instant a task is sent: sent again, under the same request id."""
    await ask()
    assert (await ask(Hangup())).status == "success"
    assert len(agent.connections) == 2
    assert [body == agent.bodies[0] for body in agent.bodies] == [True] * 3


async def test_sent_and_then_nobody_there_is_unanswered(agent, push, ask, monkeypatch):
    """The agent died with the request in its hands: nobody may say that it was not reached."""
    await ask()

    async def refused(*_given, **_options):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refused)
    with pytest.raises(Unanswered, match="on a connection that ended; then agent unreachable"):
        await ask(Hangup())


async def test_a_machine_without_power_costs_each_task_one_time_out(agent, push, ask):
    """Its connections all look alive: the first one that is silent ends the others too."""
    await asyncio.gather(*(ask(request_id=f"r-{number}") for number in range(4)))
    with pytest.raises(Unanswered, match="timed out"):
        await ask(Silence(), seconds=0.05)
    made = push.connections_made
    await ask()
    assert push.connections_made == made + 1


async def test_a_connection_idle_for_long_is_not_sent_on(agent, push, ask, monkeypatch):
    """The agent, or something between, may have forgotten it in silence."""
    await ask()
    monkeypatch.setattr(pushing, "IDLE_SECONDS", 0.0)
    await ask()
    assert push.connections_made == 2


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_no_more_files_is_not_the_agents_fault(push, agent, monkeypatch, number):
    """It is told as ours, and as something that can pass."""

    async def full(*_given, **_options):
        raise OSError(number, "Too many open files")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", full)
    with pytest.raises(Busy, match="the control plane is out of file descriptors"):
        await push.deliver(agent.address, request(), 5)


async def test_a_new_connection_that_dies_unanswered_is_unanswered(agent, ask):
    """Sent and hung up on a fresh connection: whether it was done is not known."""
    for how in (Hangup(), Hangup(reset=True)):
        with pytest.raises(Unanswered, match=r"no answer from 127\.0\.0\.1:\d+: connection "):
            await ask(how)
    assert len(agent.bodies) == 2


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1",
        b"HTTP/1.1 400",
        b"HTTP/1.1 400 Bad Request\r\nContent-Le",
        b"HTTP/1.1 503 Busy\r\n",
        http()[:-1],
        http(400, b"refused")[:-1],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad",
    ],
)
async def test_an_answer_cut_off_is_unanswered(agent, ask, kept, reset, said):
    """Half an answer is none, whatever it began to say; it is not asked for again at once."""
    if kept:
        await ask()
    with pytest.raises(Unanswered):
        await ask(Hangup(said, reset=reset))
    assert len(agent.bodies) == 1 + kept


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n", http()[:-1], b"HTTP/1.1 100 C\r\n\r\n"]
)
async def test_a_slow_answer_is_unanswered(agent, push, ask, said):
    """No complete answer in time: timed out, and the connection is ended, not kept."""
    with pytest.raises(Unanswered, match=r"within 0\.05 s: timed out"):
        await ask(Silence(said), seconds=0.05)
    await asyncio.wait_for(agent.gone.wait(), 10)
    await ask()
    assert len(agent.connections) == 2


async def test_a_task_that_is_cancelled_ends_its_connection(agent, push, ask):
    """Whoever stops waiting leaves no answer behind for somebody else's task."""
    waiting = asyncio.create_task(ask(Silence(), request_id="r-cancelled"))
    await agent.asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(agent.gone.wait(), 10)
    assert (await ask(request_id="r-next")).request_id == "r-next"
    assert len(agent.connections) == 2


async def test_nobody_listening_is_unreachable(push):
    """The words are the ones people search for."""
    port = free_port()
    words = f"^agent unreachable: connect to 127.0.0.1:{port}: connection refused$"
    with pytest.raises(Unreachable, match=words):
        await push.deliver(Address("127.0.0.1", port), request(), 5)
    assert push.requests_sent == 0


async def test_a_full_backlog_is_unreachable(push, monkeypatch):
    """A host that lets nobody in times out, within the bound on connecting."""
    monkeypatch.setattr(push, "_connect_seconds", 0.1)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        place = Address("127.0.0.1", listening.getsockname()[1])
        with pytest.raises(Unreachable, match=r"timed out after 0\.1 s$"):
            await push.deliver(place, request(), 5)


@pytest.mark.parametrize("ip", ["255.255.255.255", "240.0.0.1", "ff02::1"])
async def test_an_address_with_no_way_there_is_unreachable(push, ip, monkeypatch):
    """What the kernel refuses at once is told in its words."""
    loop = asyncio.get_running_loop()

    async def refused(*_args, **_given):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(loop, "create_connection", refused)
    with pytest.raises(Unreachable, match="network is unreachable"):
        await push.deliver(Address(ip, 9090), request(), 5)


async def test_a_request_after_a_restart_finds_the_new_agent(agent, push, ask):
    """All kept connections dead and the port gone: unreachable, until somebody listens again."""
    await asyncio.gather(*(ask(request_id=f"r-{number}") for number in range(3)))
    await agent.stop()
    with pytest.raises(Unreachable, match="connection refused"):
        await push.deliver(agent.address, request(), 5)


async def test_an_agent_on_ipv6_is_reached(push):
    """Brackets are only in what people and the Host header see."""
    running = Scripted()
    address = await running.start("::1")
    try:
        assert (await push.deliver(address, request(), 5)).status == "success"
        assert running.heads[0][1]["Host"] == f"[::1]:{address.port}"
        running.script.append(Hangup())
        await push.close()
        with pytest.raises(Unanswered, match=rf"from \[::1\]:{address.port}:"):
            await push.deliver(address, request(), 5)
    finally:
        await running.stop()


@pytest.mark.parametrize(
    "answer",
    [
        http(200, None, "Connection: close"),
        http(version="1.0"),
        b"HTTP/1.0 200 OK\r\n\r\n" + reply(),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + reply(),
    ],
)
async def test_a_connection_the_agent_ends_is_not_kept(agent, ask, answer):
    """``Connection: close`` and HTTP/1.0: the answer counts, the connection does not."""
    steps = (answer,) if b"Content-Length" in answer else (Hangup(answer),)
    assert (await ask(*steps)).status == "success"
    await ask()
    assert len(agent.connections) == 2


@pytest.mark.parametrize("extra", [b"x", http(), b"HTTP/1.1 408 Too Slow\r\n\r\n"])
async def test_more_than_was_asked_for_ends_the_connection(agent, ask, extra):
    """Bytes after an answer would be read as the next one's: no task is sent after them."""
    assert (await ask(http() + extra)).status == "success"
    assert (await ask(request_id="r-2")).request_id == "r-2"
    assert len(agent.connections) == 2


async def test_what_comes_unasked_ends_an_idle_connection(agent, push, ask):
    """A server that speaks first on an idle connection is hung up on."""
    await ask()
    agent.connections[0].write(http())
    await asyncio.wait_for(agent.gone.wait(), 10)
    assert (await ask(request_id="r-2")).request_id == "r-2"
    assert len(agent.connections) == 2


@pytest.mark.parametrize("size", [MAX_REPLY_BYTES, MAX_REPLY_BYTES + 1])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_has_a_bound(ask, size, chunked):
    """256 KiB are read; one byte more is given up, and not collected."""
    body = reply(message="x" * (size - len(reply(message=""))))
    answer = http(200, body)
    if chunked:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    if size <= MAX_REPLY_BYTES:
        assert len((await ask(answer)).message) > MAX_REPLY_BYTES - 100
    else:
        with pytest.raises(Unanswered, match=f"more than {MAX_REPLY_BYTES} bytes"):
            await ask(answer)


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * (1 << 20),
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * (1 << 16),
        b"HTTP/1.1 100 Continue\r\n\r\n" * (1 << 15),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * (1 << 20),
    ],
    ids=["a header", "headers", "interim answers", "a chunk's extension"],
)
async def test_what_surrounds_an_answer_has_a_bound_too(agent, ask, endless):
    """Endless headers or interim answers are given up long before the time is."""
    with pytest.raises(Unanswered, match="no answer from"):
        await asyncio.wait_for(ask(Silence(endless), seconds=60), 20)


async def test_idle_connections_have_a_bound(push, monkeypatch):
    """Above it the address that has been quiet longest loses its connections."""
    monkeypatch.setattr(push, "_max_idle", 2)
    agents = [Scripted() for _ in range(3)]
    places = [await running.start() for running in agents]
    try:
        for place in places:
            await push.deliver(place, request(), 5)
        await asyncio.wait_for(agents[0].gone.wait(), 10)
        for place in (places[1], places[2], places[0]):
            await push.deliver(place, request(), 5)
        assert [len(running.connections) for running in agents] == [2, 1, 1]
        assert push._idle_count == 2
    finally:
        for running in agents:
            await running.stop()


async def test_close_ends_what_is_idle(agent, push, ask):
    """After ``close`` the agent sees its connections end, and a later task opens a new one."""
    await ask()
    await push.close()
    await asyncio.wait_for(agent.gone.wait(), 10)
    await ask()
    assert len(agent.connections) == 2
