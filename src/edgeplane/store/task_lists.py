"""Lists of tasks, newest first, at the cost of a page whatever the history.

A list is a union of index ranges, one for each value of the columns that were not asked for; each
is already in the order of ids, so a page reads at most a page of every range. Three indexes serve
all filters, and a deep page by cursor costs what the first one costs. A deep page by number first
looks how far down it can reach at most, lest it read that many rows of every range.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, case, func, select, union_all

from edgeplane.model.paging import TOTAL_CAP, Page, PageRequest, cut_page
from edgeplane.model.tasks import Task, TaskKind, TaskStatus
from edgeplane.store import tasks
from edgeplane.store.prepared import Items, Prepared
from edgeplane.store.rows import LIST_INDEX, NODE_LIST_INDEX, OPERATION_LIST_INDEX, agent_tasks
from edgeplane.store.workers import Tx

#: A list leaves out payloads above this many bytes; the task itself always has its own.
LISTED_PAYLOAD_BYTES = 16 << 10
#: From so many rows down, a page by number looks first how far it reaches.
DEEP = 500

_T = agent_tasks.c
#: Where most rows are comes first: what is found there spares looking further elsewhere.
_KINDS = sorted(TaskKind, key=lambda kind: kind is not TaskKind.PURGE_CACHE)
_STATUSES = sorted(TaskStatus, key=lambda status: status is not TaskStatus.SUCCESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks a list shows; None: all."""

    node_id: int | None = None
    kind: TaskKind | None = None
    status: TaskStatus | None = None
    operation_id: int | None = None  #: with neither node nor kind: an operation has one kind


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a filter makes its statements: its ids are values of them."""

    of_node: bool
    of_operation: bool
    kind: TaskKind | None
    status: TaskStatus | None

    @property
    def whole(self) -> bool:
        """Whether nothing is left out: that is one range, of the ids themselves."""
        return not (self.of_node or self.of_operation or self.kind or self.status)

    @property
    def index(self) -> str:
        """The index its ranges are of."""
        if self.whole:
            return "PRIMARY"
        if self.of_operation:
            return str(OPERATION_LIST_INDEX.name)
        return str((NODE_LIST_INDEX if self.of_node else LIST_INDEX).name)

    def ranges(self) -> Iterator[list[ColumnElement[bool]]]:
        """Split it into index ranges, each already in the order of ids."""
        statuses = [self.status] if self.status or self.whole else _STATUSES
        for kind, status in product(self._kinds(), statuses):
            yield [*self._ids(), *_equal(kind, status)]

    def counted(self) -> Iterator[list[ColumnElement[bool]]]:
        """Split it into index ranges in any order: columns at the end of an index may stay open."""
        for kind in self._kinds() if self.status else [self.kind]:
            yield [*self._ids(), *_equal(kind, self.status)]

    def _kinds(self) -> Sequence[TaskKind | None]:
        return [self.kind] if self.kind or self.of_operation or self.whole else _KINDS

    def _ids(self) -> list[ColumnElement[bool]]:
        node = [_T.node_id == bindparam("node")] if self.of_node else []
        return [*node, *([_T.operation_id == bindparam("operation")] if self.of_operation else [])]


def _equal(kind: TaskKind | None, status: TaskStatus | None) -> list[ColumnElement[bool]]:
    of_kind = [_T.type == kind.value] if kind else []
    return [*of_kind, *([_T.status == status.value] if status else [])]


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements of the lists of one shape."""

    first: Prepared  #: ids from the newest on
    older: Prepared  #: from below an id on
    above: Prepared  #: down to an id
    reach: Sequence[Prepared]  #: of each range, how far down so many rows reach
    count: Sequence[Prepared]  #: of each range, its rows, up to so many


def list_page(tx: Tx, wanted: TaskFilter, asked: PageRequest) -> Page[Task]:
    """Return a page of tasks, newest first."""
    found = statements(shape_of(wanted))
    values = {"node": wanted.node_id, "operation": wanted.operation_id}
    total = _total(tx, found, values)
    ids = _ids(tx, found, values, asked, many=total == TOTAL_CAP)
    rows = LISTED.rows(tx, tasks=ids) if ids else []
    return cut_page([tasks.task_of(row) for row in rows], ids, total, asked)


def shape_of(wanted: TaskFilter) -> Shape:
    """Return what of a filter makes its statements."""
    of_operation = wanted.operation_id is not None
    return Shape(wanted.node_id is not None, of_operation, wanted.kind, wanted.status)


@lru_cache(maxsize=256)  # there are 63 shapes
def statements(shape: Shape) -> Statements:
    """Make the statements of a shape, once."""
    below, down_to = _T.id < bindparam("before"), _T.id >= bindparam("floor")
    return Statements(
        first=Prepared(lambda _: _page(shape)),
        older=Prepared(lambda _: _page(shape, below)),
        above=Prepared(lambda _: _page(shape, down_to)),
        reach=[_prepare(_reach(shape, within)) for within in shape.ranges()],
        count=[_prepare(_count(within)) for within in shape.counted()],
    )


def _prepare(query: Select[Any]) -> Prepared:
    return Prepared(lambda _: query)


def _page(shape: Shape, *further: ColumnElement[bool]) -> Select[Any]:
    """Select a page's ids and one more: no range is read further than the page reaches."""
    ranges = [_newest(shape, within, *further) for within in shape.ranges()]
    if len(ranges) == 1:
        return ranges[0].limit(bindparam("most")).offset(bindparam("skip"))
    parts = [each.limit(bindparam("depth")).subquery() for each in ranges]
    merged = union_all(*(select(part.c.id) for part in parts)).subquery()
    query = select(merged.c.id).order_by(merged.c.id.desc())
    return query.limit(bindparam("most")).offset(bindparam("skip"))


def _reach(shape: Shape, within: list[ColumnElement[bool]]) -> Select[Any]:
    """Select the id that so many rows of a range reach down to, if there are as many."""
    query = _newest(shape, within, _T.id > bindparam("floor"))
    return query.limit(1).offset(bindparam("skip"))


def _count(within: list[ColumnElement[bool]]) -> Select[Any]:
    """Count the rows of a range, up to so many and no further."""
    counted = select(_T.id).where(*within).limit(bindparam("most")).subquery()
    return select(func.count()).select_from(counted)


def _newest(
    shape: Shape, within: list[ColumnElement[bool]], *further: ColumnElement[bool]
) -> Select[Any]:
    """Select a range's ids, newest first.

    The index is forced: in a long history MariaDB would begin at the newest id rather than at the
    one that was asked for, and read millions of entries to get there.
    """
    query = select(_T.id).where(*within, *further).order_by(_T.id.desc())
    return query.with_hint(agent_tasks, f"FORCE INDEX ({shape.index})", "mysql")


def _listed(items: Items) -> Select[Any]:
    payload = case((_T.payload_bytes <= LISTED_PAYLOAD_BYTES, tasks.PAYLOAD)).label("payload")
    query = tasks.with_result(payload).where(_T.id.in_(items.named("tasks")))
    return query.order_by(_T.id.desc())


LISTED = Prepared(_listed)


def _ids(
    tx: Tx, found: Statements, values: dict[str, Any], asked: PageRequest, *, many: bool
) -> list[int]:
    depth = asked.offset + asked.size + 1
    values = {**values, "depth": depth, "most": asked.size + 1, "skip": asked.offset}
    if asked.before is not None:
        rows = found.older.rows(tx, {**values, "before": asked.before})
    elif many and asked.offset >= DEEP and len(found.reach) > 1:
        floor = _floor(tx, found, values, depth)
        rows = found.above.rows(tx, {**values, "floor": floor})
    else:
        rows = found.first.rows(tx, values)
    return [row[0] for row in rows]


def _floor(tx: Tx, found: Statements, values: dict[str, Any], depth: int) -> int:
    """Return an id that at least so many rows of a list are not older than; 0: all of them.

    Every range is followed no further than to what an earlier one has reached.
    """
    floor = 0
    for reach in found.reach:
        reached = reach.rows(tx, {**values, "floor": floor, "skip": depth - 1})
        floor = reached[0][0] if reached else floor
    return floor


def _total(tx: Tx, found: Statements, values: dict[str, Any]) -> int:
    """Count the rows of a list, up to the cap and no further."""
    total = 0
    for count in found.count:
        if total < TOTAL_CAP:
            ((more,),) = count.rows(tx, {**values, "most": TOTAL_CAP - total})
            total += more
    return total
