"""Which transport serves a node: the one that finds agents in the way its agent is found."""

from collections.abc import Iterator, Sequence

from edgeplane.model.nodes import Node, NodeTransport
from edgeplane.transport.base import Address, Ending, Inbound, Place
from edgeplane.transport.push import PushTransport
from edgeplane.transport.sync import SyncTransport
from edgeplane.wire import CancelState, ExecuteReply, ExecuteRequest


def addresses(node: Node) -> Iterator[Place]:
    """Yield where a node's agent may be found: its main address, then its enabled sub-IPs.

    One that connects out is found in one place only.
    """
    if node.transport is NodeTransport.SYNC:
        yield Inbound(node.id)
    else:
        yield from called_at(node)


def called_at(node: Node) -> Iterator[Address]:
    """Yield where a node's agent is called by push."""
    yield Address(node.main_ip, node.agent_port)
    for sub in node.sub_ips:
        if sub.enabled:
            yield Address(sub.ip, node.agent_port)


class Routes:
    """The ``AgentTransport`` over both ways."""

    def __init__(self, push: PushTransport, sync: SyncTransport) -> None:
        self._push = push
        self._sync = sync

    def shown(self, address: Place) -> str:
        """Return an address as people read it."""
        return self._sync.shown(address) if isinstance(address, Inbound) else str(address)

    async def deliver(
        self, address: Place, request: ExecuteRequest, seconds: float
    ) -> ExecuteReply:
        """Hand over a task."""
        if isinstance(address, Inbound):
            return await self._sync.deliver(address, request, seconds)
        return await self._push.deliver(address, request, seconds)

    async def deliver_many(
        self, address: Place, requests: Sequence[ExecuteRequest], seconds: float
    ) -> list[Ending]:
        """Hand over tasks together."""
        if isinstance(address, Inbound):
            return await self._sync.deliver_many(address, requests, seconds)
        return await self._push.deliver_many(address, requests, seconds)

    async def cancel(
        self,
        address: Place,
        request_id: str,
        node_id: int | None,
        epoch: int | None,
        seconds: float,
        *,
        attempt: int | None = None,
    ) -> CancelState:
        """Have a request cancelled."""
        asked = (request_id, node_id, epoch, seconds)
        if isinstance(address, Inbound):
            return await self._sync.cancel(address, *asked, attempt=attempt)
        return await self._push.cancel(address, *asked, attempt=attempt)

    def committed(self, address: Place, request_id: str, attempt: int) -> None:
        """Note that a result is committed; over push, its answer has told all there is to tell."""
        if isinstance(address, Inbound):
            self._sync.committed(address, request_id, attempt)

    async def close(self) -> None:
        """End all connections."""
        await self._sync.close()
        await self._push.close()
