"""What an operation is asked for with, and how it is read."""

import hashlib
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from edgeplane import jsonbody
from edgeplane.api.task_views import Object
from edgeplane.model.clock import new_request_id
from edgeplane.model.errors import Invalid, NotAllowed
from edgeplane.model.labels import check_labels
from edgeplane.model.operations import MAX_NODE_IDS, NewOperation, Target, check_limit
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
    TaskKind,
    check_kind,
    check_payload,
    check_request_id,
)
from edgeplane.wire import payload_digest

_MAX_ID = 2**63 - 1
_REQUEST_ID = {"pattern": "^[A-Za-z0-9._-]{1,64}$"}
_Id = Annotated[int, Meta(ge=1, le=_MAX_ID)]
_Limit = Annotated[
    int | str,
    Meta(
        extra_json_schema={
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 999_999},
                {"type": "string", "pattern": "^([1-9][0-9]?|100)%$"},
            ]
        }
    ),
]


class TargetBody(Struct, rename="camel", forbid_unknown_fields=True):
    """Which nodes: exactly one of ``nodeIds``, ``labels`` (all must match) and ``all``."""

    node_ids: Annotated[list[_Id], Meta(min_length=1, max_length=MAX_NODE_IDS)] | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    all: bool | UnsetType = UNSET


class CreateOperation(Struct, rename="camel", forbid_unknown_fields=True):
    """An operation asked for; limits are a number of nodes, or a part like ``"10%"``."""

    type: Annotated[str, Meta(extra_json_schema={"enum": list(TaskKind)})]
    target: TargetBody
    payload: Object | UnsetType = UNSET
    request_id: Annotated[str, Meta(extra_json_schema=_REQUEST_ID)] | None = None
    timeout_seconds: Annotated[int, Meta(ge=1, le=MAX_TIMEOUT_SECONDS)] = DEFAULT_TIMEOUT_SECONDS
    max_attempts: Annotated[int, Meta(ge=1, le=MAX_MAX_ATTEMPTS)] = DEFAULT_MAX_ATTEMPTS
    deadline_seconds: Annotated[int, Meta(ge=1, le=MAX_DEADLINE_SECONDS)] = DEFAULT_DEADLINE_SECONDS
    priority: Annotated[int, Meta(ge=0, le=MAX_PRIORITY)] = DEFAULT_PRIORITY
    max_concurrency: _Limit | None = None
    max_failures: _Limit | None = None


def read_new(asked: CreateOperation, created_by: str) -> NewOperation:
    """Read an operation asked for.

    Raises:
        Invalid, Missing, NotAllowed: naming the field and what is wrong with it.

    """
    kind = check_kind(asked.type)
    payload = b"{}" if isinstance(asked.payload, UnsetType) else bytes(asked.payload)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise NotAllowed(f"payload: at most {MAX_PAYLOAD_BYTES} bytes")
    check_payload(kind, jsonbody.read_object(payload, "payload"))
    aim, shown = _aim(asked.target)
    concurrency = _limit(asked.max_concurrency, "maxConcurrency")
    failures = _limit(asked.max_failures, "maxFailures")
    what = payload_digest(kind.value, payload)
    how = (asked.timeout_seconds, asked.max_attempts, asked.deadline_seconds, asked.priority)
    return NewOperation(
        request_id=_request_id(asked.request_id),
        digest=hashlib.sha256(
            what + shown + msgspec.json.encode((*how, concurrency, failures))
        ).digest(),
        kind=kind,
        payload=payload.decode(),
        payload_bytes=len(payload),
        payload_digest=what,
        aim=aim,
        target=shown.decode(),
        priority=asked.priority,
        timeout_seconds=asked.timeout_seconds,
        max_attempts=asked.max_attempts,
        deadline_seconds=asked.deadline_seconds,
        concurrency_limit=concurrency,
        failure_limit=failures,
        created_by=created_by,
    )


def _request_id(given: str | None) -> str:
    return new_request_id() if given is None else check_request_id(given)


def _limit(given: int | str | None, field: str) -> str | None:
    return None if given is None else check_limit(given, field)


def _aim(asked: TargetBody) -> tuple[Target, bytes]:
    """Return a target, and its one way of being written."""
    given = msgspec.structs.asdict(asked)
    named = [name for name, value in given.items() if not isinstance(value, UnsetType)]
    if len(named) != 1:
        raise Invalid("target: exactly one of nodeIds, labels and all is required")
    if not isinstance(asked.node_ids, UnsetType):
        ids = frozenset(asked.node_ids)
        return Target(node_ids=ids), msgspec.json.encode({"nodeIds": sorted(ids)})
    if not isinstance(asked.labels, UnsetType):
        if not asked.labels:
            raise NotAllowed("target.labels: at least one entry is required")
        labels = check_labels(asked.labels, "target.labels")
        return Target(labels=labels), msgspec.json.encode({"labels": labels})
    if asked.all is not True:
        raise NotAllowed("target.all: must be true")
    return Target(), msgspec.json.encode({"all": True})
