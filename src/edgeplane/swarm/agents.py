"""An agent of the swarm, and what it remembers while it lives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edgeplane.model.errors import DomainError, Internal, WrongState
from edgeplane.swarm.faults import Fate
from edgeplane.swarm.records import Asked
from edgeplane.wire import ExecuteReply, ExecuteRequest

#: How an agent answers; None: not at all, the connection is cut.
Tell = Callable[[ExecuteReply | DomainError | None], None]


class Outdated(WrongState):
    """A later generation of the node's config has begun here."""

    def __init__(self, generation: int, begun: int, node_id: int) -> None:
        super().__init__(
            f"generation: {generation} is older than {begun},"
            f" which this agent has begun for node {node_id}"
        )
        self.begun = begun


class Unavailable(Internal):
    """It may pass by itself."""

    status = 503


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


@dataclass(slots=True, eq=False)
class Run:
    """A request between its arrival and its answer."""

    request: ExecuteRequest
    asked: Asked
    fate: Fate
    life: int
    attempt: int
    begun: bool = False
    decided: bool = False
    waiting: list[Tell] = field(default_factory=list)
    after: list[Callable[[], None]] = field(default_factory=list)
