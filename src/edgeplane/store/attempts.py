"""Attempt rows: append-only, every attempt that ended, who sent it, where to, and how it ended."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from edgeplane.model.paging import TOTAL_CAP, Page, PageRequest, cut_page
from edgeplane.model.tasks import Attempt, Outcome, Task, TaskStatus
from edgeplane.store.prepared import Prepared, written
from edgeplane.store.rows import node_mailboxes, task_attempts
from edgeplane.store.workers import Tx

_A = task_attempts.c
#: In the order of the table's columns.
_NEW = (
    "task_id",
    "number",
    "begun_at",
    "ended_at",
    "outcome",
    "message",
    "output",
    "replica",
    "address",
)
#: One that is on record stays as it is: only a hand in the tables can have made its number again.
_ADD = {
    "sqlite": Prepared(
        lambda items: (
            sqlite_insert(task_attempts)
            .values(items.rows(_NEW))
            .on_conflict_do_nothing(index_elements=["task_id", "number"])
        )
    ),
    "mysql": Prepared(
        lambda items: (
            mysql_insert(task_attempts)
            .values(items.rows(_NEW))
            .on_duplicate_key_update(number=_A.number)
        )
    ),
}


def add(tx: Tx, attempts: Sequence[Attempt]) -> None:
    """Append attempts that ended."""
    if attempts:
        words = "sqlite" if tx.dialect == "sqlite" else "mysql"
        _ADD[words].insert_rows(tx, [_row(attempt) for attempt in attempts])


def list_page(tx: Tx, task: Task, asked: PageRequest) -> Page[Attempt]:
    """Return a page of a task's attempts, newest first: first of all the one that is out now."""
    out = _out_now(tx, task)
    ahead = [] if out is None or not _in_reach(out, asked) else [out]
    here = ahead if asked.offset == 0 else []
    query = select(task_attempts).where(_A.task_id == task.id)
    if asked.before is not None:
        query = query.where(_A.number < asked.before)
    query = query.order_by(_A.number.desc())
    query = query.limit(asked.size + 1 - len(here)).offset(max(0, asked.offset - len(ahead)))
    found = [*here, *(_attempt(row) for row in tx.conn.execute(query))]
    counted = select(_A.number).where(_A.task_id == task.id).limit(TOTAL_CAP).subquery()
    total = (tx.conn.scalar(select(func.count()).select_from(counted)) or 0) + (out is not None)
    return cut_page(found, [each.number for each in found], min(total, TOTAL_CAP), asked)


def _out_now(tx: Tx, task: Task) -> Attempt | None:
    """Make the attempt that is out of the task's row: who holds its node has sent it."""
    if task.status is not TaskStatus.RUNNING or task.started_at is None:
        return None
    owner = select(node_mailboxes.c.owner).where(node_mailboxes.c.node_id == task.node_id)
    return Attempt(
        task_id=task.id,
        number=task.attempts,
        begun_at=task.started_at,
        ended_at=None,
        outcome=None,
        message=None,
        replica=tx.conn.scalar(owner),
    )


def _in_reach(attempt: Attempt, asked: PageRequest) -> bool:
    return asked.before is None or attempt.number < asked.before


def _row(attempt: Attempt) -> tuple[Any, ...]:
    """Return the values of ``_NEW``."""
    ended_at, outcome = attempt.ended_at, attempt.outcome
    return (
        attempt.task_id,
        attempt.number,
        written(attempt.begun_at),
        None if ended_at is None else written(ended_at),
        None if outcome is None else outcome.value,
        attempt.message,
        attempt.output,
        attempt.replica,
        attempt.address,
    )


def _attempt(row: Any) -> Attempt:
    return Attempt(
        task_id=row.task_id,
        number=row.number,
        begun_at=row.begun_at,
        ended_at=row.ended_at,
        outcome=Outcome(row.outcome),
        message=row.message,
        output=row.output,
        replica=row.replica,
        address=row.address,
    )
