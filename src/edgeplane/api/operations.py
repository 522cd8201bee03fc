"""Operations: ask for work on many nodes, look how far it is, pause, resume, cancel, retry."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import Meta, Raw, Struct

from edgeplane.api import parts
from edgeplane.api.documents import describe
from edgeplane.api.envelope import ok, ok_page
from edgeplane.api.operation_bodies import CreateOperation, read_new
from edgeplane.api.parts import Operator, Paging, Reader
from edgeplane.api.task_views import Object, TaskView
from edgeplane.api.task_views import view as view_task
from edgeplane.model.clock import rfc3339
from edgeplane.model.errors import NotFound
from edgeplane.model.operations import Operation
from edgeplane.model.progress import OperationState
from edgeplane.model.tasks import TaskStatus
from edgeplane.services import operations as rules
from edgeplane.store import operations as rows
from edgeplane.store import task_lists
from edgeplane.store.database import Database
from edgeplane.store.task_lists import TaskFilter

_MAX_ID = 2**63 - 1
_Kind = Literal["apply_config", "reload", "purge_cache"]
_State = Literal["running", "paused", "stopping", "stopped", "cancelling", "cancelled", "done"]
_Change = Callable[[Database, int], Awaitable[Operation]]


class ChangeOperation(Struct, forbid_unknown_fields=True):
    """Which operation."""

    id: Annotated[int, Meta(ge=1, le=_MAX_ID)]


class CountsView(Struct, rename="camel"):
    """Where its nodes stand; ``unreachable`` ones are probed until they are back."""

    unsent: int
    skipped: int
    pending: int
    running: int
    waiting: int
    unreachable: int
    success: int
    failed: int
    superseded: int
    cancelled: int


class OperationView(Struct, rename="camel"):
    """An operation. In lists, ``payload`` and ``target`` are null where larger than 16 KiB."""

    id: int
    request_id: str
    type: _Kind
    payload: Object | None
    target: Object | None
    state: _State
    reason: str | None
    total: int
    counts: CountsView
    failures: int
    max_concurrency: int | str | None
    max_failures: int | str | None
    priority: int
    timeout_seconds: int
    max_attempts: int
    deadline_seconds: int
    created_by: str | None
    created_at: str
    finished_at: str | None
    updated_at: str


router = APIRouter(prefix="/operations", dependencies=[Depends(parts.known_query)])
_create_body = parts.body_of(msgspec.json.Decoder(CreateOperation))
_change_body = parts.body_of(msgspec.json.Decoder(ChangeOperation))
_Changed = Annotated[ChangeOperation, Depends(_change_body)]


def view(operation: Operation) -> OperationView:
    """Show an operation."""
    progress = operation.progress
    return OperationView(
        id=progress.id,
        request_id=operation.request_id,
        type=operation.kind.value,
        payload=_raw(operation.payload),
        target=_raw(operation.target),
        state=progress.state.value,
        reason=progress.reason,
        total=progress.total,
        counts=CountsView(**{name.value: number for name, number in progress.counts.items()}),
        failures=progress.failures,
        max_concurrency=_limit(operation.concurrency_limit),
        max_failures=_limit(operation.failure_limit),
        priority=operation.priority,
        timeout_seconds=operation.timeout_seconds,
        max_attempts=operation.max_attempts,
        deadline_seconds=operation.deadline_seconds,
        created_by=operation.created_by,
        created_at=rfc3339(operation.created_at),
        finished_at=_time(progress.finished_at),
        updated_at=rfc3339(operation.updated_at),
    )


@router.get("", openapi_extra=describe(listed=OperationView, errors="400 401 403"))
async def list_operations(
    request: Request,
    _principal: Reader,
    asked: Paging,
    state: Annotated[OperationState | None, Query()] = None,
) -> Response:
    """List operations, newest first."""
    database = parts.parts_of(request).database
    return ok_page(await database.read(lambda tx: rows.list_page(tx, state, asked)), view)


@router.get(
    "/{operation_id:id}", openapi_extra=describe(data=OperationView, errors="400 401 403 404")
)
async def get_operation(request: Request, _principal: Reader, operation_id: str) -> Response:
    """Show an operation; its counts are kept, not counted."""
    wanted = parts.known_id(operation_id, "operation")
    return ok(view(await _known(parts.parts_of(request).database, wanted)))


@router.get(
    "/{operation_id:id}/tasks", openapi_extra=describe(listed=TaskView, errors="400 401 403 404")
)
async def list_tasks(
    request: Request,
    _principal: Reader,
    operation_id: str,
    asked: Paging,
    status: Annotated[TaskStatus | None, Query()] = None,
) -> Response:
    """List an operation's tasks, newest first."""
    wanted = parts.known_id(operation_id, "operation")
    database = parts.parts_of(request).database
    await _known(database, wanted)
    which = TaskFilter(operation_id=wanted, status=status)
    page = await database.read(lambda tx: task_lists.list_page(tx, which, asked))
    return ok_page(page, view_task)


@router.post(
    "/create",
    openapi_extra=describe(data=OperationView, body=CreateOperation, errors="400 401 403 404 409"),
)
async def create_operation(
    request: Request,
    principal: Operator,
    asked: Annotated[CreateOperation, Depends(_create_body)],
) -> Response:
    """Ask for work on many nodes: it is stored when this answers, and on its way."""
    joined = parts.parts_of(request)
    operation = await rules.create(joined.database, read_new(asked, principal.username))
    joined.call()
    return ok(view(operation))


_CHANGED = describe(data=OperationView, body=ChangeOperation, errors="400 401 403 404 409")


@router.post("/pause", openapi_extra=_CHANGED)
async def pause_operation(request: Request, _principal: Operator, asked: _Changed) -> Response:
    """Let no further task of it begin; what is out may finish."""
    return await _change(request, asked, rules.pause)


@router.post("/resume", openapi_extra=_CHANGED)
async def resume_operation(request: Request, _principal: Operator, asked: _Changed) -> Response:
    """Let a paused operation go on."""
    return await _change(request, asked, rules.resume)


@router.post("/cancel", openapi_extra=_CHANGED)
async def cancel_operation(request: Request, principal: Operator, asked: _Changed) -> Response:
    """Take back what has not begun; what is out may finish."""
    name = principal.username
    return await _change(
        request, asked, lambda database, which: rules.cancel(database, which, name)
    )


@router.post("/retry-failed", openapi_extra=_CHANGED)
async def retry_failed(request: Request, _principal: Operator, asked: _Changed) -> Response:
    """Try again what has failed for good; a stopped operation goes on with the rest."""
    return await _change(request, asked, rules.retry_failed)


async def _change(request: Request, asked: ChangeOperation, rule: _Change) -> Response:
    joined = parts.parts_of(request)
    operation = await rule(joined.database, asked.id)
    joined.call()
    return ok(view(operation))


async def _known(database: Database, operation_id: int) -> Operation:
    operation = await database.read(lambda tx: rows.get(tx, operation_id))
    if operation is None:
        raise NotFound(f"operation {operation_id} not found")
    return operation


def _raw(text: str | None) -> Raw | None:
    return None if text is None else Raw(text.encode())


def _limit(written: str | None) -> int | str | None:
    return int(written) if written is not None and written.isdigit() else written


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
