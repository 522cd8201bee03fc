"""Events: one line of what happened to a task, for whoever follows along."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from edgeplane.model.tasks import Outcome, Task, TaskStatus


class EventType(StrEnum):
    """What a move of a task is called where it is told."""

    CREATED = "created"
    BEGUN = "begun"  #: an attempt is out
    SUCCEEDED = "succeeded"
    WAITING = "waiting"  #: it failed, and is tried again by itself
    FAILED = "failed"  #: for good
    LOST = "lost"  #: whoever had sent it died; it is due again
    EXPIRED = "expired"
    RETRIED = "retried"  #: by a person
    SUPERSEDED = "superseded"  #: by a newer config of its node
    CANCELLED = "cancelled"  #: by a person


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """A row of ``events``: where a task stood after a move."""

    id: int
    at: datetime
    type: str
    task_id: int
    node_id: int
    status: str
    attempt: int


def type_of(before: Task, after: Task) -> str | None:
    """Name a move; None where nothing happened that is worth telling (only a time was put off).

    A status that has no word of its own here is told by its name.
    """
    if _place(before) == _place(after):
        return None
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


_NAMES = {TaskStatus.RUNNING: EventType.BEGUN.value, TaskStatus.SUCCESS: EventType.SUCCEEDED.value}


def _place(task: Task) -> tuple[TaskStatus, int, bool]:
    return task.status, task.attempts, task.final
