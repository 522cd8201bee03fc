"""HTTP/1.1 with bounds: on connections, on what is sent beside bodies, and on the time it takes.

uvicorn bounds none of these. All of them concern callers who have not shown a token yet.
"""

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgeplane.wire import error_envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a server lets strangers have; unless told otherwise, that of a control plane."""

    connections: int = 4_096  #: at the same time; one more is answered 429 and closed
    arrival_seconds: float = 35.0  #: for a whole request; apps refuse a slow body in words before
    head_bytes: int = 64 << 10  #: of a request beside its body: head, chunk extensions, trailers
    pipelined: int = 8  #: requests that wait on a connection behind the one being answered


#: What a chunk may take for its size and line ends, uncounted.
_CHUNK_FRAMING = 16


class _TooManyError(Exception):
    """A request too many is pipelined. Raised in a callback, it stops the parser there."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The keep-alive timer of the base class also ends a request that stalls."""

    bounds: ClassVar = Bounds()

    _arriving = False
    _in_head = False
    _deaf = False  #: what comes is dropped; closed once the requests before it are answered
    _beside = 0  #: bytes of the request that arrives which are not of its body
    _deadline = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse a connection too many, and give a new one its time."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            self._refuse(b"429 Too Many Requests", 3004, "too many connections; come back later")
            return
        self._deadline = self.loop.time() + self.bounds.arrival_seconds
        self._keep_the_time()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and see what it is left with."""
        if self._deaf:
            return
        self._beside += len(data)
        super().data_received(data)
        if self._beside > self.bounds.head_bytes and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large", 2003, "head: is too large")
        self._keep_the_time()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what has arrived whole, though its sender will send no more; then close."""
        waited_for = self._owed() and not self._arriving
        if waited_for:
            self.cycle.keep_alive = False
        return waited_for

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        if len(self.pipeline) >= self.bounds.pipelined:
            raise _TooManyError
        super().on_message_begin()
        self._arriving = self._in_head = True
        self._deadline = self.loop.time() + self.bounds.arrival_seconds

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; drop a trailer."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Answer; what asks for another protocol gets this one, and the connection ends."""
        super().on_headers_complete()
        self._in_head = False
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Count what is left."""
        self._beside = max(0, self._beside - len(body))
        super().on_body(body)

    def on_chunk_complete(self) -> None:
        """Allow for what surrounds a chunk."""
        self._beside = max(0, self._beside - _CHUNK_FRAMING)

    def on_message_complete(self) -> None:
        """Stop the clock. What came with the end of a request is not counted for the next."""
        self._arriving = False
        self._beside = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the clock where the answer came before the whole request."""
        super().on_response_complete()
        if not self._arriving:
            self._deadline = self.loop.time() + self.timeout_keep_alive
        self._keep_the_time()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  the base class's words are not ours
        """Answer what is no HTTP in an envelope."""
        self._refuse(b"400 Bad Request", 2002, "request: not valid HTTP/1.1")

    def _owed(self) -> bool:
        """Say whether an answer is due."""
        return bool(self.cycle) and not self.cycle.response_complete

    def _keep_the_time(self) -> None:
        """Have the timer run unless an answer is all that is waited for; no byte prolongs it."""
        if not self.transport.is_closing() and (self._arriving or not self._owed()):
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_at(
                self._deadline, self.timeout_keep_alive_handler
            )

    def _refuse(self, status: bytes, code: int, message: str) -> None:
        """Answer what arrives with an error, and close; not before what is owed already."""
        in_body = self._arriving and not self._in_head
        if self._owed() and (self.pipeline or not in_body):
            # These words would be taken for the answer to an earlier request.
            self._deaf = True
            self._arriving = in_body
            self.cycle.keep_alive = False
            return
        if not (in_body and self.cycle.response_started):
            self.transport.write(_refusal(status, code, message))
        self.transport.close()


def _refusal(status: bytes, code: int, message: str) -> bytes:
    body = error_envelope(code, message)
    head = [
        b"HTTP/1.1 " + status,
        b"content-type: application/json",
        b"content-length: " + str(len(body)).encode("ascii"),
        b"connection: close",
        *([b"retry-after: 1"] if code == 3004 else []),  # noqa: PLR2004
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def bounded(bounds: Bounds) -> type[BoundedProtocol]:
    """Return the protocol of one server, with its bounds."""
    return type("BoundedProtocol", (BoundedProtocol,), {"bounds": bounds})
