"""Task rows: insert, look up, and write back what the rules decided."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    func,
    null,
    or_,
    select,
)
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from edgeplane.model.events import EventType
from edgeplane.model.tasks import (
    NewTask,
    Outcome,
    Task,
    TaskKind,
    TaskStatus,
    lane_of,
    rank_of,
)
from edgeplane.store import events
from edgeplane.store.prepared import Prepared, moment, written
from edgeplane.store.rows import agent_tasks, operations, task_attempts
from edgeplane.store.workers import Tx

_T = agent_tasks.c
_A = task_attempts.c
_LAST_ATTEMPT = and_(_A.task_id == _T.id, _A.number == _T.attempts)
_RESULT = case((_T.status == TaskStatus.SUCCESS.value, _A.message)).label("result")
#: What every look at a task selects, in the order ``task_of`` reads; payload and result follow.
FIELDS = (
    _T.id,
    _T.node_id,
    _T.type,
    _T.status,
    _T.attempts,
    _T.counted_attempts,
    _T.run,
    _T.max_attempts,
    _T.timeout_seconds,
    _T.deadline_seconds,
    _T.deadline_at,
    _T.request_id,
    _T.outcome,
    _T.next_retry_at,
    _T.last_error,
    _T.created_by,
    _T.created_at,
    _T.started_at,
    _T.finished_at,
    _T.updated_at,
    _T.payload_bytes,
    _T.priority,
    _T.generation,
    _T.superseded_by,
    _T.cancel_requested,
    _T.operation_id,
)
#: A task's own, or that of its operation.
PAYLOAD = func.coalesce(_T.payload, operations.c.payload)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a request id stands for in the table."""

    task: Task
    payload_digest: bytes


def with_result(payload: ColumnElement[Any], *further: ColumnElement[Any]) -> Select[Any]:
    """Select tasks with a payload, what their last attempt brought, and further columns."""
    joined = agent_tasks.outerjoin(task_attempts, _LAST_ATTEMPT).outerjoin(
        operations, operations.c.id == _T.operation_id
    )
    return select(*FIELDS, payload, _RESULT, *further).select_from(joined)


#: In the order of the table's columns.
_NEW = (
    "node_id",
    "operation_id",
    "type",
    "payload",
    "payload_bytes",
    "payload_digest",
    "status",
    "lane",
    "lane_rank",
    "priority",
    "generation",
    "cancel_requested",
    "attempts",
    "counted_attempts",
    "run",
    "max_attempts",
    "timeout_seconds",
    "deadline_seconds",
    "deadline_at",
    "request_id",
    "created_by",
    "created_at",
    "updated_at",
)
_INSERT = {
    "sqlite": Prepared(
        lambda items: (
            sqlite_insert(agent_tasks)
            .values(items.rows(_NEW))
            .on_conflict_do_nothing(index_elements=["request_id"])
        )
    ),
    "mysql": Prepared(
        lambda items: (
            mysql_insert(agent_tasks)
            .values(items.rows(_NEW))
            .on_duplicate_key_update(request_id=_T.request_id)
        )
    ),
}
_BY_REQUEST_ID = Prepared(
    lambda items: with_result(PAYLOAD, _T.payload_digest).where(
        _T.request_id.in_(items.named("requests"))
    )
)
_IDS = Prepared(
    lambda items: select(_T.request_id, _T.id, _T.created_at).where(
        _T.request_id.in_(items.named("requests"))
    )
)
_GET = Prepared(lambda _: with_result(PAYLOAD).where(_T.id == bindparam("task")))
_MANY = Prepared(
    lambda items: (
        select(*FIELDS, null(), null()).where(_T.id.in_(items.named("tasks"))).order_by(_T.id)
    )
)
_PAYLOADS = Prepared(lambda items: select(_T.id, _T.payload).where(_T.id.in_(items.named("tasks"))))
_OPERATION_PAYLOADS = Prepared(
    lambda items: select(operations.c.id, operations.c.payload).where(
        operations.c.id.in_(items.named("operations"))
    )
)
_NEWER_CONFIG = Prepared(
    lambda _: (
        select(_T.id)
        .where(
            _T.node_id == bindparam("node"),
            _T.type == TaskKind.APPLY_CONFIG.value,
            _T.id > bindparam("task"),
            or_(_T.lane.is_not(None), _T.status == TaskStatus.SUCCESS.value),
        )
        .order_by(_T.id.desc())
        .limit(1)
    )
)
_HAS_OPEN = Prepared(
    lambda _: select(_T.id).where(_T.node_id == bindparam("node"), _T.lane.is_not(None)).limit(1)
)


def insert_new(
    tx: Tx, tasks: Sequence[NewTask], generations: Sequence[int | None]
) -> dict[str, Task]:
    """Insert tasks, due at once; return those that are there now under their request ids.

    Ids grow in the order given: it is the order in which a node's lane serves them. One whose
    request id exists already is passed over, and not returned.
    """
    numbered = list(zip(tasks, generations, strict=True))
    _INSERT[_upserts(tx)].insert_rows(tx, [_new_row(task, number, tx) for task, number in numbered])
    rows = _IDS.rows(tx, requests=[task.request_id for task in tasks])
    ids = {row[0]: row[1] for row in rows}
    # What was there before was told of by its own transaction, which began at another time (in the
    # same millisecond, at another replica: then its creation is told twice).
    mine = {row[0] for row in rows if moment(row[2]) == tx.now}
    made = {
        task.request_id: _fresh(task, ids[task.request_id], number, tx) for task, number in numbered
    }
    events.append(
        tx, [(EventType.CREATED.value, task) for name, task in made.items() if name in mine]
    )
    return made


def by_request_id(tx: Tx, request_ids: Iterable[str]) -> dict[str, Stored]:
    """Return the tasks that carry these request ids."""
    wanted = sorted(request_ids)
    rows = _BY_REQUEST_ID.rows(tx, requests=wanted) if wanted else []
    found = [(task_of(row), bytes(row[len(FIELDS) + 2])) for row in rows]
    return {task.request_id: Stored(task, digest) for task, digest in found}


def get(tx: Tx, task_id: int) -> Task | None:
    """Return a task, whole."""
    rows = _GET.rows(tx, {"task": task_id})
    return task_of(rows[0]) if rows else None


def many(tx: Tx, task_ids: Iterable[int]) -> list[Task]:
    """Return tasks in the order of their ids, without payload and result."""
    wanted = sorted(task_ids)
    return [task_of(row) for row in _MANY.rows(tx, tasks=wanted)] if wanted else []


def payloads(tx: Tx, asked: Sequence[Task]) -> dict[int, str]:
    """Return payloads by task id; that of an operation is read once."""
    shared = {task.operation_id for task in asked if task.operation_id is not None}
    own = [task.id for task in asked if task.operation_id is None]
    found = {row[0]: row[1] for row in _PAYLOADS.rows(tx, tasks=sorted(own))} if own else {}
    if shared:
        rows = _OPERATION_PAYLOADS.rows(tx, operations=sorted(shared))
        of_operation = {row[0]: row[1] for row in rows}
        found |= {task.id: of_operation[task.operation_id] for task in asked if task.operation_id}
    return found


def newer_config(tx: Tx, task: Task) -> int | None:
    """Return the newest config of a task's node that came after it and is open or has succeeded."""
    rows = _NEWER_CONFIG.rows(tx, {"node": task.node_id, "task": task.id})
    return rows[0][0] if rows else None


def has_open(tx: Tx, node_id: int) -> bool:
    """Whether a node has a task that is not final."""
    return bool(_HAS_OPEN.rows(tx, {"node": node_id}))


def _upserts(tx: Tx) -> str:
    """Name the dialect whose words for an insert that may find its row a database knows."""
    return "sqlite" if tx.dialect == "sqlite" else "mysql"


def _new_row(task: NewTask, generation: int | None, tx: Tx) -> tuple[Any, ...]:
    """Return the values of ``_NEW``."""
    now = written(tx.now)
    return (
        task.node_id,
        task.operation_id,
        task.kind.value,
        task.payload,
        task.payload_bytes,
        task.payload_digest,
        TaskStatus.PENDING.value,
        lane_of(task.kind).value,
        rank_of(task.kind, task.priority, tx.now),
        task.priority,
        generation,
        False,  # cancel_requested
        0,  # attempts
        0,  # counted_attempts
        1,  # run
        task.max_attempts,
        task.timeout_seconds,
        task.deadline_seconds,
        written(tx.now + timedelta(seconds=task.deadline_seconds)),
        task.request_id,
        task.created_by,
        now,  # created_at
        now,  # updated_at
    )


def _fresh(task: NewTask, task_id: int, generation: int | None, tx: Tx) -> Task:
    """Return a task as it was inserted, without reading it back."""
    return Task(
        id=task_id,
        node_id=task.node_id,
        kind=task.kind,
        priority=task.priority,
        generation=generation,
        superseded_by=None,
        cancel_requested=False,
        payload=task.payload,
        payload_bytes=task.payload_bytes,
        status=TaskStatus.PENDING,
        attempts=0,
        counted_attempts=0,
        run=1,
        max_attempts=task.max_attempts,
        timeout_seconds=task.timeout_seconds,
        deadline_seconds=task.deadline_seconds,
        deadline_at=tx.now + timedelta(seconds=task.deadline_seconds),
        request_id=task.request_id,
        outcome=None,
        next_retry_at=None,
        last_error=None,
        result=None,
        created_by=task.created_by,
        created_at=tx.now,
        started_at=None,
        finished_at=None,
        updated_at=tx.now,
        operation_id=task.operation_id,
    )


def task_of(row: Sequence[Any]) -> Task:
    """Make a task of a row: ``FIELDS``, payload, result."""
    return Task(
        id=row[0],
        node_id=row[1],
        kind=TaskKind(row[2]),
        status=TaskStatus(row[3]),
        attempts=row[4],
        counted_attempts=row[5],
        run=row[6],
        max_attempts=row[7],
        timeout_seconds=row[8],
        deadline_seconds=row[9],
        deadline_at=_time(row[10]),
        request_id=row[11],
        outcome=Outcome(row[12]) if row[12] else None,
        next_retry_at=moment(row[13]),
        last_error=row[14],
        created_by=row[15],
        created_at=_time(row[16]),
        started_at=moment(row[17]),
        finished_at=moment(row[18]),
        updated_at=_time(row[19]),
        payload_bytes=row[20],
        priority=row[21],
        generation=row[22],
        superseded_by=row[23],
        cancel_requested=bool(row[24]),
        operation_id=row[25],
        payload=row[26],
        result=row[27],
    )


def _time(value: Any) -> datetime:
    found = moment(value)
    assert found is not None  # the column is NOT NULL
    return found
