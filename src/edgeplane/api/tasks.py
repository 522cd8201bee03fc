"""Tasks: list, look at, create, retry."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from edgeplane import jsonbody
from edgeplane.api import parts
from edgeplane.api.documents import describe
from edgeplane.api.envelope import ok, ok_page
from edgeplane.api.parts import Operator, Paging, Parts, Reader
from edgeplane.auth.rbac import Permission, Principal, require
from edgeplane.model.clock import new_request_id, rfc3339
from edgeplane.model.errors import NotAllowed, NotFound
from edgeplane.model.paging import Page
from edgeplane.model.tasks import (
    DEFAULT_DEADLINE_SECONDS,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    DEFAULT_TIMEOUT_SECONDS,
    MAX_DEADLINE_SECONDS,
    MAX_MAX_ATTEMPTS,
    MAX_PAYLOAD_BYTES,
    MAX_PRIORITY,
    MAX_TIMEOUT_SECONDS,
    Attempt,
    NewTask,
    Task,
    TaskKind,
    TaskStatus,
    check_kind,
    check_payload,
    check_request_id,
)
from edgeplane.services import tasks as rules
from edgeplane.store import attempts, task_lists
from edgeplane.store import tasks as rows
from edgeplane.store.task_lists import TaskFilter
from edgeplane.store.workers import Tx
from edgeplane.wire import envelope, payload_digest

CREATE_PATH = "/api/v1/agent-tasks/create"

_MAX_ID = 2**63 - 1
_REQUEST_ID = {"pattern": "^[A-Za-z0-9._-]{1,64}$"}
_Object = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
_Kind = Literal["apply_config", "reload", "purge_cache"]
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
_Status = Literal["pending", "running", "success", "failed", "superseded", "cancelled"]


class CreateTask(Struct, rename="camel", forbid_unknown_fields=True):
    """A task asked for; ``payload`` is kept byte for byte."""

    node_id: Annotated[int, Meta(ge=1, le=_MAX_ID)]
    type: Annotated[str, Meta(extra_json_schema={"enum": list(TaskKind)})]
    payload: _Object | UnsetType = UNSET
    request_id: Annotated[str, Meta(extra_json_schema=_REQUEST_ID)] | None = None
    timeout_seconds: Annotated[int, Meta(ge=1, le=MAX_TIMEOUT_SECONDS)] = DEFAULT_TIMEOUT_SECONDS
    max_attempts: Annotated[int, Meta(ge=1, le=MAX_MAX_ATTEMPTS)] = DEFAULT_MAX_ATTEMPTS
    deadline_seconds: Annotated[int, Meta(ge=1, le=MAX_DEADLINE_SECONDS)] = DEFAULT_DEADLINE_SECONDS
    priority: Annotated[int, Meta(ge=0, le=MAX_PRIORITY)] = DEFAULT_PRIORITY


class TaskId(Struct, forbid_unknown_fields=True):
    """Which task to retry or to cancel."""

    id: Annotated[int, Meta(ge=1, le=_MAX_ID)]


class TaskView(Struct, rename="camel"):
    """A task. In lists, ``payload`` is null where it is larger than 16 KiB."""

    id: int
    node_id: int
    type: _Kind
    payload: _Object | None
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


router = APIRouter(prefix="/agent-tasks", dependencies=[Depends(parts.known_query)])
_create_decoder = msgspec.json.Decoder(CreateTask)
_id_body = parts.body_of(msgspec.json.Decoder(TaskId))


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
    )


def read_new(body: bytes, created_by: str) -> NewTask:
    """Read a task asked for.

    Raises:
        Invalid, Missing, NotAllowed: naming the field and what is wrong with it.

    """
    asked = jsonbody.decode(_create_decoder, body)
    kind = check_kind(asked.type)
    payload = b"{}" if isinstance(asked.payload, UnsetType) else bytes(asked.payload)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise NotAllowed(f"payload: at most {MAX_PAYLOAD_BYTES} bytes")
    check_payload(kind, jsonbody.read_object(payload, "payload"))
    given = asked.request_id is not None
    return NewTask(
        node_id=asked.node_id,
        kind=kind,
        priority=asked.priority,
        payload=payload.decode(),
        payload_bytes=len(payload),
        payload_digest=payload_digest(kind.value, payload),
        request_id=check_request_id(asked.request_id or "") if given else new_request_id(),
        request_id_given=given,
        timeout_seconds=asked.timeout_seconds,
        max_attempts=asked.max_attempts,
        deadline_seconds=asked.deadline_seconds,
        created_by=created_by,
    )


async def create_hot(joined: Parts, authorization: str | None, body: bytes) -> bytes:
    """Create a task: the hot route, called by the door without the framework between."""
    principal = await joined.sessions.principal(authorization)
    return await _create(joined, principal, body)


async def _create(joined: Parts, principal: Principal, body: bytes) -> bytes:
    require(principal, Permission.OPERATE)
    return envelope(view(await joined.intake.submit(read_new(body, principal.username))))


@router.get("", openapi_extra=describe(listed=TaskView, errors="400 401 403"))
async def list_tasks(
    request: Request,
    _principal: Reader,
    asked: Paging,
    node_id: Annotated[int | None, Query(alias="nodeId", ge=1, le=_MAX_ID)] = None,
    kind: Annotated[TaskKind | None, Query(alias="type")] = None,
    status: Annotated[TaskStatus | None, Query()] = None,
) -> Response:
    """List tasks, newest first."""
    wanted = TaskFilter(node_id=node_id, kind=kind, status=status)
    page = await parts.parts_of(request).database.read(
        lambda tx: task_lists.list_page(tx, wanted, asked)
    )
    return ok_page(page, view)


@router.get("/{task_id:id}", openapi_extra=describe(data=TaskView, errors="400 401 403 404"))
async def get_task(request: Request, _principal: Reader, task_id: str) -> Response:
    """Show a task."""
    wanted = parts.known_id(task_id, "task")
    task = await parts.parts_of(request).database.read(lambda tx: rows.get(tx, wanted))
    if task is None:
        raise NotFound(f"task {wanted} not found")
    return ok(view(task))


@router.get(
    "/{task_id:id}/attempts", openapi_extra=describe(listed=AttemptView, errors="400 401 403 404")
)
async def list_attempts(
    request: Request, _principal: Reader, asked: Paging, task_id: str
) -> Response:
    """List a task's attempts, newest first; the first may be out still."""
    wanted = parts.known_id(task_id, "task")

    def read(tx: Tx) -> Page[Attempt]:
        task = rows.get(tx, wanted)
        if task is None:
            raise NotFound(f"task {wanted} not found")
        return attempts.list_page(tx, task, asked)

    return ok_page(await parts.parts_of(request).database.read(read), _attempt_view)


@router.post(
    "/create",
    openapi_extra=describe(data=TaskView, body=CreateTask, errors="400 401 403 404 409 429"),
)
async def create_task(request: Request, principal: Operator) -> Response:
    """Create a task: it is stored when this answers, and on its way."""
    body = await _create(parts.parts_of(request), principal, await request.body())
    return Response(body, media_type="application/json; charset=utf-8")


@router.post(
    "/retry",
    openapi_extra=describe(data=TaskView, body=TaskId, errors="400 401 403 404 409"),
)
async def retry_task(
    request: Request, _principal: Operator, asked: Annotated[TaskId, Depends(_id_body)]
) -> Response:
    """Run a failed task now."""
    joined = parts.parts_of(request)
    task = await rules.retry(joined.database, asked.id)
    joined.tell([task.node_id])
    return ok(view(task))


@router.post(
    "/cancel",
    openapi_extra=describe(data=TaskView, body=TaskId, errors="400 401 403 404 409"),
)
async def cancel_task(
    request: Request, _principal: Operator, asked: Annotated[TaskId, Depends(_id_body)]
) -> Response:
    """Take a task back; one that runs ends when its attempt is back, and may still succeed."""
    joined = parts.parts_of(request)
    task = await rules.cancel(joined.database, asked.id)
    joined.tell([task.node_id])
    return ok(view(task))


def _attempt_view(attempt: Attempt) -> AttemptView:
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
