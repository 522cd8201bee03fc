"""Tasks: list, look at, create, retry."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import UNSET, Meta, Struct, UnsetType

from edgeplane import jsonbody
from edgeplane.api import parts
from edgeplane.api.documents import describe
from edgeplane.api.envelope import ok, ok_page
from edgeplane.api.parts import Operator, Paging, Parts, Reader
from edgeplane.api.task_views import AttemptView, Object, TaskView, attempt_view, view
from edgeplane.auth.rbac import Permission, Principal, require
from edgeplane.model.clock import new_request_id
from edgeplane.model.errors import NotAllowed, NotFound
from edgeplane.model.operations import check_given_id
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
    TaskKind,
    TaskStatus,
    check_kind,
    check_payload,
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


class CreateTask(Struct, rename="camel", forbid_unknown_fields=True):
    """A task asked for; ``payload`` is kept byte for byte."""

    node_id: Annotated[int, Meta(ge=1, le=_MAX_ID)]
    type: Annotated[str, Meta(extra_json_schema={"enum": list(TaskKind)})]
    payload: Object | UnsetType = UNSET
    request_id: Annotated[str, Meta(extra_json_schema=_REQUEST_ID)] | None = None
    timeout_seconds: Annotated[int, Meta(ge=1, le=MAX_TIMEOUT_SECONDS)] = DEFAULT_TIMEOUT_SECONDS
    max_attempts: Annotated[int, Meta(ge=1, le=MAX_MAX_ATTEMPTS)] = DEFAULT_MAX_ATTEMPTS
    deadline_seconds: Annotated[int, Meta(ge=1, le=MAX_DEADLINE_SECONDS)] = DEFAULT_DEADLINE_SECONDS
    priority: Annotated[int, Meta(ge=0, le=MAX_PRIORITY)] = DEFAULT_PRIORITY


class TaskId(Struct, forbid_unknown_fields=True):
    """Which task to retry or to cancel."""

    id: Annotated[int, Meta(ge=1, le=_MAX_ID)]


router = APIRouter(prefix="/agent-tasks", dependencies=[Depends(parts.known_query)])
_create_decoder = msgspec.json.Decoder(CreateTask)
_id_body = parts.body_of(msgspec.json.Decoder(TaskId))


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
    return NewTask(
        node_id=asked.node_id,
        kind=kind,
        priority=asked.priority,
        payload=payload.decode(),
        payload_bytes=len(payload),
        payload_digest=payload_digest(kind.value, payload),
        request_id=_request_id(asked.request_id),
        request_id_given=asked.request_id is not None,
        timeout_seconds=asked.timeout_seconds,
        max_attempts=asked.max_attempts,
        deadline_seconds=asked.deadline_seconds,
        created_by=created_by,
    )


def _request_id(given: str | None) -> str:
    return new_request_id() if given is None else check_given_id(given)


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

    return ok_page(await parts.parts_of(request).database.read(read), attempt_view)


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
