"""Sync: the agent has called, and is handed its tasks over the exchange it holds open."""

import asyncio
from collections.abc import Sequence

from edgeplane.transport.base import Ending, Inbound, TransportError, Unanswered, Unreachable
from edgeplane.transport.link import Link
from edgeplane.transport.links import Links
from edgeplane.wire import CancelRequest, CancelState, ExecuteReply, ExecuteRequest


class SyncTransport:
    """Delivers over the links of this process."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def shown(self, address: Inbound) -> str:
        """Return where the agent has called from; see ``AgentTransport``."""
        link = self._links.of(address.node_id)
        return f"sync from {link.peer}" if link else str(address)

    async def deliver(
        self, address: Inbound, request: ExecuteRequest, seconds: float
    ) -> ExecuteReply:
        """Hand over a task; see ``AgentTransport``."""
        (ending,) = await self.deliver_many(address, [request], seconds)
        if isinstance(ending, TransportError):
            raise ending
        return ending

    async def deliver_many(
        self, address: Inbound, requests: Sequence[ExecuteRequest], seconds: float
    ) -> list[Ending]:
        """Hand over tasks together; see ``AgentTransport``."""
        try:
            link = self._link(address)
        except Unreachable as away:
            return [away] * len(requests)
        futures = [link.ask(request) for request in requests]

        def time_out() -> None:
            for request in requests:
                link.give_up(request, f"no answer within {seconds:g} s")

        timer = asyncio.get_running_loop().call_later(seconds, time_out)
        try:
            return [await future for future in futures]
        finally:
            timer.cancel()
            for request in requests:
                link.give_up(request, "not waited for any more")

    async def cancel(
        self,
        address: Inbound,
        request_id: str,
        node_id: int | None,
        epoch: int | None,
        seconds: float,
        *,
        attempt: int | None = None,
    ) -> CancelState:
        """Have a request cancelled; see ``AgentTransport``."""
        link = self._link(address)
        answer = link.cancel(CancelRequest(request_id, node_id, epoch, attempt))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise Unanswered(f"no answer from {link.peer} within {seconds:g} s") from None
        finally:
            link.forget_cancel(request_id)

    def committed(self, address: Inbound, request_id: str, attempt: int) -> None:
        """Acknowledge a result to its agent; see ``AgentTransport``."""
        if link := self._links.of(address.node_id):
            link.committed((request_id, attempt))

    async def close(self) -> None:
        """End all links."""
        for link in self._links:
            self._links.close(link, "this control plane stops")

    def _link(self, address: Inbound) -> Link:
        link = self._links.of(address.node_id)
        if link is None:
            raise Unreachable("agent unreachable: it is not connected (transport sync)")
        return link
