"""The open tasks of nodes: what the engine looks at when it decides what begins."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Exists,
    Select,
    bindparam,
    case,
    literal,
    null,
    or_,
    select,
    union,
)

from edgeplane.model.progress import HELD
from edgeplane.model.tasks import Lane, Task, TaskKind, TaskStatus
from edgeplane.store import tasks
from edgeplane.store.prepared import Items, Prepared
from edgeplane.store.rows import LANE_INDEX, agent_tasks, operations
from edgeplane.store.workers import Tx

log = logging.getLogger(__name__)

#: So many open tasks of a deep queue are looked at per lane: it costs what a short one costs.
OPEN_WINDOW = 64
#: A queue of so many is deep; so many rows are read at once.
DEEP = 512
#: Payloads up to this many bytes come along; larger ones are fetched for those that begin.
_SMALL_PAYLOAD = 4096
_CHUNK = 256  #: nodes per statement

_T = agent_tasks.c


@dataclass(slots=True)
class Queue:
    """What is open at a node, oldest first; all of it, or (``partial``) what may matter now."""

    tasks: list[Task] = field(default_factory=list)
    partial: bool = False
    unreadable: bool = False  #: a row says what this version does not understand


def _fields() -> tuple[Any, ...]:
    small = _T.payload_bytes <= bindparam("small", _SMALL_PAYLOAD)
    return (*tasks.FIELDS, case((small, _T.payload)).label("payload"), null().label("result"))


def _plain(items: Items) -> Select[Any]:
    """Select the open tasks of nodes: one range of the index for each node.

    The index is forced: of so many ranges MariaDB would only guess how little they hold.
    """
    return (
        select(*_fields())
        .where(_T.node_id.in_(items.named("nodes")), _T.lane.is_not(None))
        .order_by(_T.node_id, _T.lane, _T.lane_rank, _T.id)
        .limit(DEEP)
        .with_hint(agent_tasks, f"FORCE INDEX ({LANE_INDEX.name})", "mysql")
    )


def _windowed(_: Items) -> Select[Any]:
    """Select of one deep queue: what runs, the first of each lane, what is due or has expired."""
    now: ColumnElement[Any] = bindparam("now")
    node = _T.node_id == bindparam("node")
    waits, expired = _T.status != TaskStatus.RUNNING.value, _T.deadline_at <= now
    due = or_(_T.next_retry_at.is_(None), _T.next_retry_at <= now, expired)
    config, purge = _T.lane == Lane.CONFIG.value, _T.lane == Lane.PURGE.value
    running = select(_T.id).where(
        node,
        _T.type.in_([literal(kind.value) for kind in TaskKind]),
        _T.status == TaskStatus.RUNNING.value,
    )
    newest = (
        select(_T.id)
        .where(node, config, _T.type == TaskKind.APPLY_CONFIG.value)
        .order_by(_T.lane_rank.desc(), _T.id.desc())
        .limit(1)
    )
    # Held reloads let the lane past: however many there are, they must not fill the window.
    free = or_(_T.type != TaskKind.RELOAD.value, ~_held())
    parts = [running, newest, _first(node, config, free), _first(node, config, waits, expired)]
    parts.append(_first(node, purge, waits, due))
    ids = union(*(select(part.subquery().c.id) for part in parts)).subquery()
    return select(*_fields()).join_from(ids, agent_tasks, _T.id == ids.c.id)


def _held() -> Exists:
    """Tell whether a task's operation keeps it from beginning."""
    of_task = operations.c.id == _T.operation_id
    states = [operations.c.state == state.value for state in sorted(HELD)]
    return select(operations.c.id).where(of_task, or_(*states)).correlate(agent_tasks).exists()


def _first(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(_T.id).where(*conditions).order_by(_T.lane_rank, _T.id).limit(OPEN_WINDOW)


PLAIN = Prepared(_plain)
WINDOWED = Prepared(_windowed)


def open_of_nodes(tx: Tx, node_ids: Iterable[int]) -> dict[int, Queue]:
    """Return what is open at each of these nodes."""
    left = sorted(node_ids)
    found = {node_id: Queue() for node_id in left}
    while left:
        chunk = left[:_CHUNK]
        rows = PLAIN.rows(tx, nodes=chunk)
        if len(rows) < DEEP:
            _fill(found, rows)
            left = left[_CHUNK:]
            continue
        cut = rows[-1][1]  # of the last node there may be more; those before it are whole
        whole = [row for row in rows if row[1] != cut]
        _fill(found, whole)
        left = left[left.index(cut) :]
        if not whole:
            found[cut].partial = True
            _fill(found, WINDOWED.rows(tx, {"node": cut, "now": tx.now}))
            left = left[1:]
    return found


def _fill(found: dict[int, Queue], rows: Sequence[Any]) -> None:
    for row in rows:
        queue = found[row[1]]
        try:
            queue.tasks.append(tasks.task_of(row))
        except (ValueError, TypeError) as error:
            log.error("task %s at node %s cannot be read: %s", row[0], row[1], error)  # noqa: TRY400
            queue.unreadable = True
    for node_id in {row[1] for row in rows}:
        found[node_id].tasks.sort(key=lambda task: task.id)
