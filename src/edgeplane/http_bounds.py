"""HTTP/1.1 with bounds: on connections, on heads, and on the time a request takes to arrive.

uvicorn bounds none of these. All of them concern callers who have not shown a token yet.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgeplane.wire import error_envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a server lets strangers have; unless told otherwise, that of a control plane."""

    connections: int = 4_096  #: at the same time; one more is answered 429 and closed
    arrival_seconds: float = 35.0  #: for a whole request; apps refuse a slow body in words before
    head_bytes: int = 64 << 10


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The keep-alive timer of the base class also ends a request that stalls."""

    bounds: ClassVar = Bounds()

    _arriving = False
    _in_head = False
    _head_bytes = 0
    _deadline = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse a connection too many, and give a new one its time."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            self._refuse(b"429 Too Many Requests", 3004, "too many connections; come back later")
            return
        self._close_at(self.loop.time() + self.bounds.arrival_seconds)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and see what it is left with."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.head_bytes:
                self._refuse(b"431 Request Header Fields Too Large", 2003, "head: is too large")
        self._keep_the_time()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what has arrived whole, though its sender will send no more; then close."""
        waited_for = bool(self.cycle) and not self.cycle.response_complete and not self._arriving
        if waited_for:
            self.cycle.keep_alive = False
        return waited_for

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        super().on_message_begin()
        self._arriving = self._in_head = True
        self._head_bytes = 0
        self._deadline = self.loop.time() + self.bounds.arrival_seconds

    def on_headers_complete(self) -> None:
        """Stop counting the head."""
        self._in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the clock."""
        self._arriving = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the clock where the answer came before the whole request."""
        super().on_response_complete()
        self._keep_the_time()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  the base class's words are not ours
        """Answer what is no HTTP in an envelope."""
        self._refuse(b"400 Bad Request", 2002, "request: not valid HTTP/1.1")

    def _keep_the_time(self) -> None:
        if self._arriving and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._close_at(self._deadline)

    def _refuse(self, status: bytes, code: int, message: str) -> None:
        body = error_envelope(code, message)
        length = str(len(body)).encode("ascii")
        head: list[Any] = [
            b"HTTP/1.1 " + status,
            b"content-type: application/json",
            b"content-length: " + length,
            b"connection: close",
            *([b"retry-after: 1"] if code == 3004 else []),  # noqa: PLR2004
        ]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()

    def _close_at(self, moment: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_at(moment, self.timeout_keep_alive_handler)


def bounded(bounds: Bounds) -> type[BoundedProtocol]:
    """Return the protocol of one server, with its bounds."""
    return type("BoundedProtocol", (BoundedProtocol,), {"bounds": bounds})
