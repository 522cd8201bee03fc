"""An agent of the swarm, and what it remembers while it lives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edgeplane.model.errors import DomainError, WrongState
from edgeplane.model.tasks import DEFAULT_TIMEOUT_SECONDS
from edgeplane.swarm.faults import Fate
from edgeplane.swarm.records import Asked
from edgeplane.wire import CancelReply, CancelRequest, ExecuteReply, ExecuteRequest

#: How an agent answers; None: not at all, the connection is cut.
Tell = Callable[[ExecuteReply | DomainError | None], None]
TellCancel = Callable[[CancelReply | DomainError], None]


class Line(Protocol):
    """A way from the control plane to an agent that is open now."""

    def cut(self) -> None:
        """End it as a process does that dies."""


@dataclass(slots=True, eq=False)
class Agent:
    """One agent: what it knows, and what dies with it."""

    number: int
    skew: float  #: seconds its wall clock is ahead
    epochs: dict[int, int]  #: the highest seen of each node
    up: bool = True
    life: int = 0
    turn: int = 0  #: requests it has been asked
    running: "dict[str, Run]" = field(default_factory=dict)
    lines: set[Line] = field(default_factory=set)

    def follow(self, request: ExecuteRequest | CancelRequest) -> WrongState | None:
        """Keep an epoch that is new for its node; return the refusal of one that is past."""
        node_id, epoch = request.node_id or 0, request.epoch
        if epoch is None:
            return None
        followed = self.epochs.get(node_id, 0)
        if epoch >= followed:
            self.epochs[node_id] = epoch
            return None
        return WrongState(f"stale epoch {epoch} for node {node_id}: this agent follows {followed}")


@dataclass(slots=True, eq=False)
class Run:
    """A request between its arrival and its answer."""

    request: ExecuteRequest
    asked: Asked
    fate: Fate
    life: int
    attempt: int
    taken: float  #: when it was let in; monotonic
    begun: bool = False
    decided: bool = False
    called_off: str = ""  #: why it is to have no effect, if it has none yet
    waiting: list[Tell] = field(default_factory=list)
    after: list[Callable[[], None]] = field(default_factory=list)


def limit(request: ExecuteRequest) -> int:
    """Return how many seconds a request may take."""
    return request.timeout_seconds or DEFAULT_TIMEOUT_SECONDS
