"""Connections to a control plane: how they are made, kept, watched and ended."""

import asyncio
import socket

import pytest

from edgeplane.agent import uplink as module
from edgeplane.agent.control_urls import ControlUrl
from edgeplane.agent.uplink import MAX_REPLY_BYTES, NotReached, ReplyLost, Uplink
from edgeplane.wire import SYNC_PATH

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Answers each request with the same bytes; keeps what it was sent, and who sent it."""

    url: ControlUrl

    def __init__(self):
        self.answer = ANSWER
        self.requests = []
        self.writers = []

    async def start(self):
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = ControlUrl("127.0.0.1", self.port, tls=False)

    async def stop(self):
        """End everything."""
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self.writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                self.requests.append(head + await reader.readexactly(length))
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def server():
    """Make a server that answers."""
    made = Server()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def uplink(server):
    """Make the connections to it."""
    made = Uplink(server.url, "the-token", None)
    yield made
    made.close()


def _addresses(*ports):
    return [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
        for port in ports
    ]


def _resolving(monkeypatch, answer):
    """Have names resolved by a coroutine of the test."""
    loop = asyncio.get_running_loop()

    async def getaddrinfo(host, port, **more):
        return await answer()

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


async def test_an_exchange_is_a_post_with_the_token(uplink, server):
    """One connection for one after the other."""
    for body in (b'{"a":1}', b""):
        answer = await uplink.post(body, 10)
        assert (answer.status, answer.body) == (200, b"{}")
    assert (
        server.requests[0]
        == (
            f"POST {SYNC_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            "Authorization: Bearer the-token\r\nContent-Type: application/json\r\n"
            'Content-Length: 7\r\n\r\n{"a":1}'
        ).encode()
    )
    assert len(server.writers) == 1


async def test_the_proxy_variables_are_not_read(server, monkeypatch):
    """The token goes to the control plane and nowhere else."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    made = Uplink(server.url, "t", None)
    assert (await made.post(b"", 10)).status == 200
    made.close()


async def test_a_redirect_is_an_answer_like_any(uplink, server):
    """It is not followed."""
    server.answer = b"HTTP/1.1 307 No\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    assert (await uplink.post(b"", 10)).status == 307
    assert len(server.requests) == 1


async def test_the_kernel_watches_the_connection(uplink, server):
    """Four seconds of silence, then four probes a second apart; sent data has 8 s."""
    await uplink.post(b"", 10)
    plain = uplink._idle[0]._transport.get_extra_info("socket")

    def option(name):
        return plain.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

    assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    assert [option(name) for name in names] == [4, 1, 4, 8_000]


async def test_a_connection_that_ended_idle_is_made_anew_in_silence(uplink, server):
    """Nothing had been sent on it, so that nothing is lost."""
    await uplink.post(b"", 10)
    server.writers[0].close()
    await server.writers[0].wait_closed()
    assert (await uplink.post(b"", 10)).status == 200
    assert len(server.writers) == 2


async def test_a_connection_not_needed_any_more_is_closed(uplink, server, monkeypatch):
    """The one used last is taken; the other one idles, and is closed in time."""
    await asyncio.gather(uplink.post(b"", 10), uplink.post(b"", 10))
    assert len(server.writers) == len(uplink._idle) == 2
    await uplink.post(b"", 10)
    assert len(uplink._idle) == 2
    kept = uplink._idle[1]
    uplink._idle[0].idle_since -= module.IDLE_SECONDS + 1
    await uplink.post(b"", 10)
    assert uplink._idle == [kept]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n", "no answer within 0.05 s"),
        (b"SSH-2.0-x\r\n\r\n", "answered with something that is not HTTP/1.1"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_REPLY_BYTES + 1)
            + b"x" * (MAX_REPLY_BYTES + 1),
            f"answered with more than {MAX_REPLY_BYTES} bytes",
        ),
    ],
)
async def test_a_reply_that_does_not_come_whole_is_lost(uplink, server, answer, words):
    """The connection ends with it."""
    server.answer = answer
    seconds = 0.05 if "within" in words else 10
    with pytest.raises(ReplyLost, match=words):
        await uplink.post(b"", seconds)
    assert uplink._idle == []


async def test_every_address_of_a_name_is_tried(uplink, server, monkeypatch):
    """The first that lets itself be reached counts."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()[1]

    async def both():
        return _addresses(dead, server.port)

    _resolving(monkeypatch, both)
    assert (await uplink.post(b"", 10)).status == 200


async def test_nobody_there_says_so(uplink, monkeypatch):
    """In the words of the system."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()[1]

    async def only():
        return _addresses(dead)

    _resolving(monkeypatch, only)
    with pytest.raises(NotReached, match="^connection refused$"):
        await uplink.post(b"", 10)


async def test_an_address_that_does_not_answer_has_its_time(uplink, server, monkeypatch):
    """Then the next one is tried."""
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.02)
    loop = asyncio.get_running_loop()
    connect, tried = loop.sock_connect, []

    async def slow(plain, place):
        tried.append(plain)
        if len(tried) < 3:
            await asyncio.Event().wait()
        await connect(plain, place)

    async def three():
        return _addresses(server.port, server.port)

    monkeypatch.setattr(loop, "sock_connect", slow)
    _resolving(monkeypatch, three)
    with pytest.raises(NotReached, match=r"^timed out after 0\.02 s$"):
        await uplink.post(b"", 10)
    assert [plain.fileno() for plain in tried] == [-1, -1]
    monkeypatch.setattr(module, "CONNECT_SECONDS", 10)
    assert (await uplink.post(b"", 10)).status == 200


async def test_a_name_that_is_not_resolved_says_so(uplink, monkeypatch):
    """Unknown, or no answer in the time."""

    async def unknown():
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    _resolving(monkeypatch, unknown)
    with pytest.raises(NotReached, match="name cannot be resolved: name or service not known"):
        await uplink.post(b"", 10)
    monkeypatch.setattr(module, "RESOLVE_SECONDS", 0.01)
    _resolving(monkeypatch, asyncio.Event().wait)
    with pytest.raises(NotReached, match="not resolved in time"):
        await uplink.post(b"", 10)


async def test_an_exchange_that_is_given_up_ends_its_connection(uplink, server):
    """The control plane sees it, and does not hold it any longer."""
    server.answer = b""
    posting = asyncio.create_task(uplink.post(b"", 10))
    while not server.requests:
        await asyncio.sleep(0)
    posting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await posting
    await server.writers[0].wait_closed()
    assert uplink._idle == []
