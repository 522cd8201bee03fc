"""What the steps of operations look up: who steps, which nodes are left, which tasks are meant."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, delete, insert, select, update

from edgeplane.model.operations import Target
from edgeplane.model.tasks import TaskStatus
from edgeplane.store import labels
from edgeplane.store.mailboxes import Lease
from edgeplane.store.nodes import PAUSED
from edgeplane.store.prepared import Prepared
from edgeplane.store.rows import agent_tasks, nodes, operation_targets, operations
from edgeplane.store.workers import Tx

_O = operations.c
_T = agent_tasks.c
_A = operation_targets.c
_OF = _T.operation_id == bindparam("operation")
_CHUNK = 1000  #: ids in a statement

DUE = Prepared(
    lambda _: (
        select(_O.id, _O.epoch)
        .where(_O.next_at <= bindparam("now"))
        .order_by(_O.next_at, _O.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
)
_AIM = Prepared(
    lambda items: insert(operation_targets).values(items.rows(("operation_id", "node_id")))
)
#: In the order of nodes: a fan-out walks them once.
TARGETS = Prepared(
    lambda _: (
        select(_A.node_id)
        .where(_A.operation_id == bindparam("operation"))
        .order_by(_A.node_id)
        .limit(bindparam("most"))
    )
)
OPEN_NODES = Prepared(
    lambda _: (
        select(_T.node_id)
        .where(_OF, _T.node_id > bindparam("after"), _T.lane.is_not(None))
        .order_by(_T.node_id)
        .limit(bindparam("most"))
    )
)
FAILED = Prepared(
    lambda _: _in_status(TaskStatus.FAILED).where(_T.id > bindparam("after"), _T.lane.is_(None))
)
PENDING = Prepared(lambda _: _in_status(TaskStatus.PENDING))
WAITING = Prepared(lambda _: _in_status(TaskStatus.FAILED).where(_T.lane.is_not(None)))


def _in_status(status: TaskStatus) -> Select[Any]:
    return (
        select(_T.id, _T.node_id)
        .where(_OF, _T.status == status.value)
        .order_by(_T.id)
        .limit(bindparam("most"))
    )


def claim(tx: Tx, lease: Lease) -> tuple[int, int] | None:
    """Take the right to the next step of an operation that is due; return its id and epoch."""
    rows = DUE.rows(tx, {"now": tx.now})
    if not rows:
        return None
    operation_id, epoch = rows[0][0], rows[0][1] + 1
    until = tx.now + timedelta(seconds=lease.seconds)
    tx.conn.execute(
        update(operations)
        .where(_O.id == operation_id)
        .values(owner=lease.owner, epoch=epoch, next_at=until)
    )
    return operation_id, epoch


def release(tx: Tx, operation_id: int, epoch: int, *, again: bool) -> None:
    """Give the right back, if it is still ours; the operation is due again, or when it calls."""
    tx.conn.execute(
        update(operations)
        .where(_O.id == operation_id, _O.epoch == epoch)
        .values(owner=None, next_at=tx.now if again else None)
    )


def lifetime(tx: Tx, operation_id: int) -> float:
    """Return how many seconds an operation took that has ended, by the database's clock."""
    query = select(_O.created_at, _O.finished_at).where(_O.id == operation_id)
    created_at, finished_at = tx.conn.execute(query).one()
    return max(0.0, float((finished_at - created_at).total_seconds()))


def release_all(tx: Tx) -> None:
    """Let every operation that somebody steps with be due at once."""
    tx.conn.execute(
        update(operations).where(_O.owner.is_not(None)).values(owner=None, next_at=tx.now)
    )


def aimed_at(tx: Tx, target: Target) -> dict[int, bool]:
    """Return the nodes a target means, and whether each takes no tasks; unknown ids are not."""
    if target.node_ids is not None:
        wanted = sorted(target.node_ids)
        chunks = [wanted[at : at + _CHUNK] for at in range(0, len(wanted), _CHUNK)]
        meant: list[list[ColumnElement[bool]]] = [[nodes.c.id.in_(chunk)] for chunk in chunks]
    else:
        meant = [labels.carried((target.labels or {}).items())]
    found: dict[int, bool] = {}
    for conditions in meant:
        query = select(nodes.c.id, PAUSED.label("paused")).where(*conditions)
        found |= {node_id: bool(paused) for node_id, paused in tx.conn.execute(query)}
    return found


def add_targets(tx: Tx, operation_id: int, node_ids: Sequence[int]) -> None:
    """Keep the nodes an operation is aimed at, until their tasks are made."""
    _AIM.insert_rows(tx, [(operation_id, node_id) for node_id in node_ids])


def targets(tx: Tx, operation_id: int, most: int) -> list[int]:
    """Return the next nodes whose tasks are not made yet."""
    return [row[0] for row in TARGETS.rows(tx, {"operation": operation_id, "most": most})]


def drop_targets(tx: Tx, operation_id: int, last: int) -> None:
    """Forget the nodes up to one: their tasks are made in this transaction."""
    tx.conn.execute(
        delete(operation_targets).where(_A.operation_id == operation_id, _A.node_id <= last)
    )


def open_nodes(tx: Tx, operation_id: int, after: int, most: int) -> list[int]:
    """Return the next nodes at which a task of the operation is open."""
    given = {"operation": operation_id, "after": after, "most": most}
    return [row[0] for row in OPEN_NODES.rows(tx, given)]


def failed(tx: Tx, operation_id: int, after: int, most: int) -> dict[int, int]:
    """Return the next tasks that failed for good, with their nodes."""
    given = {"operation": operation_id, "after": after, "most": most}
    return dict(map(tuple, FAILED.rows(tx, given)))


def returnable(tx: Tx, operation_id: int, most: int) -> dict[int, int]:
    """Return tasks that have not begun, or wait to be tried again, with their nodes."""
    given = {"operation": operation_id, "most": most}
    found = dict(map(tuple, PENDING.rows(tx, given)))
    if len(found) < most:
        given["most"] = most - len(found)
        found |= dict(map(tuple, WAITING.rows(tx, given)))
    return found
