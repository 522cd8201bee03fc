"""HTTP/1.1 as it comes in at an agent: requests one by one, and bounds on all that surrounds them.

Raw asyncio and httptools, because a fleet's worth of connections has to be cheap. The bounds are
those of the agent: of bodies, of what is beside them, of what is pipelined, of time.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final, cast

import httptools

from edgeplane.http1 import answers
from edgeplane.wire import MAX_BODY_BYTES

HEAD_BYTES: Final = 64 << 10  #: of a request beside its body
SKIPPED_BYTES: Final = 4 * MAX_BODY_BYTES  #: of a body too large, before its connection is ended
PIPELINED: Final = 8  #: requests that wait behind the one being answered
ARRIVAL_SECONDS: Final = 15.0  #: for a whole request
IDLE_SECONDS: Final = 120.0


class _StopError(Exception):
    """What comes is past a bound. Raised in a callback, it stops the parser there."""


@dataclass(slots=True)
class Arrival:
    """A request, while it comes in and once it is here."""

    method: bytes = b""
    path: bytes = b""
    bearer: bytes = b""
    parts: list[bytes] = field(default_factory=list)
    size: int = 0  #: of the body; beyond the bound, it was not kept
    kept: bool = True  #: its body is worth keeping
    last: bool = False  #: nothing follows on its connection


class Incoming(asyncio.Protocol):
    """One connection: each request is taken when the one before it has been answered."""

    __slots__ = (
        "_arrival", "_beside", "_busy", "_deaf", "_loop", "_parser", "_queue", "_since", "closing",
        "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._arrival: Arrival | None = None
        self._queue: deque[Arrival] = deque()
        self._beside = 0  #: bytes of what arrives that are of no body
        self._busy = False  #: a request is being answered
        self._deaf = False  #: what comes is dropped
        self._since = loop.time()  #: of its last change
        self.closing = False  #: it ends once nothing is owed any more

    def take(self, arrival: Arrival) -> None:
        """See to it that ``answer`` is called for this request, now or later."""
        raise NotImplementedError

    def wants(self, arrival: Arrival) -> bool:
        """Say, once the head of a request is here, whether its body is worth keeping."""
        del arrival
        return True

    def answer(self, status: int, body: bytes, extra: bytes = b"") -> None:
        """Answer the request that was taken; ``extra`` are whole lines of the answer's head."""
        if self.closing and not self._queue:
            extra += answers.CLOSE
        self._busy = False
        self._since = self._loop.time()
        self.transport.write(answers.message(status, body, extra))

    def go_on(self) -> None:
        """Take the requests that wait, until one is not answered at once."""
        while self._queue and not self._busy:
            self._busy = True
            arrival = self._queue.popleft()
            self.closing = self.closing or arrival.last
            self.take(arrival)
        if self.closing and not self._busy and not self._queue:
            self.transport.close()

    def cut(self) -> None:
        """End it as a process does that dies."""
        self.transport.abort()

    def look(self, now: float) -> None:
        """End it where it has stalled or idled too long; ``now`` is the loop's time."""
        if not self._busy:
            most = IDLE_SECONDS if self._arrival is None else ARRIVAL_SECONDS
            if now - self._since > most:
                self.transport.close()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what has not been taken."""
        del exc
        self._deaf = True
        self._queue.clear()

    def eof_received(self) -> bool:
        """Answer what has arrived whole, though nothing follows."""
        self.closing = True
        return self._busy

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and see what it is left with."""
        if self._deaf:
            return
        self._beside += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end_when_answered()
        except httptools.HttpParserError:
            large = self._arrival is not None and self._arrival.size > MAX_BODY_BYTES
            self._refuse(answers.BODY_TOO_LARGE if large else answers.MALFORMED)
        else:
            if self._beside > HEAD_BYTES:
                self._refuse(answers.HEAD_TOO_LARGE)
        self.go_on()

    # the parser's side

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self._queue) > PIPELINED - self._busy:
            raise _StopError
        self._arrival = Arrival()
        self._since = self._loop.time()

    def on_url(self, url: bytes) -> None:
        """Take the path."""
        assert self._arrival is not None
        self._arrival.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take the token, and how long a body will be that is too long."""
        assert self._arrival is not None
        low = name.lower()
        if low == b"authorization":
            self._arrival.bearer = self._arrival.bearer or value
        elif low == b"content-length" and value.isdigit():
            self._arrival.size = max(0, int(value[:20]) - MAX_BODY_BYTES)

    def on_headers_complete(self) -> None:
        """Take the method."""
        assert self._arrival is not None
        self._arrival.method = self._parser.get_method()
        if self._arrival.size > SKIPPED_BYTES:
            raise _StopError
        self._arrival.size = 0
        self._arrival.kept = self.wants(self._arrival)

    def on_body(self, body: bytes) -> None:
        """Keep what may be kept; of the rest only that it was there."""
        assert self._arrival is not None
        self._beside = max(0, self._beside - len(body))
        self._arrival.size += len(body)
        if self._arrival.size > SKIPPED_BYTES:
            raise _StopError
        if self._arrival.size > MAX_BODY_BYTES or not self._arrival.kept:
            self._arrival.parts.clear()
        else:
            self._arrival.parts.append(body)

    def on_message_complete(self) -> None:
        """Let it wait for its turn."""
        assert self._arrival is not None
        self._arrival.last = not self._parser.should_keep_alive()
        self._queue.append(self._arrival)
        self._arrival = None
        self._beside = 0
        self._since = self._loop.time()

    def _refuse(self, message: bytes) -> None:
        """Answer what is no request of ours, and close; what is owed already comes first."""
        owed = self._busy or bool(self._queue)
        self._end_when_answered()
        if not owed:
            self.transport.write(message)

    def _end_when_answered(self) -> None:
        self._deaf = True
        self.closing = True
