"""Removing tasks whose time is over, with their attempts, without getting in anybody's way.

There is no index on ``finished_at``: every task would pay for it twice. Instead the tasks of one
type and status are walked by id, in the index of the lists. Ids are given in the order of creation,
and nothing finishes before it was created, so the walk ends where all of a step are too young to be
over: not at the first one, which a clock that was wrong for a while may have put before its time.
What is passed over (made long ago, finished lately) stays for a later sweep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, bindparam, delete, exists, select

from edgeplane.model.progress import FINAL
from edgeplane.model.tasks import TaskKind, TaskStatus
from edgeplane.store.prepared import Items, Prepared, moment
from edgeplane.store.rows import (
    LIST_INDEX,
    agent_tasks,
    operation_targets,
    operations,
    task_attempts,
)
from edgeplane.store.workers import Tx

MAX_ROWS = 500  #: tasks looked at, and removed, in one transaction
MAX_BYTES = 8 << 20  #: and of their payloads: a transaction of gigabytes would stop everybody

_T = agent_tasks.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The tasks of one type and status, and the time before which they must have finished."""

    kind: TaskKind
    status: TaskStatus
    before: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One step of a walk."""

    ids: list[int]  #: of tasks that are over
    last: int | None  #: the id the next step goes on from; None: this walk is at its end


def _step(_: Items) -> Select[tuple[int, datetime, datetime | None, str | None, int]]:
    return (
        select(_T.id, _T.created_at, _T.finished_at, _T.lane, _T.payload_bytes)
        .where(
            _T.type == bindparam("kind"),
            _T.status == bindparam("status"),
            _T.id > bindparam("after"),
        )
        .order_by(_T.id)
        .limit(MAX_ROWS)
        .with_hint(agent_tasks, f"FORCE INDEX ({LIST_INDEX.name})", "mysql")
    )


STEP = Prepared(_step)
#: Whoever holds one of them (a retry) is about to move it: it is passed over, not waited for.
OVER = Prepared(
    lambda items: (
        select(_T.id)
        .where(
            _T.id.in_(items.named("tasks")),
            _T.status == bindparam("status"),
            _T.lane.is_(None),
            _T.finished_at < bindparam("before"),
        )
        .with_for_update(skip_locked=True)
    )
)
_DELETE_ATTEMPTS = Prepared(
    lambda items: delete(task_attempts).where(task_attempts.c.task_id.in_(items.named("tasks")))
)
_DELETE = Prepared(lambda items: delete(agent_tasks).where(_T.id.in_(items.named("tasks"))))


def look(tx: Tx, walk: Walk, after: int) -> Found:
    """Look at the next tasks of a walk, those with ids above ``after``."""
    values = {"kind": walk.kind.value, "status": walk.status.value, "after": after}
    rows = STEP.rows(tx, values)
    ids: list[int] = []
    size = old = 0
    for task_id, created, finished, lane, payload_bytes in rows:
        if _is_after(created, walk.before):
            continue
        old += 1
        if lane is None and finished is not None and not _is_after(finished, walk.before):
            size += payload_bytes
            if ids and size > MAX_BYTES:
                return Found(ids=ids, last=ids[-1])
            ids.append(task_id)
    more = old > 0 and len(rows) == MAX_ROWS
    return Found(ids=ids, last=rows[-1][0] if more else None)


def remove(tx: Tx, walk: Walk, ids: Sequence[int]) -> tuple[int, int]:
    """Remove those of these tasks that are still over; return how many tasks and attempts went."""
    values = {"status": walk.status.value, "before": walk.before}
    over = [row[0] for row in OVER.rows(tx, values, tasks=sorted(ids))] if ids else []
    if not over:
        return 0, 0
    attempts = _DELETE_ATTEMPTS.change(tx, tasks=over)
    return _DELETE.change(tx, tasks=over), attempts


def prune_operations(tx: Tx, before: datetime, limit: int) -> int:
    """Delete operations that ended before a time and have no tasks left; return how many."""
    of = operations.c
    query = (
        select(of.id)
        .where(
            of.state.in_([state.value for state in sorted(FINAL)]),
            of.finished_at < before,
            ~exists().where(_T.operation_id == of.id),
        )
        .order_by(of.id)
        .limit(limit)
    )
    over = list(tx.conn.scalars(query))
    if not over:
        return 0
    targets = operation_targets.c.operation_id.in_(over)
    tx.conn.execute(delete(operation_targets).where(targets))
    return tx.conn.execute(delete(operations).where(of.id.in_(over))).rowcount


def _is_after(time: object, limit: datetime) -> bool:
    found = moment(time)
    return found is None or found >= limit
