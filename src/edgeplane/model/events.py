"""Events: one line of what happened to a task or an operation, for whoever follows along."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from edgeplane.model.progress import OperationState, Progress
from edgeplane.model.tasks import Outcome, Task, TaskStatus


class EventType(StrEnum):
    """What a move of a task, or (``op-…``) of an operation, is called where it is told."""

    CREATED = "created"
    BEGUN = "begun"  #: an attempt is out
    SUCCEEDED = "succeeded"
    WAITING = "waiting"  #: it failed, and is tried again by itself
    FAILED = "failed"  #: for good
    LOST = "lost"  #: whoever had sent it died; it is due again
    EXPIRED = "expired"
    RETRIED = "retried"  #: by a person
    SUPERSEDED = "superseded"  #: by a newer config of its node
    CANCELLING = "cancelling"  #: a person takes it back while an attempt is out
    CANCELLED = "cancelled"  #: by a person
    OP_CREATED = "op-created"
    OP_PAUSED = "op-paused"  #: by a person
    OP_RESUMED = "op-resumed"  #: by a person
    OP_RETRIED = "op-retried"  #: by a person: what failed of it, or one of its tasks
    OP_STOPPING = "op-stopping"  #: too many nodes failed
    OP_STOPPED = "op-stopped"
    OP_CANCELLING = "op-cancelling"  #: by a person
    OP_CANCELLED = "op-cancelled"
    OP_DONE = "op-done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A row of ``events``: where a task, or an operation, stood after a move."""

    id: int
    at: datetime
    type: str
    task_id: int | None  #: None, as the node is: it tells of an operation
    node_id: int | None
    operation_id: int | None  #: that of the task, if it has one
    status: str  #: of the task; or the operation's state
    attempt: int


def type_of(before: Task, after: Task) -> str | None:
    """Name a move; None where nothing happened that is worth telling (only a time was put off).

    A status that has no word of its own here is told by its name.
    """
    if _place(before) == _place(after):
        asked = after.cancel_requested and not before.cancel_requested
        return EventType.CANCELLING.value if asked else None
    if after.status is TaskStatus.PENDING:
        lost = before.status is TaskStatus.RUNNING
        return EventType.LOST.value if lost else EventType.RETRIED.value
    if after.status is TaskStatus.FAILED:
        if not after.final:
            return EventType.WAITING.value
        return (
            EventType.EXPIRED.value if after.outcome is Outcome.EXPIRED else EventType.FAILED.value
        )
    return _NAMES.get(after.status, after.status.value)


def type_of_change(before: Progress, after: Progress) -> str | None:
    """Name a move of an operation; None where only its counts have changed."""
    if before.state is after.state:
        asked_for = after.retrying == 0 and before.retrying != 0
        return EventType.OP_RETRIED.value if asked_for else None
    if after.state is OperationState.RUNNING:
        resumed = before.state is OperationState.PAUSED
        return EventType.OP_RESUMED.value if resumed else EventType.OP_RETRIED.value
    return EventType(f"op-{after.state.value}").value


_NAMES = {TaskStatus.RUNNING: EventType.BEGUN.value, TaskStatus.SUCCESS: EventType.SUCCEEDED.value}


def _place(task: Task) -> tuple[TaskStatus, int, bool]:
    return task.status, task.attempts, task.final
