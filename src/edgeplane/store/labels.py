"""Labels of nodes: written with the node, read for people, and looked up to find nodes."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, delete, insert, select

from edgeplane.store.rows import node_labels, nodes
from edgeplane.store.workers import Tx

_L = node_labels.c


def write(tx: Tx, node_id: int, labels: Mapping[str, str]) -> None:
    """Replace a node's labels."""
    remove(tx, [node_id])
    if labels:
        rows = [
            {"node_id": node_id, "name": name, "value": value} for name, value in labels.items()
        ]
        tx.conn.execute(insert(node_labels), rows)


def remove(tx: Tx, node_ids: Sequence[int]) -> None:
    """Delete the labels of nodes."""
    tx.conn.execute(delete(node_labels).where(_L.node_id.in_(node_ids)))


def of_nodes(tx: Tx, node_ids: Iterable[int]) -> dict[int, dict[str, str]]:
    """Return the labels of each of these nodes, in the order of their keys."""
    found: dict[int, dict[str, str]] = {node_id: {} for node_id in sorted(node_ids)}
    query = select(node_labels).where(_L.node_id.in_(list(found))).order_by(_L.node_id, _L.name)
    for row in tx.conn.execute(query) if found else ():
        found[row.node_id][row.name] = row.value
    return found


def carried(labels: Iterable[tuple[str, str]]) -> list[ColumnElement[bool]]:
    """Return what holds of a node that carries all of these: for each a range of one index."""
    return [
        nodes.c.id.in_(select(_L.node_id).where(_L.name == name, _L.value == value))
        for name, value in labels
    ]
