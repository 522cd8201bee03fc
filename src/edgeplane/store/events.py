"""The events table: each move of a task or an operation, appended in its own transaction.

Ids and what a reader may rely on
---------------------------------

An id is given out when a row is inserted and seen when its transaction is committed. SQLite has one
writer, so ids are seen in order and without holes. MariaDB has several: a reader may see 101 while
100 is not committed yet. A reader that went on behind 101 would never see 100. So the rule is:

    **A reader passes an id only when that id has been read, or can never be.**

A reader takes what stands before the first hole, and waits there. A hole lets it pass when it has
been there for ``GRACE_SECONDS`` *and* a dirty read (READ UNCOMMITTED), made after the holes were
seen, finds no row in it: that read sees a row that is written and not committed, and not one that
was rolled back. The time allows for a statement that was given its ids and has not written all its
rows yet. So every reader sees every event, each once and in the order of ids, and a position is one
number, good at any replica.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select

from edgeplane.model.events import Event, type_of
from edgeplane.model.progress import OperationState
from edgeplane.model.tasks import Task
from edgeplane.store.prepared import Prepared, moment, written
from edgeplane.store.rows import events
from edgeplane.store.workers import Tx

#: How long a statement may take between being given its ids and having written its rows.
GRACE_SECONDS = 2.0
#: A hole before an event so much older than the database's time has nothing in it any more.
SETTLED_SECONDS = 60.0
#: So many ids are looked at in one step, however many there are.
WINDOW = 2000
#: Instead of a task or a node: these columns are older than events of operations, and NOT NULL.
_NONE = 0

_E = events.c
_COLUMNS = (_E.id, _E.at, _E.type, _E.task_id, _E.node_id, _E.status, _E.attempt, _E.operation_id)
#: In the order of the table's columns.
_NEW = ("at", "type", "task_id", "node_id", "status", "attempt", "operation_id")
_INSERT = Prepared(lambda items: insert(events).values(items.rows(_NEW)))
_BEHIND = Prepared(
    lambda _: (
        select(*_COLUMNS).where(_E.id > bindparam("last")).order_by(_E.id).limit(bindparam("most"))
    )
)
_NEWEST = Prepared(lambda _: select(*_COLUMNS).order_by(_E.id.desc()).limit(bindparam("most")))
_IDS = Prepared(
    lambda _: select(_E.id).where(_E.id > bindparam("last"), _E.id <= bindparam("until"))
)
_OLDEST = Prepared(lambda _: select(_E.id, _E.at).order_by(_E.id).limit(bindparam("most")))
_DELETE = Prepared(lambda _: delete(events).where(_E.id <= bindparam("last")))
_BOUNDS = Prepared(lambda _: select(func.min(_E.id), func.max(_E.id)))


#: What to tell: the event's type, and the task as it stands now.
Told = tuple[str, Task]


def told(moves: Iterable[tuple[Task, Task]]) -> list[Told]:
    """Name the moves (from, to) that are worth telling."""
    named = [(type_of(before, after), after) for before, after in moves]
    return [(kind, after) for kind, after in named if kind is not None]


def append(tx: Tx, what: Sequence[Told]) -> None:
    """Tell of moves that were made in this transaction."""
    if what:
        at = written(tx.now)
        rows = [
            (
                *(at, kind, task.id, task.node_id),
                *(task.status.value, task.attempts, task.operation_id),
            )
            for kind, task in what
        ]
        _INSERT.insert_rows(tx, rows)


def append_of_operation(tx: Tx, kind: str, operation_id: int, state: OperationState) -> None:
    """Tell that an operation moved in this transaction; it is of no task and no node."""
    _INSERT.insert_rows(tx, [(written(tx.now), kind, _NONE, _NONE, state.value, 0, operation_id)])


def behind(tx: Tx, last: int, limit: int = WINDOW) -> list[Event]:
    """Return the events behind an id that are committed, oldest first."""
    return [_event(row) for row in _BEHIND.rows(tx, {"last": last, "most": limit})]


def newest(tx: Tx, limit: int = WINDOW) -> list[Event]:
    """Return the newest events, oldest first."""
    return [_event(row) for row in reversed(_NEWEST.rows(tx, {"most": limit}))]


def ids_between(tx: Tx, last: int, until: int) -> set[int]:
    """Return the ids there are behind ``last`` and up to ``until``."""
    return {row[0] for row in _IDS.rows(tx, {"last": last, "until": until})}


def bounds(tx: Tx) -> tuple[int, int]:
    """Return the first and the last id there is; zeros where there is none."""
    first, last = _BOUNDS.rows(tx)[0]
    return first or 0, last or 0


def prune(tx: Tx, before: datetime, limit: int) -> int:
    """Delete up to ``limit`` of the oldest events that are older than a time; return how many.

    The newest one stays, so that a position can always be told from one that was never there.
    """
    rows = _OLDEST.rows(tx, {"most": limit + 1})
    old = 0
    for _, at in rows[:-1]:
        if (moment(at) or before) >= before:
            break
        old += 1
    return _DELETE.change(tx, {"last": rows[old - 1][0]}) if old else 0


@dataclass(slots=True)
class Holes:
    """The holes a reader stands before, each by the id that follows it, and since when."""

    since: dict[int, float] = field(default_factory=dict)  #: of this machine's monotonic clock

    def before_first(self, position: int, found: Sequence[Event], now: float) -> int:
        """Return how many events stand before the first hole; remember the holes."""
        noted: dict[int, float] = {}
        whole = len(found)
        for index, event in enumerate(found):
            if event.id != position + 1:
                whole = min(whole, index)
                noted[event.id] = self.since.get(event.id, now)
            position = event.id
        self.since = noted
        return whole

    def old(self, now: float) -> bool:
        """Whether one of them has been there long enough to be looked into."""
        return any(now - since >= GRACE_SECONDS for since in self.since.values())

    def passable(self, found: Sequence[Event], unseen: set[int], now: float) -> int:
        """Return how many events may be passed, after a dirty read that came later than they did.

        ``unseen``: the ids it found which are not among them.
        """
        first = min(unseen, default=None)
        for index, event in enumerate(found):
            young = now - self.since.get(event.id, now - GRACE_SECONDS) < GRACE_SECONDS
            if young or (first is not None and event.id > first):
                return index
        return len(found)


def start_of(recent: Sequence[Event], peeked: set[int], now: datetime) -> int:
    """Return where to begin to read so that nothing which is not committed yet is missed.

    Args:
        recent: the newest events, oldest first.
        peeked: the ids a later dirty read found among them and between them.
        now: the database's time; a hole before an old event has nothing in it any more.

    """
    unseen = min(peeked - {event.id for event in recent}, default=None)
    position = recent[0].id
    for event in recent[1:]:
        hole = event.id != position + 1
        if hole and ((now - event.at).total_seconds() < SETTLED_SECONDS or _is_in(unseen, event)):
            return position
        position = event.id
    return position


def _is_in(unseen: int | None, event: Event) -> bool:
    return unseen is not None and unseen < event.id


def _event(row: Sequence[Any]) -> Event:
    at = moment(row[1])
    assert at is not None  # the column is NOT NULL
    return Event(
        id=row[0],
        at=at,
        type=row[2],
        task_id=row[3] or None,
        node_id=row[4] or None,
        status=row[5],
        attempt=row[6],
        operation_id=row[7],
    )
