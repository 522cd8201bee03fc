"""Operations: one request of a person that fans out to many tasks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from edgeplane.model.errors import Invalid, NotAllowed
from edgeplane.model.progress import Progress
from edgeplane.model.tasks import TaskKind, check_request_id

MAX_NODE_IDS = 10_000

_LIMIT = re.compile(r"([1-9][0-9]{0,5})(%?)")
_DERIVED = re.compile(r"op[0-9]+-n[0-9]+")
_HUNDRED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which nodes an operation is for: these, those that carry all these labels, or (None) all."""

    node_ids: frozenset[int] | None = None
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOperation:
    """An operation as asked for; limits and target as they were written."""

    request_id: str
    digest: bytes  #: of all that was asked for: what the request id is bound to
    kind: TaskKind
    payload: str
    payload_bytes: int
    payload_digest: bytes
    aim: Target
    target: str  #: as it is shown
    priority: int
    timeout_seconds: int
    max_attempts: int
    deadline_seconds: int
    concurrency_limit: str | None
    failure_limit: str | None
    created_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A row of ``operations``; payload and target are None where a list leaves out a large one."""

    progress: Progress
    request_id: str
    kind: TaskKind
    payload: str | None
    target: str | None
    priority: int
    timeout_seconds: int
    max_attempts: int
    deadline_seconds: int
    concurrency_limit: str | None
    failure_limit: str | None
    created_by: str | None
    created_at: datetime
    updated_at: datetime


def task_request_id(operation_id: int, node_id: int) -> str:
    """Return the request id of an operation's task for a node."""
    return f"op{operation_id}-n{node_id}"


def check_given_id(request_id: str) -> str:
    """Return a request id a client gave for a task; raise Invalid for one an operation may need."""
    check_request_id(request_id)
    if _DERIVED.fullmatch(request_id):
        raise Invalid("requestId: the form op<number>-n<number> is kept for tasks of operations")
    return request_id


def check_limit(value: int | str, field: str) -> str:
    """Return a limit as written, ``5`` or ``"10%"``; raise Invalid or NotAllowed otherwise."""
    written = str(value)
    found = _LIMIT.fullmatch(written)
    if not found:
        raise Invalid(f'{field}: must be a whole number from 1 to 999999, or like "10%"')
    if found[2] and int(found[1]) > _HUNDRED:
        raise NotAllowed(f"{field}: at most 100%")
    return written


def resolve_limit(written: str | None, nodes: int) -> int | None:
    """Return a limit as a number; of a part of the nodes, rounded up."""
    if written is None:
        return None
    if written.endswith("%"):
        return -(-nodes * int(written[:-1]) // _HUNDRED)
    return int(written)
