"""The push transport's other end: one listener for all agents, told apart by the address called."""

import asyncio
import contextlib
import hmac
import socket
import struct
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from importlib.metadata import version
from typing import Final

from edgeplane.agent.refusals import Outdated
from edgeplane.agent.requests import read_batch, read_cancel, read_request
from edgeplane.http1 import answers
from edgeplane.http1.incoming import Arrival, Incoming
from edgeplane.model.errors import (
    DomainError,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
    WrongMethod,
)
from edgeplane.swarm.agents import Agent
from edgeplane.swarm.batches import Batch
from edgeplane.swarm.fleet import Fleet
from edgeplane.swarm.tally import Tally
from edgeplane.wire import (
    BATCH_PATH,
    CANCEL_PATH,
    EXECUTE_PATH,
    HEALTH_PATH,
    MAX_BODY_BYTES,
    BatchReply,
    CancelReply,
    ExecuteReply,
    HealthReply,
    envelope,
    error_envelope,
)

SWEEP_SECONDS: Final = 5.0
MOST: Final = 65_536  #: connections, where the process may open as many files

_AT_ONCE: Final = struct.pack("ii", 1, 0)  #: SO_LINGER that ends a connection with a reset
_EXECUTE, _BATCH = EXECUTE_PATH.encode(), BATCH_PATH.encode()
_CANCEL, _HEALTH = CANCEL_PATH.encode(), HEALTH_PATH.encode()
_METHODS: Final = {_EXECUTE: b"POST", _BATCH: b"POST", _CANCEL: b"POST", _HEALTH: b"GET"}

_Reply = ExecuteReply | BatchReply | CancelReply | DomainError


class Door:
    """What all connections share.

    Args:
        fleet: who is called.
        token: what the bearer must equal.
        tally: where connections and answers are counted.
        most: connections at the same time; one more is answered 429 and closed.

    """

    def __init__(self, fleet: Fleet, token: str, tally: Tally, most: int = MOST) -> None:
        self.fleet = fleet
        self.tally = tally
        self.most = most
        self.bearer = token.encode()
        self.version = version("edgeplane")
        self.loop = asyncio.get_running_loop()
        self.began = time.monotonic()
        self.connections: set[PushConnection] = set()
        self._sweep()

    def connection(self) -> "PushConnection":
        """Make the protocol of a new connection."""
        return PushConnection(self)

    def _sweep(self) -> None:
        """End what stalls or idles; one look at all costs less than a timer for each."""
        now = self.loop.time()
        for connection in list(self.connections):
            connection.look(now)
        self.loop.call_later(SWEEP_SECONDS, self._sweep)


class PushConnection(Incoming):
    """One connection to one agent."""

    __slots__ = ("_agent", "_door")

    _agent: Agent

    def __init__(self, door: Door) -> None:
        super().__init__(door.loop)
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See whom it is for; who is away resets it."""
        super().connection_made(transport)
        agent = self._door.fleet.at(transport.get_extra_info("sockname")[0])
        if agent is None or not agent.up:
            with contextlib.suppress(OSError):
                kernel = transport.get_extra_info("socket")
                kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.cut()
            return
        if len(self._door.connections) >= self._door.most:
            self.transport.write(answers.TOO_MANY)
            self.transport.close()
            return
        self._agent = agent
        agent.lines.add(self)
        self._door.connections.add(self)
        self._door.tally.connected()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        if self in self._door.connections:
            self._door.connections.discard(self)
            self._agent.lines.discard(self)
            self._door.tally.counts.connections -= 1

    def take(self, arrival: Arrival) -> None:
        """Let the agent do what is asked."""
        try:
            self._act(self._check(arrival), b"".join(arrival.parts))
        except DomainError as error:
            self._tell(error)

    def _act(self, path: bytes, body: bytes) -> None:
        fleet, told = self._door.fleet, partial(self._told, self._door.loop.time())
        if path == _HEALTH:
            self.answer(200, envelope(self._health()), self._date())
        elif path == _CANCEL:
            fleet.cancel(self._agent, read_cancel(body), told)
        elif path == _BATCH:
            Batch(read_batch(body), told).execute(fleet, self._agent)
        else:
            fleet.execute(self._agent, read_request(body), told)

    def _check(self, arrival: Arrival) -> bytes:
        """Return the path, if it may be asked so."""
        path = arrival.path.partition(b"?")[0]
        method = _METHODS.get(path)
        if method is None:
            raise NotFound("path: nothing is here")
        if arrival.method != method:
            raise WrongMethod(f"method: {path.decode()} takes {method.decode()}")
        scheme, _, shown = arrival.bearer.partition(b" ")
        right = hmac.compare_digest(shown.strip(), self._door.bearer)
        if scheme.lower() != b"bearer" or not right:
            raise Unauthenticated("unauthorized")
        if arrival.size > MAX_BODY_BYTES:
            raise TooLarge(f"body: at most {MAX_BODY_BYTES} bytes are allowed")
        return path

    def _told(self, arrived: float, reply: _Reply | None) -> None:
        """Answer what the agent says, or cut the connection where it says nothing."""
        if self.transport.is_closing():
            return
        if reply is None:
            self.cut()
            return
        self._tell(reply)
        self._door.tally.answered(self._door.loop.time() - arrived)
        self.go_on()

    def _tell(self, reply: _Reply) -> None:
        if isinstance(reply, DomainError):
            self.answer(reply.status, _failure(reply), _extra(reply) + self._date())
        else:
            self.answer(200, envelope(reply), self._date())

    def _date(self) -> bytes:
        """Return what the agent's clock shows, where it is off."""
        skew = self._agent.skew
        return f"date: {formatdate(time.time() + skew, usegmt=True)}\r\n".encode() if skew else b""

    def _health(self) -> HealthReply:
        entries, size = self._door.fleet.journal_size(self._agent)
        return HealthReply(
            version=self._door.version,
            uptime_seconds=round(time.monotonic() - self._door.began, 3),
            journal_entries=entries,
            journal_bytes=size,
            executor="simulated",
            running=[name for name, run in self._agent.running.items() if run.begun],
        )


def _failure(error: DomainError) -> bytes:
    """Render the body of an error."""
    data = error.data if isinstance(error, Outdated) else None
    return error_envelope(error.code, error.message, data)


def _extra(error: DomainError) -> bytes:
    """Return the headers an error has beside the usual ones."""
    if isinstance(error, TooMany):
        return b"retry-after: %d\r\n" % error.retry_after
    if isinstance(error, Unauthenticated):
        return b"www-authenticate: Bearer\r\n"
    if isinstance(error, WrongMethod):
        return b"allow: " + error.message.rpartition(" ")[2].encode() + b"\r\n"
    return b""


async def listen(door: Door, listener: socket.socket) -> Callable[[], None]:
    """Accept connections; return what ends that, and all of them."""
    server = await door.loop.create_server(door.connection, sock=listener, backlog=65_535)

    def end() -> None:
        server.close()
        for connection in list(door.connections):
            connection.cut()

    return end
