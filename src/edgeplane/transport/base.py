"""The seam between the engine and the network.

::

    TransportError
    ├── Unreachable    it never arrived: nothing was done there
    ├── Unanswered     sent, and no usable answer: ask again with the same request id
    ├── Busy           429 or 5xx: not now
    ├── Stale          the agent follows a newer owner of its node
    └── Refused        anything else: asking again would bring the same answer

Each carries one line for the person who reads ``lastError``.
"""

from dataclasses import dataclass
from typing import Protocol

from edgeplane.wire import ExecuteReply, ExecuteRequest


@dataclass(frozen=True, slots=True)
class Address:
    """Where an agent listens: an IP literal and a port."""

    ip: str
    port: int

    def __str__(self) -> str:
        """Render ``192.0.2.1:9090`` or ``[2001:db8::1]:9090``."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class TransportError(Exception):
    """A delivery that brought no result."""


class Unreachable(TransportError):
    """The agent was not reached."""


class Unanswered(TransportError):
    """The task was sent; whether it was carried out is not known."""


class Busy(TransportError):
    """The agent is there and cannot take it now; ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Stale(TransportError):
    """The agent has seen a higher epoch: somebody else owns its node."""


class Refused(TransportError):
    """The agent will not take this task."""


class AgentTransport(Protocol):
    """Carries a task to an agent and its result back."""

    async def deliver(
        self, address: Address, request: ExecuteRequest, seconds: float
    ) -> ExecuteReply:
        """Hand over a task and wait up to ``seconds`` for its result.

        Raises:
            TransportError: see the tree above.

        """
        ...

    async def close(self) -> None:
        """End all connections."""
        ...
