"""Where agents that connect out come in: one listener, one path, exchanges held open.

Raw asyncio over ``http1.incoming``, because ten thousand of them have to cost next to nothing.
"""

import asyncio
import hmac
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from edgeplane import jsonbody
from edgeplane.http1 import answers, keepalive
from edgeplane.http1.incoming import Arrival, Incoming
from edgeplane.model.errors import (
    DomainError,
    Internal,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
    WrongMethod,
    WrongState,
)
from edgeplane.transport.links import Links
from edgeplane.wire import (
    MAX_BODY_BYTES,
    SYNC_PATH,
    SyncReply,
    SyncRequest,
    envelope,
    error_envelope,
)

SWEEP_SECONDS: Final = 1.0
MOST: Final = 65_536  #: connections, where the process may open as many files
TURNS: Final = 3  #: of the loop, in which the end of a connection is seen behind its last request
AGAIN_SECONDS: Final = 10  #: until an agent that is refused need ask again

_PATH: Final = SYNC_PATH.encode()
_decoder = msgspec.json.Decoder(SyncRequest)
log = logging.getLogger(__name__)

#: Admits the agent of a node, named; returns the node's id once it is committed.
Admit = Callable[[str], Awaitable[int]]


class SyncDoor:
    """What all connections share.

    Args:
        links: to the agents that are connected.
        token: what the bearer must equal.
        admit: asked for each agent that has no link; raises DomainError.
        most: connections at the same time; one more is answered 429 and closed.

    """

    def __init__(self, links: Links, token: str, admit: Admit, most: int = MOST) -> None:
        self.links = links
        self.most = most
        self.admit = admit
        self.connections: set[SyncConnection] = set()
        self.bearer = token.encode()
        self.exchanges = 0
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def listen(self, listener: socket.socket) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SyncConnection(self, loop), sock=listener, backlog=4096
        )
        self._sweep()

    async def stop(self) -> None:
        """Accept nothing more, and end all connections."""
        if self._server is not None:
            self._server.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self.connections):
            connection.transport.close()

    def _sweep(self) -> None:
        """Answer what was held long enough, and end what stalls; one look at all costs little."""
        loop = asyncio.get_running_loop()
        try:
            self.links.look()
            now = loop.time()
            for connection in list(self.connections):
                connection.look(now)
        finally:
            self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep)


class SyncConnection(Incoming):
    """One connection of an agent; an exchange it holds is its ``Held``."""

    __slots__ = ("_door", "_name")

    def __init__(self, door: SyncDoor, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._door = door
        self._name = ""  #: of the node whose exchange is held

    def reply(self, reply: SyncReply) -> None:
        """Answer the exchange."""
        self._answer(200, envelope(reply))

    def refuse(self, words: str, again: int) -> None:
        """Answer that the agent has to be admitted anew, if it can be."""
        self._fail(WrongState(words), again)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse one too many."""
        super().connection_made(transport)
        keepalive.watch(transport.get_extra_info("socket"))
        if len(self._door.connections) >= self._door.most:
            self.transport.write(answers.TOO_MANY)
            self.transport.close()
            return
        self._door.connections.add(self)

    def eof_received(self) -> bool:
        """End it: who has closed it does not wait for the reply of an exchange it may hold."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the link."""
        super().connection_lost(exc)
        self._door.connections.discard(self)
        link = self._door.links.named(self._name)
        if link is not None:
            link.lost(self)

    def wants(self, arrival: Arrival) -> bool:
        """Keep nothing of what a stranger sends."""
        return self._knows_the_token(arrival)

    def take(self, arrival: Arrival) -> None:
        """Hear an exchange."""
        try:
            self._check(arrival)
            self._hear(jsonbody.decode(_decoder, b"".join(arrival.parts)))
        except DomainError as error:
            self._fail(error)

    def _check(self, arrival: Arrival) -> None:
        if arrival.path.partition(b"?")[0] != _PATH:
            raise NotFound("path: nothing is here but the sync of agents")
        if arrival.method != b"POST":
            raise WrongMethod(f"method: {SYNC_PATH} takes POST")
        if not self._knows_the_token(arrival):
            raise Unauthenticated("unauthorized: AGENT_TOKEN is not the control plane's")
        if arrival.size > MAX_BODY_BYTES:
            raise TooLarge(f"body: at most {MAX_BODY_BYTES} bytes are allowed")

    def _knows_the_token(self, arrival: Arrival) -> bool:
        scheme, _, shown = arrival.bearer.partition(b" ")
        right = hmac.compare_digest(shown.strip(), self._door.bearer)
        return right and scheme.lower() == b"bearer"

    def _hear(self, request: SyncRequest, *, admitted: bool = False) -> None:
        self._door.exchanges += 1
        link = self._door.links.named(request.node)
        if link is None or (link.adrift and not admitted):
            admitting = asyncio.create_task(self._admit(request))
            admitting.add_done_callback(_told)
            return
        if link.session != request.session:
            if request.session in link.former:
                raise WrongState(f"node: another agent speaks for {link.name}, from {link.peer}")
            log.info("node %d: its agent has started anew, at %s", link.node_id, self._peer())
            link.restart(request.session, self._peer())
        self._name = request.node
        link.peer = self._peer()  # the same session may come from elsewhere now
        link.hear(request, self)

    async def _admit(self, request: SyncRequest) -> None:
        """Let an agent in that is still there.

        What it sent while this process stood still is read first, and only then that it has left
        since: to another control plane, which must not lose its node by that.
        """
        try:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if self.transport.is_closing():
                return
            node_id = await self._door.admit(request.node)
            if self.transport.is_closing():
                if node_id not in self._door.links:
                    self._door.links.ended(node_id)
                return
            if self._door.links.named(request.node) is None:
                link = self._door.links.open(node_id, request.node, request.session, self._peer())
                log.info(
                    "node %d: agent connected from %s, version %s",
                    link.node_id,
                    link.peer,
                    request.version,
                )
            self._hear(request, admitted=True)
        except DomainError as error:
            self._fail(error)
        except Exception:
            log.exception("the agent of a node could not be admitted")
            self._fail(Internal("internal error; the control plane's log says more"))

    def _peer(self) -> str:
        peer = self.transport.get_extra_info("peername") or ("nowhere", 0)
        return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"

    def _fail(self, error: DomainError, again: int = AGAIN_SECONDS) -> None:
        if isinstance(error, TooMany):
            again = error.retry_after
        extra = b"retry-after: %d\r\n" % again
        if isinstance(error, Unauthenticated):
            extra += b"www-authenticate: Bearer\r\n"
        self._answer(error.status, error_envelope(error.code, error.message), extra)

    def _answer(self, status: int, body: bytes, extra: bytes = b"") -> None:
        self._name = ""
        if not self.transport.is_closing():
            self.answer(status, body, extra)
            self._loop.call_soon(self.go_on)


def _told(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()
