"""What waits, and for how long: looks that cost the same however long the history is."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, bindparam, select

from edgeplane.model.progress import FINAL, MOVING, OperationState
from edgeplane.model.tasks import Lane, TaskKind, TaskStatus, lane_of
from edgeplane.store import node_health
from edgeplane.store.prepared import Items, Prepared, moment
from edgeplane.store.rows import STATE_INDEX, agent_tasks, node_mailboxes, operations
from edgeplane.store.workers import Tx

#: So many of the lowest ids are looked at for the one that has waited longest. A task that was
#: retried long after it was made has a low id and a short wait: it must not hide the next ones.
LOOKED_AT = 64
#: So many operations in one state are counted at most.
MOST_OPERATIONS = 1000

_T = agent_tasks.c
_M = node_mailboxes.c
_O = operations.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """In seconds, by lane, 0 where there is none; and how many operations are under way."""

    pending: dict[Lane, float]
    in_flight: dict[Lane, float]
    due_mailbox: float
    due_probe: float
    nodes: dict[str, int]  #: not an age: how many, by status
    operations: dict[OperationState, int]  #: how many have not ended, by state
    standstill: float  #: no node of a running operation moved, longer than one attempt may take


def _lowest(_: Items) -> Select[tuple[datetime | None, datetime]]:
    """Select one range of the index of lists, in its order."""
    return (
        select(_T.started_at, _T.updated_at)
        .where(_T.type == bindparam("kind"), _T.status == bindparam("status"))
        .order_by(_T.id)
        .limit(LOOKED_AT)
    )


LOWEST = Prepared(_lowest)
OLDEST_DUE = Prepared(
    lambda _: select(_M.next_at).where(_M.next_at <= bindparam("now")).order_by(_M.next_at).limit(1)
)


#: One range of the index of lists.
IN_STATE = Prepared(
    lambda _: (
        select(_O.id).where(_O.state == bindparam("state")).order_by(_O.id).limit(MOST_OPERATIONS)
    )
)


#: The same range, with what tells whether one stands still.
RUNNING = Prepared(
    lambda _: (
        select(_O.updated_at, _O.timeout_seconds, *(_O[each.value] for each in MOVING))
        .where(_O.state == OperationState.RUNNING.value)
        .with_hint(operations, f"FORCE INDEX ({STATE_INDEX.name})", "mysql")
        .order_by(_O.id)
        .limit(MOST_OPERATIONS)
    )
)


def oldest(tx: Tx) -> Ages:
    """Look how long the oldest pending task, running attempt and due mailbox have been so.

    And how many operations have not ended, and how long one has stood still.
    """
    pending, in_flight = dict.fromkeys(Lane, 0.0), dict.fromkeys(Lane, 0.0)
    for kind in TaskKind:
        lane = lane_of(kind)
        # A pending task was last written when it became so: made, rescued or retried.
        pending[lane] = max(pending[lane], _longest(tx, kind, TaskStatus.PENDING, 1))
        in_flight[lane] = max(in_flight[lane], _longest(tx, kind, TaskStatus.RUNNING, 0))
    due = [row[0] for row in OLDEST_DUE.rows(tx, {"now": tx.now})]
    open_ones = [state for state in OperationState if state not in FINAL]
    return Ages(
        pending=pending,
        in_flight=in_flight,
        due_mailbox=_age(tx, due),
        due_probe=node_health.overdue_seconds(tx),
        nodes=node_health.counts(tx),
        operations={s: len(IN_STATE.rows(tx, {"state": s.value})) for s in open_ones},
        standstill=_standstill(tx),
    )


def _standstill(tx: Tx) -> float:
    """Look how long no node of a running operation has moved, beyond what an attempt may take.

    Of one whose nodes left are all unreachable none is expected to: they are probed.
    """
    longest = 0.0
    for changed_at, timeout, *moving in RUNNING.rows(tx):
        if any(moving):
            longest = max(longest, _age(tx, [changed_at]) - timeout)
    return longest


def _longest(tx: Tx, kind: TaskKind, status: TaskStatus, column: int) -> float:
    rows = LOWEST.rows(tx, {"kind": kind.value, "status": status.value})
    return _age(tx, [row[column] for row in rows])


def _age(tx: Tx, times: list[object]) -> float:
    since = [found for time in times if (found := moment(time)) is not None]
    return max(0.0, (tx.now - min(since)).total_seconds()) if since else 0.0
