"""Operation rows: what was asked for, how far it is, and who takes the next step.

Where an operation's nodes stand is counted in its row. The row is locked after mailboxes and tasks,
several in the order of ids: whoever moves tasks counts them last.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Select, bindparam, case, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from edgeplane.model import progress as rules
from edgeplane.model.events import EventType, type_of_change
from edgeplane.model.operations import NewOperation, Operation, resolve_limit
from edgeplane.model.paging import TOTAL_CAP, Page, PageRequest, cut_page
from edgeplane.model.progress import HELD, OperationState, Progress, Standing
from edgeplane.model.tasks import Task, TaskKind
from edgeplane.store import events
from edgeplane.store.prepared import Prepared, moment
from edgeplane.store.rows import STATE_INDEX, operations
from edgeplane.store.workers import Tx

#: A list leaves out payloads and targets above this many bytes.
LISTED_BYTES = 16 << 10

_O = operations.c
_STANDINGS = tuple(Standing)
_PROGRESS = (
    _O.id,
    _O.state,
    _O.reason,
    _O.failures,
    _O.max_concurrency,
    _O.max_failures,
    _O.waking,
    _O.retrying,
    _O.epoch,
    _O.work_seq,
    _O.finished_at,
    *(_O[standing.value] for standing in _STANDINGS),
)
_ASKED = (
    _O.request_id,
    _O.type,
    _O.priority,
    _O.timeout_seconds,
    _O.max_attempts,
    _O.deadline_seconds,
    _O.concurrency_limit,
    _O.failure_limit,
    _O.created_by,
    _O.created_at,
    _O.updated_at,
)


def add(tx: Tx, asked: NewOperation, counts: Mapping[Standing, int]) -> int | None:
    """Insert an operation, due at once; return its id, or None where its request id is taken."""
    nodes = counts[Standing.UNSENT]
    values = {
        "request_id": asked.request_id,
        "request_digest": asked.digest,
        "type": asked.kind.value,
        "payload": asked.payload,
        "payload_bytes": asked.payload_bytes,
        "payload_digest": asked.payload_digest,
        "target": asked.target,
        "priority": asked.priority,
        "timeout_seconds": asked.timeout_seconds,
        "max_attempts": asked.max_attempts,
        "deadline_seconds": asked.deadline_seconds,
        "concurrency_limit": asked.concurrency_limit,
        "failure_limit": asked.failure_limit,
        "max_concurrency": resolve_limit(asked.concurrency_limit, nodes),
        "max_failures": resolve_limit(asked.failure_limit, nodes),
        "state": OperationState.RUNNING.value,
        **{standing.value: counts.get(standing, 0) for standing in Standing},
        "failures": 0,
        "next_at": tx.now,
        "epoch": 0,
        "work_seq": 0,
        "created_by": asked.created_by,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    try:
        key: Any = tx.conn.execute(insert(operations).values(values)).inserted_primary_key
    except IntegrityError:
        return None  # of the statement alone: the transaction goes on
    operation_id = int(key[0])
    events.append_of_operation(tx, EventType.OP_CREATED.value, operation_id, OperationState.RUNNING)
    return operation_id


def by_request_id(tx: Tx, request_id: str) -> tuple[int, bytes] | None:
    """Return the id and the digest of the operation that carries this request id."""
    query = select(_O.id, _O.request_digest).where(_O.request_id == request_id)
    row = tx.conn.execute(query).one_or_none()
    return (row.id, bytes(row.request_digest)) if row else None


def get(tx: Tx, operation_id: int) -> Operation | None:
    """Return an operation, whole."""
    query = select(*_PROGRESS, *_ASKED, _O.payload, _O.target).where(_O.id == operation_id)
    row = tx.conn.execute(query).one_or_none()
    return _operation(row) if row else None


def for_tasks(tx: Tx, operation_id: int) -> tuple[int, bytes]:
    """Return what the tasks of an operation repeat of its payload: its length and digest."""
    query = select(_O.payload_bytes, _O.payload_digest).where(_O.id == operation_id)
    row = tx.conn.execute(query).one()
    return int(row[0]), bytes(row[1])


def list_page(tx: Tx, state: OperationState | None, asked: PageRequest) -> Page[Operation]:
    """Return a page of operations, newest first."""
    rows = tx.conn.execute(page_query(state, asked)).all()
    capped = select(_O.id).where(*_in_state(state)).limit(TOTAL_CAP)
    total = len(tx.conn.execute(capped).all())
    found = [_operation(row) for row in rows]
    return cut_page(found, [each.progress.id for each in found], total, asked)


def page_query(state: OperationState | None, asked: PageRequest) -> Select[Any]:
    """Select a page and one more, in the order of an index."""
    older = [] if asked.before is None else [_O.id < asked.before]
    payload = case((_O.payload_bytes <= LISTED_BYTES, _O.payload)).label("payload")
    # Forced, or in a long history MariaDB begins at the newest id, not at the one asked for.
    index = "PRIMARY" if state is None else STATE_INDEX.name
    return (
        select(*_PROGRESS, *_ASKED, payload, _O.target)
        .where(*_in_state(state), *older)
        .order_by(_O.id.desc())
        .limit(asked.size + 1)
        .offset(asked.offset)
        .with_hint(operations, f"FORCE INDEX ({index})", "mysql")
    )


def _in_state(state: OperationState | None) -> list[Any]:
    return [] if state is None else [_O.state == state.value]


_LOCK = Prepared(
    lambda items: (
        select(*_PROGRESS)
        .where(_O.id.in_(items.named("operations")))
        .order_by(_O.id)
        .with_for_update()
    )
)
_SEE = Prepared(lambda _: select(*_PROGRESS).where(_O.id == bindparam("operation")))
_HELD = Prepared(
    lambda items: select(_O.id).where(
        _O.id.in_(items.named("operations")),
        or_(*(_O.state == state.value for state in sorted(HELD))),
    )
)
_MOVABLE = (
    "state",
    "reason",
    "failures",
    "waking",
    "retrying",
    "work_seq",
    "finished_at",
    *(standing.value for standing in _STANDINGS),
)
_WRITE = Prepared(
    lambda _: (
        update(operations)
        .where(_O.id == bindparam("operation"))
        .values(
            updated_at=bindparam("now"),
            next_at=case((_O.owner.is_not(None), _O.next_at), else_=bindparam("due")),
            **{name: bindparam(f"v_{name}") for name in _MOVABLE},
        )
    )
)


def held(tx: Tx, operation_ids: Iterable[int]) -> frozenset[int]:
    """Return those of these operations whose tasks may not begin."""
    wanted = sorted(operation_ids)
    rows = _HELD.rows(tx, operations=wanted) if wanted else []
    return frozenset(row[0] for row in rows)


def see(tx: Tx, operation_id: int) -> Progress | None:
    """Return how far an operation is, without holding it."""
    rows = _SEE.rows(tx, {"operation": operation_id})
    return _progress(rows[0]) if rows else None


def lock(tx: Tx, operation_id: int) -> Progress | None:
    """Hold an operation until the transaction ends."""
    rows = _LOCK.rows(tx, operations=[operation_id])
    return _progress(rows[0]) if rows else None


def write(tx: Tx, before: Progress, after: Progress) -> None:
    """Write how far an operation is, and tell where it moved; it is held.

    One that nobody steps with is due as it calls.
    """
    values = {
        "state": after.state.value,
        "reason": after.reason,
        "failures": after.failures,
        "waking": after.waking,
        "retrying": after.retrying,
        "work_seq": after.work_seq + 1,
        "finished_at": after.finished_at,
        **{standing.value: after.counts[standing] for standing in _STANDINGS},
    }
    due = tx.now if rules.calls(before, after) else None
    _WRITE.change(
        tx,
        {
            "operation": after.id,
            "now": tx.now,
            "due": due,
            **{f"v_{name}": value for name, value in values.items()},
        },
    )
    if (kind := type_of_change(before, after)) is not None:
        events.append_of_operation(tx, kind, after.id, after.state)


def count_moves(tx: Tx, moves: Sequence[tuple[Task, Task]]) -> bool:
    """Count tasks that moved in their operations' rows; return whether one calls for a step.

    Args:
        tx: the transaction that moves them; it holds their mailboxes.
        moves: pairs of a task as it was and as it is; a task may have several, one after the other.

    """
    of_operation: dict[int, list[tuple[Task, Task]]] = {}
    for move in moves:
        if move[0].operation_id is not None:
            of_operation.setdefault(move[0].operation_id, []).append(move)
    if not of_operation:
        return False
    calls = False
    for row in _LOCK.rows(tx, operations=sorted(of_operation)):
        before = _progress(row)
        after, call = rules.counted(before, of_operation[before.id], tx.now)
        if call or after != before:
            write(tx, before, after)
            calls |= call or rules.calls(before, after)
    return calls


def _progress(row: Sequence[Any]) -> Progress:
    return Progress(
        id=row[0],
        state=OperationState(row[1]),
        reason=row[2],
        failures=row[3],
        max_concurrency=row[4],
        max_failures=row[5],
        waking=row[6],
        retrying=row[7],
        epoch=row[8],
        work_seq=row[9],
        finished_at=moment(row[10]),
        counts=dict(zip(_STANDINGS, row[11 : 11 + len(_STANDINGS)], strict=True)),
    )


def _operation(row: Any) -> Operation:
    return Operation(
        progress=_progress(row),
        request_id=row.request_id,
        kind=TaskKind(row.type),
        payload=row.payload,
        priority=row.priority,
        target=row.target if len(row.target) <= LISTED_BYTES else None,
        timeout_seconds=row.timeout_seconds,
        max_attempts=row.max_attempts,
        deadline_seconds=row.deadline_seconds,
        concurrency_limit=row.concurrency_limit,
        failure_limit=row.failure_limit,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
