"""One kept-alive HTTP/1.1 connection: one request at a time, a bounded answer.

Parsing is httptools' (the parser of Node.js); chunked bodies, interim answers and
``Connection: close`` are its business. Ours are bounds, and telling what was never sent from what
was sent and not answered.
"""

import asyncio
import select
from dataclasses import dataclass, field
from typing import cast

import httptools

_MAX_AROUND = 64 << 10  #: bytes of an answer that are not its body: headers, chunk sizes


class ConnectionEnded(Exception):
    """The peer hung up, or what it sent was no HTTP; ``answered``: some bytes had come."""

    def __init__(self, message: str, *, answered: bool) -> None:
        super().__init__(message)
        self.answered = answered


@dataclass(slots=True)
class Answer:
    """A complete HTTP answer."""

    status: int = 0
    body: bytes = b""
    retry_after: str | None = None
    keep_alive: bool = False


@dataclass(slots=True)
class _Reading:
    """An answer while it comes in."""

    future: "asyncio.Future[Answer]"
    timer: asyncio.TimerHandle
    max_body: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    received: int = 0
    started: bool = False
    headed: bool = False  #: its headers are all here
    framed: bool = False  #: they say where its body ends
    retry_after: str | None = None


class Connection(asyncio.Protocol):
    """A connection to one agent."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._transport: asyncio.Transport | None = None
        self._reading: _Reading | None = None
        self._parser = _NO_PARSER
        self.idle_since = 0.0  #: monotonic: when its last answer was in

    @property
    def open(self) -> bool:
        """Whether a request may be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def quiet(self) -> bool:
        """Whether nothing waits in the kernel: an agent that hung up a moment ago shows there."""
        assert self._transport is not None
        waiting = select.poll()
        waiting.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not waiting.poll(0)

    def send(
        self, message: bytes, seconds: float, max_body: int | None = None
    ) -> "asyncio.Future[Answer]":
        """Send a request; the future brings its answer, ConnectionEnded, or TimeoutError.

        ``max_body`` bytes of the answer's body are read, or as many as of every other; a longer one
        ends the connection.
        """
        assert self._transport is not None
        assert self._reading is None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        # A timer of its own costs a tenth of a timeout context, and every task pays it.
        timer = loop.call_later(seconds, _time_out, future)
        self._reading = _Reading(future, timer, max_body or self._max_body)
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(message)
        return future

    def abort(self) -> None:
        """End it at once."""
        if self._reading is not None:
            self._reading.timer.cancel()
            self._reading = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what nobody asked for ends the connection."""
        if self._reading is None:
            self.abort()
            return
        self._reading.started = True
        self._reading.received += len(data)
        if self._reading.received > self._reading.max_body + _MAX_AROUND:
            self._end("answered with more than is read of an answer")
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._end("answered with something that is not HTTP/1.1")

    def eof_received(self) -> bool:
        """Let an answer that ends with the connection end with it."""
        reading = self._reading
        if reading is not None and reading.headed and not reading.framed:
            self.on_message_complete()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits, and let go: parser and transport hold this connection in turn."""
        self._end("connection reset" if exc else "connection closed before an answer")
        self._transport = None
        self._parser = _NO_PARSER

    # httptools' side

    def on_message_begin(self) -> None:
        """Begin an answer, an interim one maybe; one that nobody asked for ends the connection."""
        if self._reading is None:
            self.abort()
        else:
            self._reading.headed = self._reading.framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what matters of a header."""
        if self._reading is None:
            return
        if name.lower() == b"retry-after":
            self._reading.retry_after = value.decode("latin-1")[:32]
        elif name.lower() in {b"content-length", b"transfer-encoding"}:
            self._reading.framed = True

    def on_headers_complete(self) -> None:
        """From here on, an end of the connection may be the end of the body."""
        if self._reading is not None:
            self._reading.headed = True

    def on_body(self, part: bytes) -> None:
        """Collect the body up to its bound."""
        reading = self._reading
        if reading is None:
            return
        reading.size += len(part)
        if reading.size > reading.max_body:
            self._end(f"answered with more than {reading.max_body} bytes")
            return
        reading.parts.append(part)

    def on_message_complete(self) -> None:
        """Hand the answer over; interim answers (1xx) are passed over by status."""
        reading = self._reading
        status = self._parser.get_status_code()
        if reading is None or status < 200:  # noqa: PLR2004
            return
        self._reading = None
        reading.timer.cancel()
        if not reading.future.done():
            keep_alive = self._parser.should_keep_alive()
            body = b"".join(reading.parts)
            reading.future.set_result(Answer(status, body, reading.retry_after, keep_alive))

    def _end(self, why: str) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.timer.cancel()
            if not reading.future.done():
                reading.future.set_exception(ConnectionEnded(why, answered=reading.started))
        if self._transport is not None:
            self._transport.abort()


#: Of a connection that has sent nothing, or has ended.
_NO_PARSER = httptools.HttpResponseParser(None)


def _time_out(future: "asyncio.Future[Answer]") -> None:
    if not future.done():
        future.set_exception(TimeoutError())
