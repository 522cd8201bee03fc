"""Presence: which replicas run, and which of them an agent that connects out is connected to.

``via`` of a mailbox names the replica that holds its agent's connection; nobody else may claim it.
A replica that is not heard of any more loses all of them at once.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import bindparam, case, delete, insert, or_, select, update

from edgeplane.model.nodes import NodeTransport
from edgeplane.store import mailboxes, node_health, task_moves
from edgeplane.store.prepared import Prepared
from edgeplane.store.rows import node_mailboxes, nodes, replicas
from edgeplane.store.workers import Tx

_M = node_mailboxes.c
_R = replicas.c

_NAMED = Prepared(
    lambda items: select(nodes.c.id, nodes.c.name, nodes.c.transport).where(
        nodes.c.name.in_(items.named("names"))
    )
)
#: A lease of another replica ends: the agent has told by its coming that it is no longer there.
_ATTACH = Prepared(
    lambda items: (
        update(node_mailboxes)
        .where(_M.node_id.in_(items.named("nodes")))
        .values(
            via=bindparam("me"),
            next_at=case(
                (or_(_M.next_at.is_(None), _M.owner == bindparam("me")), _M.next_at),
                else_=bindparam("now"),
            ),
            owner=case((_M.owner == bindparam("me"), _M.owner), else_=None),
        )
    )
)
_DETACH = Prepared(
    lambda items: (
        update(node_mailboxes)
        .where(_M.node_id.in_(items.named("nodes")), _M.via == bindparam("me"))
        .values(via=None)
    )
)


_CONNECTED = Prepared(
    lambda items: select(_M.node_id).where(
        _M.node_id.in_(items.named("nodes")), _M.via.is_not(None)
    )
)


@dataclass(frozen=True, slots=True)
class Named:
    """A node, as an agent names it."""

    id: int
    transport: NodeTransport


def named(tx: Tx, names: Iterable[str]) -> dict[str, Named]:
    """Return the nodes of these names, by name as it is written there."""
    rows = _NAMED.rows(tx, names=sorted(names))
    return {row[1]: Named(row[0], NodeTransport(row[2])) for row in rows}


def attach(tx: Tx, node_ids: Collection[int], replica: str) -> None:
    """Note that the agents of these nodes are connected to a replica; what waits is due now."""
    if not node_ids:
        return
    boxes = mailboxes.lock(tx, node_ids)
    returned = sorted(n for n, box in boxes.items() if box.unreachable_since is not None)
    # On MySQL an assignment sees what those before it wrote: next_at stands before owner.
    _ATTACH.change(tx, {"me": replica, "now": tx.now}, nodes=sorted(boxes))
    task_moves.pull_forward(tx, returned)
    mailboxes.note_reach(tx, returned, reached=True)
    node_health.note_seen(tx, boxes)


def detach(tx: Tx, node_ids: Collection[int], replica: str) -> None:
    """Note that agents are no longer connected to a replica, where they are not to another.

    They were a moment ago: their nodes were seen now.
    """
    if node_ids:
        _DETACH.change(tx, {"me": replica}, nodes=sorted(node_ids))
        node_health.note_seen(tx, node_ids)


def connected(tx: Tx, node_ids: Sequence[int]) -> set[int]:
    """Return those of these nodes whose agent is connected to a replica."""
    if not node_ids:
        return set()
    return {row[0] for row in _CONNECTED.rows(tx, nodes=sorted(node_ids))}


def forget(tx: Tx, node_id: int) -> None:
    """Note that a node's agent is connected to nobody: it is to be called by push."""
    tx.conn.execute(update(node_mailboxes).where(_M.node_id == node_id).values(via=None))


def attached(tx: Tx, replica: str) -> set[int]:
    """Return the nodes whose agents are connected to a replica."""
    return set(tx.conn.scalars(select(_M.node_id).where(_M.via == replica)))


def beat(tx: Tx, replica: str) -> None:
    """Note that a replica runs."""
    known = tx.conn.execute(update(replicas).where(_R.id == replica).values(seen_at=tx.now))
    if not known.rowcount:
        tx.conn.execute(insert(replicas).values(id=replica, started_at=tx.now, seen_at=tx.now))


def bury(tx: Tx, silent_seconds: float) -> list[str]:
    """Forget replicas that have not been heard of for so long, and what was connected to them."""
    lost = _R.seen_at < tx.now - timedelta(seconds=silent_seconds)
    silent = list(tx.conn.scalars(select(_R.id).where(lost).order_by(_R.id).with_for_update()))
    for replica in silent:
        leave(tx, replica)
    return silent


def leave(tx: Tx, replica: str) -> None:
    """Forget a replica, and what was connected to it."""
    for part in _parts(sorted(attached(tx, replica))):
        mailboxes.lock(tx, part)
        detach(tx, part, replica)
    tx.conn.execute(delete(replicas).where(_R.id == replica))


def forget_all(tx: Tx) -> None:
    """Forget every replica: for the one process of an SQLite file, at its start."""
    tx.conn.execute(update(node_mailboxes).where(_M.via.is_not(None)).values(via=None))
    tx.conn.execute(delete(replicas))


def _parts(node_ids: Sequence[int], size: int = 1000) -> Iterable[Sequence[int]]:
    return (node_ids[start : start + size] for start in range(0, len(node_ids), size))
