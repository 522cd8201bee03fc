"""The open tasks of nodes: what the engine looks at when it decides what begins."""

from collections.abc import Sequence
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, case, null, select, union_all

from edgeplane.model.tasks import Lane, Task
from edgeplane.store import tasks
from edgeplane.store.prepared import Items, Prepared
from edgeplane.store.rows import agent_tasks
from edgeplane.store.types import ByteLength
from edgeplane.store.workers import Tx

#: So many open tasks of a node are looked at per lane: a long queue costs what a short one costs.
OPEN_WINDOW = 64
#: Payloads up to this many bytes come along; larger ones are fetched for those that begin.
_SMALL_PAYLOAD = 4096
_CHUNK = 64  #: nodes per statement
#: Up to so many rows a plain range of the index serves; a chunk with more is read lane by lane.
_PLAIN = 512

_T = agent_tasks.c


def _small_payload() -> ColumnElement[Any]:
    small = ByteLength(_T.payload) <= bindparam("small", _SMALL_PAYLOAD)
    return case((small, _T.payload)).label("payload")


def _plain(items: Items) -> Select[Any]:
    """Select the open tasks of nodes: one range of the index for each node."""
    return (
        select(*tasks.FIELDS, _small_payload(), null().label("result"))
        .where(_T.node_id.in_(items.named("nodes")), _T.lane.is_not(None))
        .order_by(_T.node_id, _T.lane, _T.id)
        .limit(_PLAIN)
    )


def _windowed(items: Items) -> Select[Any]:
    """Select the oldest open tasks of pairs of node and lane: a short range of the index each."""
    parts = [
        select(_T.id)
        .where(_T.node_id == node, _T.lane == lane)
        .order_by(_T.id)
        .limit(OPEN_WINDOW)
        .subquery()
        for node, lane in zip(items.named("nodes"), items.named("lanes"), strict=True)
    ]
    ids = union_all(*(select(part.c.id) for part in parts)).subquery()
    return select(*tasks.FIELDS, _small_payload(), null().label("result")).join_from(
        ids, agent_tasks, _T.id == ids.c.id
    )


PLAIN = Prepared(_plain)
WINDOWED = Prepared(_windowed)


def open_of_nodes(tx: Tx, node_ids: Sequence[int]) -> dict[int, list[Task]]:
    """Return the oldest open tasks of each node, oldest first, at least ``OPEN_WINDOW`` a lane."""
    found: dict[int, dict[int, Task]] = {node_id: {} for node_id in node_ids}
    for start in range(0, len(node_ids), _CHUNK):
        for row in _rows(tx, node_ids[start : start + _CHUNK]):
            task = tasks.task_of(row)
            found[task.node_id][task.id] = task  # a list padded to its width names some twice
    return {
        node_id: sorted(open_ones.values(), key=lambda task: task.id)
        for node_id, open_ones in found.items()
    }


def _rows(tx: Tx, node_ids: Sequence[int]) -> list[Any]:
    rows = PLAIN.rows(tx, nodes=node_ids)
    if len(rows) < _PLAIN:
        return rows
    pairs = list(product(node_ids, Lane))
    return WINDOWED.rows(
        tx,
        nodes=[node_id for node_id, _ in pairs],
        lanes=[lane.value for _, lane in pairs],
    )
