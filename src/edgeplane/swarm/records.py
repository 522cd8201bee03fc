"""What a journal is asked and answers, whether it is on disk or not.

Nothing here is awaited: each write names what is to be called once it is durable, which costs a
tenth of a future and a task.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from edgeplane.agent.journal_file import Standing
from edgeplane.wire import CancelRequest, CancelState

Status = Literal["success", "failed"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of one agent, as the journal knows it."""

    agent: int
    request_id: str
    digest: bytes  #: of type and payload
    attempt: int
    node_id: int
    epoch: int | None
    generation: int | None  #: where a config is asked for
    at: float  #: the agent's wall clock, seconds since 1970; for people


@dataclass(frozen=True, slots=True)
class Found:
    """How a request stands; ``outdated_by`` is a later generation of its node's config.

    With it, or where an interrupted run has a ``message`` (it was called off), only the effect that
    it made may still be told.
    """

    standing: Standing
    status: Status = "failed"
    message: str = ""
    outdated_by: int = 0


class Journal(Protocol):
    """The record of all agents."""

    def begin(self, asked: Asked, then: Callable[[Found | None], None]) -> None:
        """Enter a request, if it is to be carried out; ``then`` gets None if it could not be."""

    def finish(
        self,
        asked: Asked,
        attempt: int,
        status: Status,
        message: str,
        then: Callable[[bool | None], None],
    ) -> None:
        """Enter how a request ended; ``then`` gets None if that is not on record."""

    def cancel(
        self, agent: int, order: CancelRequest, then: Callable[[CancelState | None], None]
    ) -> None:
        """Let a request that does not run have no effect; ``then`` learns how it stands."""

    def raise_epoch(
        self, agent: int, node_id: int, epoch: int, then: Callable[[bool | None], None]
    ) -> None:
        """Remember the highest epoch of a node."""

    def epochs(self, agent: int) -> dict[int, int]:
        """Return what an agent that lost its memory knows of its nodes' epochs."""

    def entries(self, agent: int) -> int:
        """Return how many requests of an agent are on record."""

    def bytes_on_disk(self) -> int:
        """Return how much room the whole record takes."""

    def close(self) -> None:
        """Write what waits, and end."""
