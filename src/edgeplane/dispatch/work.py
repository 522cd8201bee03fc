"""What passes between the engine's loop and its turns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from edgeplane.model.nodes import Node
from edgeplane.model.retry import RetryPolicy
from edgeplane.model.tasks import MAX_OUTPUT_BYTES, Attempt, Outcome, Report, Task, bounded_text
from edgeplane.store.mailboxes import Lease, Mailbox


@dataclass(frozen=True, slots=True)
class Held:
    """A mailbox this engine holds, as it last saw it."""

    epoch: int
    work_seq: int
    in_flight: frozenset[tuple[int, int]]  #: the attempts (task, number) that are out
    requests: int | None = None  #: in how many requests; None: one for each


@dataclass(frozen=True, slots=True)
class Delivery:
    """An attempt that has begun: what to send, and where to."""

    task: Task
    payload: str
    node: Node
    epoch: int
    probe: bool = False  #: it finds out whether a node that was not reached is back


@dataclass(frozen=True, slots=True)
class Result:
    """What a delivery brought back; the attempt's number is the fence it may settle under."""

    delivery: Delivery
    report: Report

    @property
    def task(self) -> Task:
        """The task as its attempt began."""
        return self.delivery.task

    @property
    def fence(self) -> tuple[int, int]:
        """The task and the number of the attempt: only while that runs may it settle."""
        return (self.task.id, self.task.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What stays the same from turn to turn."""

    lease: Lease
    policy: RetryPolicy
    random: Random
    max_per_node: int  #: requests at once
    max_batch: int = 1  #: purges in one of them


@dataclass(slots=True, kw_only=True)
class Room:
    """What may still begin in this process; taken from as deliveries begin."""

    deliveries: int = 1 << 30
    payload_bytes: int = 1 << 40
    probes: int = 1 << 30  #: of the deliveries: nodes that are gone must not take all there is

    def fits(self, task: Task, *, probe: bool) -> bool:
        """Whether there is room for a delivery of this task."""
        return (
            self.deliveries > 0
            and self.payload_bytes >= task.payload_bytes
            and not (probe and self.probes <= 0)
        )

    def take(self, task: Task, *, probe: bool) -> None:
        """Give a delivery of this task its room."""
        self.deliveries -= 1
        self.payload_bytes -= task.payload_bytes
        self.probes -= probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one turn is to do."""

    results: Sequence[Result]
    held: Mapping[int, Held]  #: the mailboxes held that the turn may touch
    look_at: frozenset[int]  #: those of them with news
    renew: bool  #: extend all leases, and see whether others brought work
    claim: int  #: how many further mailboxes may be taken
    room: Room = field(default_factory=Room)
    draining: bool = False  #: only settle: nothing begins any more


@dataclass(slots=True)
class Turn:
    """What one turn did; nothing of it counts before the commit."""

    now: datetime
    begun: list[Delivery] = field(default_factory=list)
    settled: list[Task] = field(default_factory=list)
    moved: list[tuple[Task, Task]] = field(default_factory=list)  #: tasks, as they were and are
    held: dict[int, Mailbox] = field(default_factory=dict)  #: held on, or newly
    gone: set[int] = field(default_factory=set)  #: released, or lost to another owner
    next_due: datetime | None = None  #: of what was released
    look_again: dict[int, datetime | None] = field(default_factory=dict)  #: at nodes held on
    withdrawn: list[Delivery] = field(default_factory=list)  #: out, and cancelled since
    late: int = 0  #: results that came after somebody else had moved the task
    rescued: int = 0
    expired: int = 0  #: tasks whose deadline passed while they waited
    claimed: int = 0  #: mailboxes newly taken
    claim_seconds: float | None = None  #: what that took; None: nothing could be taken
    more: bool = False  #: as many were due as could be taken
    calls: bool = False  #: an operation calls for a step


@dataclass(frozen=True, slots=True)
class Reach:
    """What a turn's results say of a node: it answered, or (``probe``) was not reached."""

    probe: Task | None  #: the task whose delivery did not arrive, as it stands now


@dataclass(slots=True)
class Moves:
    """Tasks moved by the rules and attempts that ended, to be written together."""

    tasks: list[tuple[Task, Task]] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    def add(self, before: Task, after: Task) -> None:
        """Move a task."""
        self.tasks.append((before, after))

    def end(self, task: Task, report: Report, now: datetime, replica: str | None) -> None:
        """End a task's running attempt; ``replica`` is who had sent it, where that is known."""
        output = report.output
        self.attempts.append(
            Attempt(
                task_id=task.id,
                number=task.attempts,
                begun_at=task.started_at or now,
                ended_at=now,
                outcome=report.outcome,
                message=bounded_text(report.message),
                output=None if output is None else bounded_text(output, MAX_OUTPUT_BYTES),
                replica=replica,
                address=report.address,
            )
        )

    @property
    def lost(self) -> int:
        """How many attempts ended with their owner."""
        return sum(attempt.outcome is Outcome.LOST for attempt in self.attempts)
