"""Nodes: registered, changed, taken out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeplane.model.errors import NotFound, WrongState
from edgeplane.model.nodes import NewNode, Node, NodeStatus, NodeTransport, SubIP
from edgeplane.store import mailboxes, node_health, nodes, presence, task_moves, tasks
from edgeplane.store.database import Database
from edgeplane.store.workers import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """What to change of a node; None: leave it."""

    name: str | None = None
    main_ip: str | None = None
    agent_port: int | None = None
    enabled: bool | None = None
    status: NodeStatus | None = None
    sub_ips: tuple[SubIP, ...] | None = None
    labels: Mapping[str, str] | None = None
    transport: NodeTransport | None = None


async def create(database: Database, asked: NewNode) -> Node:
    """Register a node with its mailbox and health; raise AlreadyExists where the name is taken."""
    return await database.write(lambda tx: _create(tx, asked))


async def update(database: Database, node_id: int, change: NodeChange) -> Node:
    """Change a node; its queue is looked at again at once.

    Raises:
        NotFound: no such node.
        AlreadyExists: the new name is taken.

    """
    return await database.write(lambda tx: _update(tx, node_id, change))


async def delete(database: Database, node_ids: Sequence[int]) -> int:
    """Delete nodes; those that are not there do not count.

    Raises:
        WrongState: one of them has unfinished tasks; then none is deleted.

    """
    return await database.write(lambda tx: _delete(tx, sorted(set(node_ids))))


def take_back(tx: Tx, node_ids: Iterable[int]) -> list[int]:
    """Have everything due at once that waits for nodes which are there again.

    Returns:
        Those of them that had not been reached: tell of them after the commit.

    """
    away = mailboxes.lock(tx, mailboxes.not_reached(tx, node_ids, tx.now))
    back = [node_id for node_id, box in away.items() if box.unreachable_since is not None]
    if back:
        task_moves.pull_forward(tx, back)
        mailboxes.note_reach(tx, back, reached=True)
        mailboxes.mark_work(tx, back)
    return back


def _create(tx: Tx, asked: NewNode) -> Node:
    node_id = nodes.add(tx, asked)
    mailboxes.add(tx, node_id)
    node_health.add(tx, node_id)
    return _there(tx, node_id)


def _update(tx: Tx, node_id: int, change: NodeChange) -> Node:
    mailboxes.lock(tx, [node_id])
    node_health.hold(tx, [node_id])  # whoever observes the node writes its status behind this
    old = nodes.get(tx, node_id)
    if old is None:
        raise NotFound(f"id: node {node_id} not found")
    new = NewNode(
        name=old.name if change.name is None else change.name,
        main_ip=old.main_ip if change.main_ip is None else change.main_ip,
        agent_port=old.agent_port if change.agent_port is None else change.agent_port,
        enabled=old.enabled if change.enabled is None else change.enabled,
        status=old.status if change.status is None else change.status,
        sub_ips=old.sub_ips if change.sub_ips is None else change.sub_ips,
        labels=old.labels if change.labels is None else change.labels,
        transport=old.transport if change.transport is None else change.transport,
    )
    nodes.change(tx, node_id, new)
    moved = _whereabouts(new) != _whereabouts(old)
    if moved:
        # Whoever was not reached was looked for somewhere else.
        task_moves.pull_forward(tx, [node_id])
        mailboxes.note_reach(tx, [node_id], reached=True)
    if new.transport is not old.transport:
        presence.forget(tx, node_id)
    mailboxes.mark_work(tx, [node_id])
    if moved or (new.enabled, new.status) != (old.enabled, old.status):
        node_health.ask_at_once(tx, node_id, anew=moved)
    return _there(tx, node_id)


def _whereabouts(node: Node | NewNode) -> tuple[object, ...]:
    return (node.main_ip, node.agent_port, node.sub_ips, node.transport)


def _delete(tx: Tx, node_ids: Sequence[int]) -> int:
    for node_id in mailboxes.lock(tx, node_ids):
        if tasks.has_open(tx, node_id):
            raise WrongState(
                f"ids: node {node_id} has unfinished tasks: delete it when they have ended, "
                "at their deadlineAt at the latest"
            )
    mailboxes.remove(tx, node_ids)
    node_health.remove(tx, node_ids)
    return nodes.remove(tx, node_ids)


def _there(tx: Tx, node_id: int) -> Node:
    node = nodes.get(tx, node_id)
    assert node is not None  # written in this transaction
    return node
