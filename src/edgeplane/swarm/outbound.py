"""A connection out of the swarm: one request at a time, a bounded answer, nothing to await.

There are ten thousand of them in one process. So there is no future and no timer for an exchange:
its owner is called, and who looks at all of them from time to time ends what is late.
"""

import asyncio
from typing import Final, Protocol, cast

import httptools

from edgeplane.http1 import keepalive
from edgeplane.wire import MAX_BODY_BYTES, MAX_REPLY_BYTES

BODY_BYTES: Final = MAX_BODY_BYTES + MAX_REPLY_BYTES  #: of an answer: tasks, and words beside them
AROUND_BYTES: Final = 64 << 10  #: of an answer beside its body
CONNECT_SECONDS: Final = 5.0
NEVER: Final = float("inf")

_FINAL: Final = 200  #: answers of a lower status are followed by another


class _StopError(Exception):
    """What comes is past a bound. Raised in a callback, it stops the parser there."""


class Owner(Protocol):
    """Whose connection it is."""

    def opened(self) -> None:
        """Learn that one is there; ``lost`` tells of its end."""

    def answered(self, line: "Outbound", status: int, body: bytes) -> None:
        """Take the answer to what was sent last; the connection is free, or ending."""

    def lost(self, line: "Outbound") -> None:
        """Learn that it has ended, in whatever way; with ``busy``, before the answer."""


class Outbound(asyncio.Protocol):
    """One connection of one agent."""

    __slots__ = (
        "_keep", "_owner", "_parser", "_parts", "_size", "_status", "again", "busy", "deadline",
        "exchange", "idle_since", "retry_after", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._size = 0  #: bytes that have come of an answer
        self._status = 0  #: of an answer that is all here
        self._keep = False  #: the connection may be used after it
        self.busy = False  #: an answer is due
        self.exchange = 0  #: the number of what was sent last
        self.again = False  #: where it is turned away, everything is to be asked for again
        self.deadline = NEVER  #: the loop's time at which its answer is given up
        self.idle_since = 0.0  #: the loop's time of the last answer
        self.retry_after: int | None = None  #: seconds, of the answer

    @property
    def open(self) -> bool:
        """Whether it can be used."""
        return not self.transport.is_closing()

    def send(self, message: bytes, exchange: int, deadline: float) -> None:
        """Send a request; only where it is not ``busy``."""
        self.busy = True
        self.exchange = exchange
        self.deadline = deadline
        self._size = 0
        self.retry_after = None
        self.transport.write(message)

    def cut(self) -> None:
        """End it at once."""
        self.transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._owner.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner."""
        del exc
        self._owner.lost(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what nobody asked for, and what is no HTTP, ends the connection."""
        self._size += len(data)
        if not self.busy or self._size > BODY_BYTES + AROUND_BYTES:
            self.cut()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.cut()
            return
        if self._status:
            self._hand_over()

    def _hand_over(self) -> None:
        body = b"".join(self._parts)
        self._parts = []
        status, self._status = self._status, 0
        self.busy = False
        self.deadline = NEVER
        if not self._keep:
            self.transport.close()
        self._owner.answered(self, status, body)

    # the parser's side

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self._status:
            raise _StopError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what an agent heeds."""
        if len(name) == 11 and name.lower() == b"retry-after" and value.isdigit():  # noqa: PLR2004
            self.retry_after = int(value[:9])

    def on_body(self, part: bytes) -> None:
        """Keep it; its bound is that of all that comes."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """Note that it is all here, unless another follows by itself."""
        status = self._parser.get_status_code()
        if status >= _FINAL:
            self._status = status
            self._keep = self._parser.should_keep_alive()


async def connect(
    owner: Owner, address: str, port: int, source: tuple[str, int] | None
) -> Outbound:
    """Open a connection, from a source if one is given.

    Raises:
        OSError: it could not be made, or not in time.

    """
    line = Outbound(owner)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_SECONDS):
        await loop.create_connection(lambda: line, address, port, local_addr=source)
    if source is None:  # what goes over a network can be cut without a word
        keepalive.watch(line.transport.get_extra_info("socket"))
    return line
