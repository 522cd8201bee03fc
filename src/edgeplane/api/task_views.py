"""How a task is shown, wherever one is."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from edgeplane.model.clock import rfc3339
from edgeplane.model.tasks import Attempt, Task

Object = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
_Kind = Literal["apply_config", "reload", "purge_cache"]
_Status = Literal["pending", "running", "success", "failed", "superseded", "cancelled"]


_Outcome = Literal[
    "succeeded",
    "failed",
    "refused",
    "busy",
    "unanswered",
    "unreachable",
    "lost",
    "expired",
]


class TaskView(Struct, rename="camel"):
    """A task. In lists, ``payload`` is null where it is larger than 16 KiB."""

    id: int
    node_id: int
    type: _Kind
    payload: Object | None
    status: _Status
    attempts: int
    max_attempts: int
    timeout_seconds: int
    deadline_at: str
    priority: int
    generation: int | None
    superseded_by: int | None
    cancel_requested: bool
    request_id: str
    next_retry_at: str | None
    last_error: str | None
    result: str | None
    created_by: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    updated_at: str
    operation_id: int | None


class AttemptView(Struct, rename="camel"):
    """One delivery. While it is out, ``endedAt``, ``outcome`` and ``message`` are null."""

    number: int
    begun_at: str
    ended_at: str | None
    outcome: _Outcome | None
    message: str | None
    output: str | None
    replica: str | None
    address: str | None


def view(task: Task) -> TaskView:
    """Show a task."""
    return TaskView(
        id=task.id,
        node_id=task.node_id,
        type=task.kind.value,
        payload=None if task.payload is None else Raw(task.payload.encode()),
        status=task.status.value,
        attempts=task.attempts,
        max_attempts=task.max_attempts,
        timeout_seconds=task.timeout_seconds,
        deadline_at=rfc3339(task.deadline_at),
        priority=task.priority,
        generation=task.generation,
        superseded_by=task.superseded_by,
        cancel_requested=task.cancel_requested,
        request_id=task.request_id,
        next_retry_at=_time(task.next_retry_at),
        last_error=task.last_error,
        result=task.result,
        created_by=task.created_by,
        created_at=rfc3339(task.created_at),
        started_at=_time(task.started_at),
        finished_at=_time(task.finished_at),
        updated_at=rfc3339(task.updated_at),
        operation_id=task.operation_id,
    )


def attempt_view(attempt: Attempt) -> AttemptView:
    """Show an attempt."""
    return AttemptView(
        number=attempt.number,
        begun_at=rfc3339(attempt.begun_at),
        ended_at=_time(attempt.ended_at),
        outcome=attempt.outcome.value if attempt.outcome else None,
        message=attempt.message,
        output=attempt.output,
        replica=attempt.replica,
        address=attempt.address,
    )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
