"""What is observed of nodes: who is to be asked next, and what came of it, many in one statement.

Whoever observes nodes in its own way (a probe, a delivery, an agent that calls) reports here, by
``note_seen`` and ``note_failure``: they apply the rule of ``model.health`` and write the status.
Rows are locked in the order of keys, after mailboxes and tasks, before those of ``nodes``.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, literal, select, update

from edgeplane.model import health
from edgeplane.model.health import UNKNOWN, Health
from edgeplane.model.nodes import NodeStatus
from edgeplane.store.prepared import Prepared, moment
from edgeplane.store.rows import CHECK_INDEX, node_health, nodes
from edgeplane.store.workers import Tx

_H = node_health.c
_N = nodes.c

#: Nodes that are asked together part into so many groups, each with a next time of its own.
_GROUPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often nodes are asked; without one the next time stays what it is."""

    interval: float  #: seconds
    random: Random  #: spreads them


@dataclass(frozen=True, slots=True)
class Check:
    """A row that is held: when its node is to be asked next, and what is known of it."""

    at: datetime
    health: Health


@dataclass(frozen=True, slots=True)
class Taken:
    """A node that is to be asked."""

    fence: datetime  #: when it is due again: as long as its row says so, the answer is the newest
    failing: bool  #: its last answer was none, or no good one


_KNOWN = (_H.node_id, _H.check_at, _H.seen_at, _H.failures, _H.failing_since, _H.last_error)
_LOOK = Prepared(lambda items: select(*_KNOWN).where(_H.node_id.in_(items.named("nodes"))))
_LOCK = Prepared(
    lambda items: (
        select(*_KNOWN)
        .where(_H.node_id.in_(items.named("nodes")))
        .order_by(_H.node_id)
        .with_for_update()
    )
)
#: Nodes that are due, passing over those another replica takes; the index is forced as for the
#: mailboxes.
DUE = Prepared(
    lambda _: (
        select(_H.node_id, _H.failures)
        .where(_H.check_at <= bindparam("now"))
        .order_by(_H.check_at, _H.node_id)
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True)
        .with_hint(node_health, f"FORCE INDEX ({CHECK_INDEX.name})", "mysql")
    )
)
OLDEST_DUE = Prepared(
    lambda _: (
        select(_H.check_at)
        .where(_H.check_at <= bindparam("now"))
        .order_by(_H.check_at)
        .limit(bindparam("most"))
    )
)
_PUT_OFF = Prepared(
    lambda items: (
        update(node_health)
        .where(_H.node_id.in_(items.named("nodes")))
        .values(check_at=bindparam("next"))
    )
)
_SEEN = Prepared(
    lambda items: (
        update(node_health)
        .where(_H.node_id.in_(items.named("nodes")))
        .values(seen_at=bindparam("now"), failures=0, failing_since=None, last_error=None)
    )
)
_FAILED = Prepared(
    lambda _: (
        update(node_health)
        .where(_H.node_id == bindparam("node"))
        .values(
            failures=bindparam("number"),
            failing_since=bindparam("since"),
            last_error=bindparam("words"),
        )
    )
)


def add(tx: Tx, node_id: int) -> None:
    """Make the row of a new node: nothing is known of it, and it is asked at once."""
    tx.conn.execute(insert(node_health).values(node_id=node_id, check_at=tx.now, failures=0))


def fill(tx: Tx) -> int:
    """Make the rows that a release of before did not make; return how many."""
    without = _N.id.not_in(select(_H.node_id))
    if tx.conn.scalar(select(_N.id).where(without).limit(1)) is None:
        return 0
    missing = select(_N.id, literal(tx.now, _H.check_at.type), literal(0)).where(without)
    made = insert(node_health).from_select(["node_id", "check_at", "failures"], missing)
    for dialect, word in (("mysql", "IGNORE"), ("sqlite", "OR IGNORE")):
        made = made.prefix_with(word, dialect=dialect)  # another replica may be at it too
    return tx.conn.execute(made).rowcount


def remove(tx: Tx, node_ids: Sequence[int]) -> None:
    """Delete the rows of deleted nodes."""
    tx.conn.execute(delete(node_health).where(_H.node_id.in_(node_ids)))


def ask_at_once(tx: Tx, node_id: int, *, anew: bool) -> None:
    """Have a node asked at once; ``anew``: what failed was looked for somewhere else."""
    forgotten = {"failures": 0, "failing_since": None, "last_error": None} if anew else {}
    statement = update(node_health).where(_H.node_id == node_id)
    tx.conn.execute(statement.values(check_at=tx.now, **forgotten))


def of_nodes(tx: Tx, node_ids: Iterable[int]) -> dict[int, Health]:
    """Return what is known of each of these nodes."""
    wanted = sorted(node_ids)
    found = {row[0]: _health(row) for row in _LOOK.rows(tx, nodes=wanted)} if wanted else {}
    return {node_id: found.get(node_id, UNKNOWN) for node_id in wanted}


def counts(tx: Tx) -> dict[str, int]:
    """Return how many nodes there are by status; the disabled ones are counted apart."""
    query = select(_N.status, _N.enabled, func.count()).group_by(_N.status, _N.enabled)
    found = dict.fromkeys([*(status.value for status in NodeStatus), "disabled"], 0)
    for status, enabled, number in tx.conn.execute(query):
        found[status if enabled else "disabled"] += number
    return found


def overdue_seconds(tx: Tx) -> float:
    """Return for how long the node that is due longest has not been asked; 0: none is due."""
    rows = OLDEST_DUE.rows(tx, {"now": tx.now, "most": 1})
    since = moment(rows[0][0]) if rows else None
    return 0.0 if since is None else max(0.0, (tx.now - since).total_seconds())


def any_due(tx: Tx) -> bool:
    """Say whether some node is to be asked by now."""
    return bool(OLDEST_DUE.rows(tx, {"now": tx.now, "most": 1}))


def claim(tx: Tx, most: int, timing: Timing) -> dict[int, Taken]:
    """Take up to so many nodes that are due and that no other replica takes.

    Each is due again after an interval, whatever becomes of whoever took it.
    """
    due = {row[0]: row[1] > 0 for row in DUE.rows(tx, {"now": tx.now, "most": most})}
    again = _put_off(tx, sorted(due), UNKNOWN, timing)
    return {node_id: Taken(again[node_id], failing) for node_id, failing in due.items()}


def hold(tx: Tx, node_ids: Iterable[int]) -> dict[int, Check]:
    """Hold the rows of these nodes until the transaction ends."""
    wanted = sorted(node_ids)
    rows = _LOCK.rows(tx, nodes=wanted) if wanted else []
    return {row[0]: Check(_time(row[1]), _health(row)) for row in rows}


def note_seen(tx: Tx, node_ids: Collection[int], timing: Timing | None = None) -> None:
    """Write that these nodes gave a good answer: each is online.

    A person's maintenance stays. ``timing``: that counts as having asked them.
    """
    if not node_ids:
        return
    wanted = sorted(node_ids)
    _SEEN.change(tx, {"now": tx.now}, nodes=wanted)
    if timing is not None:
        _put_off(tx, wanted, UNKNOWN, timing)
    observe(tx, wanted, NodeStatus.ONLINE)


def note_failure(tx: Tx, failures: Mapping[int, str], timing: Timing | None = None) -> None:
    """Write that these nodes gave no good answer, and why: those that failed for long are offline.

    A person's maintenance stays. ``timing``: that counts as having asked them.
    """
    held = hold(tx, failures)
    after = {n: health.failed(check.health, failures[n], tx.now) for n, check in held.items()}
    news = [n for n in after if after[n] is not held[n].health]
    if news:
        _FAILED.change_many(tx, [_failure(node_id, after[node_id]) for node_id in news])
    if timing is not None:
        undecided = [n for n, known in after.items() if known.status is None]
        for node_id in undecided:
            _put_off(tx, [node_id], after[node_id], timing)
        _put_off(tx, sorted(after.keys() - set(undecided)), UNKNOWN, timing)
    down = [n for n, known in after.items() if known.status is NodeStatus.OFFLINE]
    observe(tx, down, NodeStatus.OFFLINE)


def observe(tx: Tx, node_ids: Collection[int], status: NodeStatus) -> None:
    """Write a status that was observed; a person's maintenance stays."""
    if node_ids:
        other = [status.value, NodeStatus.MAINTENANCE.value]
        tx.conn.execute(
            update(nodes)
            .where(_N.id.in_(sorted(node_ids)), _N.status.not_in(other))
            .values(status=status.value, updated_at=tx.now)
        )


def _put_off(tx: Tx, node_ids: Sequence[int], known: Health, timing: Timing) -> dict[int, datetime]:
    """Say when to ask these nodes next; return it."""
    mixed = timing.random.sample(list(node_ids), len(node_ids))
    found: dict[int, datetime] = {}
    for group in (sorted(mixed[first::_GROUPS]) for first in range(_GROUPS)):
        if group:
            due = health.next_check(known, tx.now, timing.interval, timing.random.random())
            _PUT_OFF.change(tx, {"next": due}, nodes=group)
            found.update(dict.fromkeys(group, due))
    return found


def _failure(node_id: int, known: Health) -> dict[str, Any]:
    return {
        "node": node_id,
        "number": known.failures,
        "since": known.failing_since,
        "words": known.last_error,
    }


def _health(row: Sequence[Any]) -> Health:
    return Health(
        seen_at=moment(row[2]), failures=row[3], failing_since=moment(row[4]), last_error=row[5]
    )


def _time(value: Any) -> datetime:
    found = moment(value)
    assert found is not None  # the column is NOT NULL
    return found
