"""What happened in a run, in order: written down by the tests, judged by ``kit.checker``.

Times are this machine's monotonic clock, in seconds. Everything is also appended to a file of
lines, so that a run that went wrong can be read afterwards.
"""

import json
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A client got its 200 for a create."""

    at: float
    request_id: str
    task_id: int
    node_id: int  #: the one the client named


@dataclass(frozen=True, slots=True, kw_only=True)
class Unheard:
    """A create without an id of the client's own was sent, and no answer came: it may be stored."""

    at: float
    node_id: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A client asked to cancel a task; it may end so, if it did not succeed before."""

    at: float
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTold:
    """A client got its 200 for a cancel: the task is ``cancelled``, or ends once it is back."""

    at: float
    request_id: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """A client asked to retry a task, or all that failed of an operation."""

    at: float
    request_id: str | None = None
    operation_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationAccepted:
    """A client got its 200 for an operation."""

    at: float
    request_id: str
    operation_id: int
    kind: str
    nodes: tuple[int, ...]
    max_concurrency: int | None = None
    max_failures: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationAsked:
    """A client asks to pause, to resume or to cancel an operation."""

    at: float
    wall: float  #: the same moment, in seconds since 1970, as the tables tell time
    operation_id: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTold:
    """And was answered; without this, it may have happened or not."""

    at: float
    wall: float
    asked: float  #: the wall time of its asking
    operation_id: int
    what: str
    done: bool = True  #: or refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A node was registered: what is asked of it is done by this agent, in this folder."""

    at: float
    node_id: int
    agent: str
    folder: str
    faulty: bool = False  #: it reports failures, or loses answers, by chance and again and again


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A task's file appeared, or was written again, under its own name in an agent's folder."""

    at: float
    request_id: str
    file: str
    #: Under which epoch its agent took it, when, and as which generation; None: it does not tell.
    epoch: int | None = None
    taken: float | None = None
    generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """A process was killed; with a ``Restarted`` later, nothing could go on without it."""

    at: float
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """It runs again."""

    at: float
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbed:
    """A process was frozen, and others are to go on without it."""

    at: float
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A task was first seen to be final."""

    at: float
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The tasks that were ``running`` at one moment, each with the state of its node's lease."""

    at: float
    running: tuple[tuple[int, float | None], ...]
    """Task id, and for how many seconds its lease has lapsed: negative while it lives, None where
    there is none: the mailbox has no time at all, or no owner and is not due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Who held which node under which epoch, at some moment between two of the wall clock."""

    at: float
    asked: float  #: seconds since 1970
    seen: float
    owners: tuple[tuple[int, str | None, int], ...]


Asked = (
    Accepted
    | Unheard
    | Withdrawn
    | CancelTold
    | Retried
    | OperationAccepted
    | OperationAsked
    | OperationTold
)
Event = Asked | Placed | Effect | Killed | Restarted | Disturbed | Ended | Sampled | Owned


class History:
    """Events in the order they were told; any thread may add one."""

    def __init__(self, file: Path | None = None) -> None:
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._file = file

    @property
    def events(self) -> list[Event]:
        """What has been told so far."""
        with self._lock:
            return list(self._events)

    @property
    def accepted(self) -> dict[str, int]:
        """Request ids that a client was answered for, and their tasks."""
        return {e.request_id: e.task_id for e in self.events if isinstance(e, Accepted)}

    def accept(self, request_id: str, task_id: int, node_id: int) -> None:
        """Note that a client got its answer."""
        now = time.monotonic()
        self.add(Accepted(at=now, request_id=request_id, task_id=task_id, node_id=node_id))

    def withdraw(self, request_id: str) -> None:
        """Note that a client asks to cancel a task."""
        self.add(Withdrawn(at=time.monotonic(), request_id=request_id))

    def place(self, node_id: int, agent: str, folder: Path, *, faulty: bool = False) -> None:
        """Note which agent a node is."""
        now = time.monotonic()
        self.add(Placed(at=now, node_id=node_id, agent=agent, folder=str(folder), faulty=faulty))

    def kill(self, who: str) -> None:
        """Note that a process is gone."""
        self.add(Killed(at=time.monotonic(), who=who))

    def restart(self, who: str) -> None:
        """Note that it is back."""
        self.add(Restarted(at=time.monotonic(), who=who))

    def disturb(self, who: str) -> None:
        """Note that a process is frozen."""
        self.add(Disturbed(at=time.monotonic(), who=who))

    def add(self, event: Event) -> None:
        """Append an event."""
        with self._lock:
            self._events.append(event)
            if self._file is not None:
                line = json.dumps({"event": type(event).__name__, **asdict(event)})
                with self._file.open("a") as out:
                    out.write(line + "\n")
