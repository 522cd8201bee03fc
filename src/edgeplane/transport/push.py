"""Push: the control plane posts tasks to the node's own address over a kept-alive connection.

The address is built from an IP literal and a port; redirects are not followed and proxy variables
are not read, so the bearer token goes nowhere else.
"""

import asyncio
import errno
import os
import resource
import time
from collections import OrderedDict
from collections.abc import Sequence
from ssl import SSLCertVerificationError, SSLContext, SSLError

import msgspec

from edgeplane.http1.outgoing import Answer, Connection, ConnectionEnded
from edgeplane.transport.answers import read_cancel, read_health, read_reply
from edgeplane.transport.base import Address, Busy, Ending, Unanswered, Unreachable
from edgeplane.transport.batching import Batching
from edgeplane.wire import (
    CANCEL_PATH,
    EXECUTE_PATH,
    HEALTH_PATH,
    MAX_REPLY_BYTES,
    CancelRequest,
    CancelState,
    ExecuteReply,
    ExecuteRequest,
)

MAX_IDLE_CONNECTIONS = 16_000
#: Shorter than an agent keeps them (two minutes): what it ended in silence is not sent on.
IDLE_SECONDS = 100.0

_encoder = msgspec.json.Encoder()


class PushTransport:
    """Delivers over HTTP/1.1, keeping connections open between tasks."""

    def __init__(
        self,
        token: str,
        *,
        connect_seconds: float = 3.0,
        tls: SSLContext | None = None,
    ) -> None:
        self._head = f"Authorization: Bearer {token}\r\n".encode("latin-1", "strict")
        self._connect_seconds = connect_seconds
        self._tls = tls
        self._idle: OrderedDict[Address, list[Connection]] = OrderedDict()
        self._idle_count = 0
        self._max_idle = _idle_limit()
        self._batching = Batching(self)
        self.connections_made = 0
        self.requests_sent = 0

    async def deliver(
        self, address: Address, request: ExecuteRequest, seconds: float
    ) -> ExecuteReply:
        """Post a task; see ``AgentTransport``."""
        answer = await self.post(address, EXECUTE_PATH, _encoder.encode(request), seconds)
        return read_reply(answer, request.request_id)

    async def deliver_many(
        self, address: Address, requests: Sequence[ExecuteRequest], seconds: float
    ) -> list[Ending]:
        """Post tasks together, one alone in the form of one; see ``AgentTransport``."""
        return await self._batching.deliver(address, requests, seconds)

    async def cancel(
        self,
        address: Address,
        request_id: str,
        node_id: int | None,
        epoch: int | None,
        seconds: float,
        *,
        attempt: int | None = None,
    ) -> CancelState:
        """Post a cancel; see ``AgentTransport``."""
        order = CancelRequest(request_id, node_id, epoch, attempt)
        answer = await self.post(address, CANCEL_PATH, _encoder.encode(order), seconds)
        return read_cancel(answer, request_id)

    async def health(self, address: Address, seconds: float) -> None:
        """Ask an agent how it is; see ``Asking``."""
        head = f"GET {HEALTH_PATH} HTTP/1.1\r\nHost: {address}\r\n".encode()
        message = b"".join((head, self._head, b"\r\n"))
        read_health(await self._exchange(address, message, seconds, MAX_REPLY_BYTES))

    async def post(
        self,
        address: Address,
        path: str,
        body: bytes,
        seconds: float,
        max_reply: int = MAX_REPLY_BYTES,
    ) -> Answer:
        """Post a body to an agent; return its answer, of at most ``max_reply`` bytes.

        Raises:
            Unreachable, Unanswered, Busy: as for the delivery of a task.

        """
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        ).encode()
        message = b"".join((head, self._head, b"\r\n", body))
        return await self._exchange(address, message, seconds, max_reply)

    @property
    def connections_idle(self) -> int:
        """How many connections are kept for the next delivery."""
        return self._idle_count

    async def close(self) -> None:
        """End all idle connections."""
        for address in list(self._idle):
            self._drop(address)

    async def _exchange(
        self, address: Address, message: bytes, seconds: float, max_reply: int
    ) -> Answer:
        """Send on a kept connection or a new one.

        A kept connection may have been closed by the agent in the same instant. As long as not a
        byte of an answer came, a new one is tried: the request id makes that harmless.
        """
        connection = self._take(address)
        if connection is not None:
            try:
                return await self._ask(address, connection, message, seconds, max_reply)
            except ConnectionEnded as ended:
                self._drop(address)  # whatever ended it has most likely ended them all
                if ended.answered:
                    raise Unanswered(f"no answer from {address}: {ended}") from ended
        try:
            connection = await self._connect(address)
        except Unreachable as away:
            if connection is None:
                raise
            raise Unanswered(f"sent to {address} on a connection that ended; then {away}") from away
        try:
            return await self._ask(address, connection, message, seconds, max_reply)
        except ConnectionEnded as ended:
            raise Unanswered(f"no answer from {address}: {ended}") from ended

    async def _ask(
        self,
        address: Address,
        connection: Connection,
        message: bytes,
        seconds: float,
        max_reply: int,
    ) -> Answer:
        self.requests_sent += 1
        try:
            answer = await connection.send(message, seconds, max_reply)
        except TimeoutError as error:
            connection.abort()
            self._drop(address)  # a machine that lost its power leaves them all looking alive
            why = f"no answer from {address} within {seconds:g} s: timed out"
            raise Unanswered(why) from error
        except asyncio.CancelledError:
            connection.abort()
            raise
        if answer.keep_alive and connection.open:
            self._keep(address, connection)
        else:
            connection.abort()
        return answer

    async def _connect(self, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: Connection(MAX_REPLY_BYTES), address.ip, address.port, ssl=self._tls
                )
        except TimeoutError as error:
            why = f"connect to {address}: timed out after {self._connect_seconds:g} s"
            raise Unreachable(f"agent unreachable: {why}") from error
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise Busy("the control plane is out of file descriptors", 1.0) from error
            raise Unreachable(
                f"agent unreachable: connect to {address}: {_words(error)}"
            ) from error
        self.connections_made += 1
        return connection

    def _take(self, address: Address) -> Connection | None:
        kept = self._idle.get(address)
        while kept:
            connection = kept.pop()
            self._idle_count -= 1
            fresh = time.monotonic() - connection.idle_since < IDLE_SECONDS
            if fresh and connection.open and connection.quiet:
                return connection
            connection.abort()
        self._idle.pop(address, None)
        return None

    def _drop(self, address: Address) -> None:
        """End all idle connections to an address."""
        for connection in self._idle.pop(address, ()):
            self._idle_count -= 1
            connection.abort()

    def _keep(self, address: Address, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle.setdefault(address, []).append(connection)
        self._idle.move_to_end(address)
        self._idle_count += 1
        while self._idle_count > self._max_idle:
            self._drop(next(iter(self._idle)))


def _words(error: OSError) -> str:
    if isinstance(error, SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, SSLError):  # its number is none of the system's
        return f"TLS failed: {error.reason or error}"
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _idle_limit() -> int:
    """Return how many idle connections to keep: half of the files there may be, at most."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the daemon raises its limit to this
    return MAX_IDLE_CONNECTIONS if most < 0 else min(MAX_IDLE_CONNECTIONS, most // 2)
