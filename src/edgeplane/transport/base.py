"""The seam between the engine and the network.

::

    TransportError
    ├── Unreachable    it never arrived: nothing was done there
    ├── Unanswered     sent, and no usable answer: ask again with the same request id
    ├── Busy           429 or 5xx: not now
    ├── Stale          the agent follows a newer owner of its node
    └── Refused        anything else: asking again would bring the same answer
        └── Outdated   the agent has begun a later generation of its node's config

Each carries one line for the person who reads ``lastError``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgeplane.wire import CancelState, ExecuteReply, ExecuteRequest


@dataclass(frozen=True, slots=True)
class Address:
    """Where an agent listens: an IP literal and a port."""

    ip: str
    port: int

    def __str__(self) -> str:
        """Render ``192.0.2.1:9090`` or ``[2001:db8::1]:9090``."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Inbound:
    """An agent that connects out: it is found by its node."""

    node_id: int

    def __str__(self) -> str:
        """Say how it comes."""
        return "sync"


Place = Address | Inbound  #: where an agent is found


class TransportError(Exception):
    """A delivery that brought no result.

    ``answered``: a healthy agent of ours gave this answer. ``fault``: in plain words, why what
    answered is none. With neither, it says nothing of the agent but what its class says.
    """

    answered: bool = False
    fault: str | None = None


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


class Outdated(Refused):
    """The agent has begun a later generation of the node's config: this one is past for ever."""


Ending = ExecuteReply | TransportError  #: what became of one of many


class AgentTransport(Protocol):
    """Carries tasks to agents and their results back."""

    def shown(self, address: Place) -> str:
        """Return the address an agent is reached at, for people."""
        ...

    async def deliver(
        self, address: Place, request: ExecuteRequest, seconds: float
    ) -> ExecuteReply:
        """Hand over a task and wait up to ``seconds`` for its result.

        Raises:
            TransportError: see the tree above.

        """
        ...

    async def deliver_many(
        self, address: Place, requests: Sequence[ExecuteRequest], seconds: float
    ) -> list[Ending]:
        """Hand over tasks together; return a result or an error for each, in their order.

        Each is judged as if it had come alone. ``seconds`` is the largest of their time limits and
        what the way there and back may take: an agent answers when the last has ended, or when the
        largest limit is over. A result that is missing then is Unanswered. Nothing is raised for
        what the agent or the network does.
        """
        ...

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
        """Let a request have no effect, if it has none yet; return how it stands.

        ``attempt`` is the highest that is meant (see ``CancelRequest``). An agent that knows no
        cancels refuses.

        Raises:
            TransportError: see the tree above.

        """
        ...

    def committed(self, address: Place, request_id: str, attempt: int) -> None:
        """Note that the result of a delivered run is committed."""
        ...

    async def close(self) -> None:
        """End all connections."""
        ...


class Asking(Protocol):
    """Asks agents how they are."""

    async def health(self, address: Address, seconds: float) -> None:
        """Return when an agent of ours answers well within so many seconds.

        Raises:
            TransportError: it does not; see the tree above. With ``answered``, an agent is there
                all the same, and has its reasons.

        """
        ...
