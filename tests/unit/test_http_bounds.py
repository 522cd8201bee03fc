"""HTTP with bounds, over loopback sockets and with short times."""

import asyncio
import json

import pytest
import uvicorn
from uvicorn.server import ServerState

from edgeplane.http_bounds import Bounds, bounded

BOUNDS = Bounds(connections=2, arrival_seconds=0.5)
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody"


async def _app(scope, receive, send):
    for _ in range(5):
        await asyncio.sleep(0)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def connect():
    """Return a function that opens a connection; two may be, and a request has half a second."""
    protocol = bounded(BOUNDS)
    config = uvicorn.Config(_app, log_config=None, lifespan="off", ws="none", access_log=False)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config, state, {}), "127.0.0.1", 0
    )
    opened = []

    async def connected():
        opened.append(await asyncio.open_connection(*server.sockets[0].getsockname()))
        return opened[-1]

    yield connected
    for _, writer in opened:
        writer.close()
    server.close()


async def _refusal(reader):
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    return head, json.loads(body)


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST / HTTP/1.1\r\nx-slow: ", b"POST / HTTP/1.1\r\nhost: x\r\n\r\n"],
    ids=["nothing", "half a head", "an answered request, then nothing more of the next"],
)
async def test_a_connection_that_does_not_bring_a_request_is_closed(connect, sent):
    """Silence and half a head alike end it; nobody holds a place for ever."""
    reader, writer = await connect()
    writer.write(sent if not sent.endswith(b"\r\n\r\n") else sent + b"POST / HT")
    answered = await asyncio.wait_for(reader.read(), 10)
    assert answered.startswith(b"HTTP/1.1 200") == sent.endswith(b"\r\n\r\n")


async def test_dripping_does_not_prolong_the_time(connect):
    """The deadline counts from the first byte."""
    reader, writer = await connect()
    writer.write(b"POST / HTTP/1.1\r\nx: ")
    gone = asyncio.ensure_future(reader.read())
    drops = 0
    while not (await asyncio.wait({gone}, timeout=0.1))[0]:
        writer.write(b"y")
        drops += 1
        assert drops < 50
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
