"""HTTP with bounds, over loopback sockets and with short times."""

import asyncio
import contextlib
import json

import pytest
import uvicorn
from uvicorn.server import ServerState

from edgeplane.http1.bounds import Bounds, bounded

BOUNDS = Bounds(connections=2, arrival_seconds=0.5)
PATIENT = Bounds(arrival_seconds=60)
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody"


async def _app(scope, receive, send):
    for _ in range(5):
        await asyncio.sleep(0)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


async def _reading_app(scope, receive, send):
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    if message["type"] == "http.request":
        await _app(scope, receive, send)


@pytest.fixture
async def serve():
    """Return a function that serves an app, and returns one that opens a connection to it."""
    opened, servers = [], []

    async def served(app, bounds):
        protocol = bounded(bounds)
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", access_log=False)
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: protocol(config, state, {}), "127.0.0.1", 0
        )
        servers.append(server)

        async def connected():
            opened.append(await asyncio.open_connection(*server.sockets[0].getsockname()))
            return opened[-1]

        return connected

    yield served
    for _, writer in opened:
        writer.close()
    for server in servers:
        server.close()


@pytest.fixture
async def connect(serve):
    """Return a function that opens a connection; two may be, and a request has half a second."""
    return await serve(_app, BOUNDS)


async def _refusal(reader):
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    return head, json.loads(body)


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n", b"POST / HTTP/1.1\r\nx-slow: ", b"POST / HTTP/1.1\r\nhost: x\r\n\r\n"],
    ids=["nothing", "an empty line", "half a head", "an answered request, then half of the next"],
)
async def test_a_connection_that_does_not_bring_a_request_is_closed(connect, sent):
    """Silence and half a head alike end it; nobody holds a place for ever."""
    reader, writer = await connect()
    writer.write(sent if not sent.endswith(b"\r\n\r\n") else sent + b"POST / HT")
    answered = await asyncio.wait_for(reader.read(), 10)
    assert answered.startswith(b"HTTP/1.1 200") == sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("start", "drop"), [(b"POST / HTTP/1.1\r\nx: ", b"y"), (b"", b"\r\n")], ids=["head", "nothing"]
)
async def test_dripping_does_not_prolong_the_time(connect, start, drop):
    """The deadline counts from the first byte."""
    reader, writer = await connect()
    writer.write(start)
    gone = asyncio.ensure_future(reader.read())
    drops = 0
    while not (await asyncio.wait({gone}, timeout=0.1))[0]:
        writer.write(drop)
        drops += 1
        assert drops < 50
    with contextlib.suppress(ConnectionResetError):  # a drop may still have been on its way
        assert await gone == b""


async def test_a_body_nobody_waits_for_must_arrive_in_time_too(connect):
    """An early answer does not leave the connection to a sender without end."""
    reader, writer = await connect()
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.write(b"some of it")
    assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_connection_serves_one_request_after_the_other(connect):
    """In time, nothing is in the way."""
    reader, writer = await connect()
    for _ in range(3):
        writer.write(REQUEST)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")


async def test_who_sends_no_more_is_still_answered(connect):
    """Requests that came whole before the end have their answers; then the connection is closed."""
    reader, writer = await connect()
    writer.write(REQUEST * 3)
    writer.write_eof()
    assert (await asyncio.wait_for(reader.read(), 10)).count(b"HTTP/1.1 200 OK") == 3


async def test_a_head_without_end_is_refused(connect):
    """In an envelope."""
    reader, writer = await connect()
    start = b"POST / HTTP/1.1\r\nx: "
    writer.write(start + b"y" * (BOUNDS.head_bytes + 1 - len(start)))
    head, answer = await _refusal(reader)
    assert head.startswith(b"HTTP/1.1 431 ")
    assert answer == {"code": 2003, "message": "head: is too large", "data": None}


@pytest.mark.parametrize(
    ("start", "more"),
    [(b"1\r\nx\r\n0\r\n", b"a:b\r\n"), (b"1\r\nx\r\n0\r\nx: ", b"y"), (b"1;x=", b"y")],
    ids=["many trailers", "a long trailer", "a long chunk extension"],
)
async def test_what_surrounds_a_body_without_end_is_refused(serve, start, more):
    """It counts with the head."""
    reader, writer = await (await serve(_reading_app, PATIENT))()
    writer.write(CHUNKED + start + more * (PATIENT.head_bytes // len(more)))
    head, answer = await asyncio.wait_for(_refusal(reader), 10)
    assert head.startswith(b"HTTP/1.1 431 ")
    assert answer["code"] == 2003


async def test_a_body_in_tiny_chunks_is_taken_and_its_trailers_are_dropped(serve):
    """What any chunk needs around it is not counted; headers are those of the head."""
    seen = []

    async def app(scope, receive, send):
        await _reading_app(scope, receive, send)
        seen.append([name for name, _ in scope["headers"]])

    reader, writer = await (await serve(app, PATIENT))()
    for _ in range(2):
        writer.write(CHUNKED + b"1\r\nx\r\n" * PATIENT.head_bytes + b"0\r\nlate: yes\r\n\r\n")
        answered = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        assert answered.startswith(b"HTTP/1.1 200 OK")
    assert seen[0] == [b"host", b"transfer-encoding"]


async def test_who_asks_for_another_protocol_is_answered_in_this_one_and_let_go(serve):
    """No silent connection is left behind, whatever is sent on it."""
    reader, writer = await (await serve(_app, PATIENT))()
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nPRI")
    answered = await asyncio.wait_for(reader.read(), 10)
    assert answered.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answered


@pytest.mark.parametrize(
    "more",
    [REQUEST * (PATIENT.pipelined + 2), REQUEST * PATIENT.pipelined + b"nonsense\r\n\r\n"],
    ids=["too many", "nonsense"],
)
async def test_what_is_refused_behind_others_ends_the_connection_after_their_answers(serve, more):
    """Nobody's answer is taken for another's; one runs, eight wait, and nothing else is begun."""
    gate = asyncio.Event()
    begun = []

    async def app(scope, receive, send):
        begun.append(scope)
        await gate.wait()
        await _app(scope, receive, send)

    reader, writer = await (await serve(app, PATIENT))()
    writer.write(REQUEST + more)
    reading = asyncio.ensure_future(reader.read())
    while not begun:
        await asyncio.sleep(0)
    gate.set()
    answered = await asyncio.wait_for(reading, 10)
    assert answered.count(b"HTTP/1.1 200 OK") == answered.count(b"HTTP/1.1 ") == len(begun)
    assert len(begun) == 1 + PATIENT.pipelined
    assert answered.count(b"connection: close") == 1


async def test_what_is_no_http_is_refused(connect):
    """In an envelope."""
    reader, writer = await connect()
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    head, answer = await _refusal(reader)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert answer["code"] == 2002


async def test_a_connection_too_many_is_refused(connect):
    """With the time to come back; those that are there go on."""
    there = [await connect() for _ in range(BOUNDS.connections)]
    for reader, writer in there:
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
    head, answer = await _refusal((await connect())[0])
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1" in head
    assert answer["code"] == 3004
    for reader, writer in there:
        writer.write(REQUEST)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
