"""Lists of tasks, newest first, at the cost of a page whatever the history.

A list is a union of index ranges, one for each value of the columns that were not asked for; each
is already in the order of ids, so a page reads at most a page of every range. Two indexes serve
all filters, and a deep page by cursor costs what the first one costs.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, select, union_all

from edgeplane.model.paging import TOTAL_CAP, Page, PageRequest, cut_page
from edgeplane.model.tasks import Task, TaskKind, TaskStatus
from edgeplane.store import tasks
from edgeplane.store.rows import agent_tasks
from edgeplane.store.workers import Tx

#: A list leaves out payloads above this many bytes; the task itself always has its own.
LISTED_PAYLOAD_BYTES = 16 << 10

_T = agent_tasks.c


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks a list shows; None: all."""

    node_id: int | None = None
    kind: TaskKind | None = None
    status: TaskStatus | None = None
    operation_id: int | None = None  #: with neither node nor kind: an operation has one kind


def list_page(tx: Tx, wanted: TaskFilter, asked: PageRequest) -> Page[Task]:
    """Return a page of tasks, newest first."""
    ids = list(tx.conn.scalars(ids_query(wanted, asked)))
    rows = tx.conn.execute(
        tasks.with_result(_listed_payload()).where(_T.id.in_(ids)).order_by(_T.id.desc())
    )
    total = tx.conn.scalar(total_query(wanted)) or 0
    return cut_page([tasks.task_of(row) for row in rows], ids, total, asked)


def ids_query(wanted: TaskFilter, asked: PageRequest) -> Select[Any]:
    """Select a page's ids and one more: no branch reads more of its index than the page."""
    depth = asked.offset + asked.size + 1
    older = [] if asked.before is None else [_T.id < asked.before]
    if wanted == TaskFilter():
        query: Any = select(_T.id).where(*older).order_by(_T.id.desc())
        return query.limit(asked.size + 1).offset(asked.offset)  # type: ignore[no-any-return]
    branches = [
        select(_T.id).where(*condition, *older).order_by(_T.id.desc()).limit(depth).subquery()
        for condition in _branches(wanted)
    ]
    merged = union_all(*(select(branch.c.id) for branch in branches)).subquery()
    query = select(merged.c.id).order_by(merged.c.id.desc())
    return query.limit(asked.size + 1).offset(asked.offset)  # type: ignore[no-any-return]


def total_query(wanted: TaskFilter) -> Select[Any]:
    """Count the rows of a list, up to the cap and no further."""
    if wanted == TaskFilter():
        counted: Any = select(_T.id).limit(TOTAL_CAP).subquery()
        return select(func.count()).select_from(counted)
    branches = [
        select(_T.id).where(*condition).limit(TOTAL_CAP).subquery()
        for condition in _branches(wanted)
    ]
    merged = union_all(*(select(branch.c.id) for branch in branches)).subquery()
    counted = select(merged.c.id).limit(TOTAL_CAP).subquery()
    return select(func.count()).select_from(counted)


def _branches(wanted: TaskFilter) -> list[list[ColumnElement[bool]]]:
    """Split a filter into index ranges, each already in the order of ids."""
    if wanted.operation_id is not None:
        of = _T.operation_id == wanted.operation_id
        statuses = [wanted.status] if wanted.status else list(TaskStatus)
        return [[of, _T.status == status.value] for status in statuses]
    kinds = [wanted.kind] if wanted.kind else list(TaskKind)
    statuses = [wanted.status] if wanted.status else list(TaskStatus)
    node = [] if wanted.node_id is None else [_T.node_id == wanted.node_id]
    return [
        [*node, _T.type == kind.value, _T.status == status.value]
        for kind, status in product(kinds, statuses)
    ]


def _listed_payload() -> ColumnElement[Any]:
    return case((_T.payload_bytes <= LISTED_PAYLOAD_BYTES, tasks.PAYLOAD)).label("payload")
