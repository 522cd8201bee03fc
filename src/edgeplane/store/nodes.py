"""Node rows and their sub-IPs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, delete, false, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from edgeplane.model.errors import AlreadyExists
from edgeplane.model.nodes import NewNode, Node, NodeStatus, NodeTransport, SubIP
from edgeplane.model.paging import Page, PageRequest, cut_page
from edgeplane.store import labels, node_health
from edgeplane.store.prepared import Prepared, moment
from edgeplane.store.rows import node_sub_ips, nodes
from edgeplane.store.workers import Tx

_N = nodes.c


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFilter:
    """Which nodes a list shows; None: all."""

    name: str | None = None  #: part of the name
    ip: str | None = None  #: part of the main IP or of a sub-IP
    status: NodeStatus | None = None
    enabled: bool | None = None
    transport: NodeTransport | None = None
    labels: tuple[tuple[str, str], ...] = ()  #: all of them


def add(tx: Tx, node: NewNode) -> int:
    """Insert a node; return its id.

    Raises:
        AlreadyExists: the name is taken.

    """
    values = {**_values(node), "created_at": tx.now, "updated_at": tx.now}
    try:
        key: Any = tx.conn.execute(insert(nodes).values(values)).inserted_primary_key
    except IntegrityError as error:
        raise AlreadyExists(f"name: a node named {node.name} already exists") from error
    _write_sub_ips(tx, int(key[0]), node.sub_ips)
    labels.write(tx, int(key[0]), node.labels)
    return int(key[0])


def change(tx: Tx, node_id: int, node: NewNode) -> None:
    """Write a node's fields and replace its sub-IPs and labels.

    Raises:
        AlreadyExists: the name is taken by another.

    """
    statement = update(nodes).where(_N.id == node_id)
    try:
        tx.conn.execute(statement.values({**_values(node), "updated_at": tx.now}))
    except IntegrityError as error:
        raise AlreadyExists(f"name: a node named {node.name} already exists") from error
    tx.conn.execute(delete(node_sub_ips).where(node_sub_ips.c.node_id == node_id))
    _write_sub_ips(tx, node_id, node.sub_ips)
    labels.write(tx, node_id, node.labels)


def remove(tx: Tx, node_ids: Sequence[int]) -> int:
    """Delete nodes with their sub-IPs and labels; return how many there were."""
    tx.conn.execute(delete(node_sub_ips).where(node_sub_ips.c.node_id.in_(node_ids)))
    labels.remove(tx, node_ids)
    return tx.conn.execute(delete(nodes).where(_N.id.in_(node_ids))).rowcount


def get(tx: Tx, node_id: int) -> Node | None:
    """Return a node, with its labels and health."""
    found = many(tx, [node_id]).get(node_id)
    return found and _whole(tx, [found])[0]


_MANY = Prepared(
    lambda items: (
        select(nodes, node_sub_ips.c.ip, node_sub_ips.c.enabled)
        .select_from(nodes.outerjoin(node_sub_ips, node_sub_ips.c.node_id == _N.id))
        .where(_N.id.in_(items.named("nodes")))
        .order_by(_N.id, node_sub_ips.c.position)
    )
)


def many(tx: Tx, node_ids: Iterable[int]) -> dict[int, Node]:
    """Return nodes by id, without their labels and health."""
    wanted = sorted(node_ids)
    found: dict[int, Any] = {}
    subs: dict[int, list[SubIP]] = {}
    for row in _MANY.rows(tx, nodes=wanted) if wanted else ():
        found[row[0]] = row
        if row[9] is not None:
            subs.setdefault(row[0], []).append(SubIP(ip=row[9], enabled=bool(row[10])))
    return {node_id: _node(row, tuple(subs.get(node_id, ()))) for node_id, row in found.items()}


#: What holds of a node that takes no tasks.
PAUSED = or_(_N.enabled.is_(False), _N.status == NodeStatus.MAINTENANCE.value)
_PAUSED = Prepared(lambda items: select(_N.id).where(_N.id.in_(items.named("nodes")), PAUSED))


def paused(tx: Tx, node_ids: Iterable[int]) -> set[int]:
    """Return those of these nodes that take no tasks."""
    return {row[0] for row in _PAUSED.rows(tx, nodes=sorted(node_ids))}


def list_page(tx: Tx, wanted: NodeFilter, asked: PageRequest) -> Page[Node]:
    """Return a page of nodes, newest first."""
    conditions = _conditions(wanted)
    older = [] if asked.before is None else [_N.id < asked.before]
    query = (
        select(nodes)
        .where(*conditions, *older)
        .order_by(_N.id.desc())
        .limit(asked.size + 1)
        .offset(asked.offset)
    )
    rows = tx.conn.execute(query).all()
    counted = select(func.count()).select_from(nodes).where(*conditions)
    found = _whole(tx, _with_sub_ips(tx, rows))
    return cut_page(found, [node.id for node in found], tx.conn.scalar(counted) or 0, asked)


def _conditions(wanted: NodeFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.name is not None:
        found.append(func.lower(_N.name).contains(wanted.name.lower(), autoescape=True))
    if wanted.ip is not None and not wanted.ip.isascii():
        found.append(false())  # no address is; MariaDB would refuse to compare
    elif wanted.ip is not None:
        part = wanted.ip.lower()
        subs = select(node_sub_ips.c.node_id).where(
            node_sub_ips.c.ip.contains(part, autoescape=True)
        )
        found.append(or_(_N.main_ip.contains(part, autoescape=True), _N.id.in_(subs)))
    if wanted.status is not None:
        found.append(_N.status == wanted.status.value)
    if wanted.enabled is not None:
        found.append(_N.enabled.is_(wanted.enabled))
    if wanted.transport is not None:
        found.append(_N.transport == wanted.transport.value)
    return found + labels.carried(wanted.labels)


def _with_sub_ips(tx: Tx, rows: Sequence[Any]) -> list[Node]:
    subs: dict[int, list[SubIP]] = {row.id: [] for row in rows}
    query = (
        select(node_sub_ips)
        .where(node_sub_ips.c.node_id.in_(sorted(subs)))
        .order_by(node_sub_ips.c.node_id, node_sub_ips.c.position)
    )
    for sub in tx.conn.execute(query) if subs else ():
        subs[sub.node_id].append(SubIP(ip=sub.ip, enabled=sub.enabled))
    return [_node(row, tuple(subs[row.id])) for row in rows]


def _whole(tx: Tx, found: Sequence[Node]) -> list[Node]:
    ids = [node.id for node in found]
    carried, known = labels.of_nodes(tx, ids), node_health.of_nodes(tx, ids)
    return [
        replace(
            node,
            labels=carried[node.id],
            last_seen_at=known[node.id].seen_at,
            last_health_error=known[node.id].last_error,
        )
        for node in found
    ]


def _write_sub_ips(tx: Tx, node_id: int, sub_ips: Sequence[SubIP]) -> None:
    if sub_ips:
        rows = [
            {"node_id": node_id, "position": position, "ip": sub.ip, "enabled": sub.enabled}
            for position, sub in enumerate(sub_ips)
        ]
        tx.conn.execute(insert(node_sub_ips), rows)


def _values(node: NewNode) -> dict[str, Any]:
    return {
        "name": node.name,
        "main_ip": node.main_ip,
        "agent_port": node.agent_port,
        "enabled": node.enabled,
        "status": node.status.value,
        "transport": node.transport.value,
    }


def _node(row: Sequence[Any], sub_ips: tuple[SubIP, ...]) -> Node:
    created_at, updated_at = moment(row[6]), moment(row[7])
    assert created_at is not None  # the columns are NOT NULL
    assert updated_at is not None
    return Node(
        id=row[0],
        name=row[1],
        main_ip=row[2],
        agent_port=row[3],
        enabled=bool(row[4]),
        status=NodeStatus(row[5]),
        sub_ips=sub_ips,
        created_at=created_at,
        updated_at=updated_at,
        transport=NodeTransport(row[8]),
    )
