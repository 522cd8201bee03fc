"""Whatever a connection brings, it has a bound and an answer."""

import re
from email.utils import parsedate_to_datetime
from time import time

import pytest

from edgeplane.http1.incoming import ARRIVAL_SECONDS, HEAD_BYTES, IDLE_SECONDS, PIPELINED
from edgeplane.transport.base import Unanswered
from edgeplane.wire import EXECUTE_PATH, HEALTH_PATH, MAX_BODY_BYTES
from unit.swarm.conftest import TOKEN


def _post(body: bytes, *more: str, length: int | None = None) -> bytes:
    lines = (
        f"POST {EXECUTE_PATH} HTTP/1.1",
        f"authorization: Bearer {TOKEN}",
        f"content-length: {len(body) if length is None else length}",
        *more,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _ask(number: int) -> bytes:
    return _post(b'{"requestId":"r%d","type":"reload"}' % number)


_LAST = f"GET {HEALTH_PATH} HTTP/1.1\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"


def _statuses(answered: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+) ", answered)]


async def test_pipelined_requests_are_answered_in_order(swarm):
    """As many as may wait, and the one that does not have to."""
    here = await swarm()
    asked = b"".join(_ask(number) for number in range(PIPELINED))
    answered = await here.raw(asked + _LAST.encode())
    assert _statuses(answered) == [200] * (PIPELINED + 1)
    told = re.findall(rb'"requestId":"(\w+)"', answered)
    assert told == [b"r%d" % number for number in range(PIPELINED)]


async def test_more_than_may_wait_ends_the_connection_once_what_came_first_is_answered(swarm):
    """Nothing is answered with another's words."""
    here = await swarm()
    answered = await here.raw(b"".join(_ask(number) for number in range(3 * PIPELINED)))
    assert _statuses(answered) == [200] * (PIPELINED + 1)


async def test_a_body_in_pieces_is_one_body(swarm):
    """Chunks may come as they like."""
    here = await swarm()
    head = _post(b"", "transfer-encoding: chunked", "connection: close")
    head = head.replace(b"content-length: 0\r\n", b"")
    chunks = b'a\r\n{"requestI\r\n16\r\nd":"r1","type":"reload\r\n2\r\n"}\r\n0\r\n\r\n'
    assert _statuses(await here.raw(head + chunks)) == [200]


@pytest.mark.parametrize("length", [None, 100 * MAX_BODY_BYTES])
async def test_an_oversized_body_is_refused(swarm, length):
    """One that is sent whole, and one that is only announced."""
    here = await swarm()
    body = b" " * (MAX_BODY_BYTES + 1) if length is None else b""
    answered = await here.raw(_post(body, "connection: close", length=length))
    assert (_statuses(answered), b'"code":2003' in answered) == ([413], True)


async def test_an_oversized_body_does_not_cost_the_connection(swarm):
    """The next request on it is served."""
    here = await swarm()
    answered = await here.raw(_post(b" " * (MAX_BODY_BYTES + 1)) + _LAST.encode())
    assert _statuses(answered) == [413, 200]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, 2002),
        (_post(b"not json", "connection: close"), 400, 2002),
        (_post(b'{"type":"reload"}', "connection: close"), 400, 2001),
        (_post(b"{}", "connection: close").replace(TOKEN.encode(), b"wrong"), 401, 1001),
        (_post(b"{}", "connection: close").replace(b"POST", b"PUT"), 405, 2003),
        (_post(b"{}", "connection: close").replace(b"/tasks", b"/other"), 404, 3001),
        (_post(b"", "x: " + "y" * HEAD_BYTES)[:-4], 431, 2003),
    ],
)
async def test_what_is_malformed_is_an_envelope(swarm, sent, status, code):
    """And has no effect."""
    here = await swarm()
    answered = await here.raw(sent)
    assert (_statuses(answered), b'"code":%d,' % code in answered) == ([status], True)
    assert here.told("effect") == []


async def test_nobody_is_at_an_address_without_an_agent(swarm):
    """The connection is reset."""
    here = await swarm()
    with pytest.raises(Unanswered):
        await here.ask("r1", agent=4)


async def test_a_connection_too_many_is_told_so(swarm):
    """And those that are there serve on."""
    here = await swarm()
    here.door.most = 3
    for number in (1, 2, 3):
        await here.ask("r1", agent=number)
    answered = await here.raw(b"")
    assert (_statuses(answered), b'"code":3004' in answered) == ([429], True)
    await here.ask("r2")


async def test_a_connection_that_stalls_or_idles_is_ended(swarm):
    """Not before its time, and not while it is owed an answer."""
    here = await swarm()
    await here.ask("r1")
    agent = here.fleet.at("127.1.0.1")
    (line,) = agent.lines
    now = line._loop.time()
    line.look(now + IDLE_SECONDS - 1)
    assert not line.transport.is_closing()
    line.data_received(b"POST ")
    line.look(now + ARRIVAL_SECONDS - 1)
    assert not line.transport.is_closing()
    line.look(now + ARRIVAL_SECONDS + 1)
    assert line.transport.is_closing()


async def test_a_skewed_clock_shows(swarm):
    """In the date of an answer."""
    here = await swarm(skew=1e6, seed=3)
    answered = await here.raw(_LAST.encode())
    (date,) = re.findall(rb"date: (.+)\r\n", answered)
    skew = here.fleet.at("127.1.0.1").skew
    off = parsedate_to_datetime(date.decode()).timestamp() - time()
    assert off == pytest.approx(skew, abs=5)
