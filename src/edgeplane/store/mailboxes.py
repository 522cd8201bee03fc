"""Mailboxes: who may act for a node, and when to look at it next.

A claim takes due mailboxes; a lapsed lease is simply due again, so the claim is the rescue. Whoever
moves an open task of a node holds its mailbox's row; several rows are locked in the order of keys.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import bindparam, case, delete, func, insert, or_, select, update

from edgeplane.model.clock import epoch_millis
from edgeplane.model.tasks import PRIORITY_STEP_SECONDS
from edgeplane.store.prepared import Prepared, moment
from edgeplane.store.rows import DUE_INDEX, node_mailboxes
from edgeplane.store.workers import Tx

_M = node_mailboxes.c


class Mailbox(NamedTuple):
    """A row of ``node_mailboxes``, but for when it is due."""

    node_id: int
    owner: str | None
    epoch: int
    work_seq: int
    unreachable_since: datetime | None
    generation: int
    former: str | None = None  #: who had it until it was claimed just now, and did not let go

    def away_seconds(self, now: datetime) -> float:
        """Return for how long its node has not been reached."""
        return (now - self.unreachable_since).total_seconds() if self.unreachable_since else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to act for a node: until when, and under which epoch."""

    owner: str
    seconds: float


def add(tx: Tx, node_id: int) -> None:
    """Make the mailbox of a new node."""
    tx.conn.execute(
        insert(node_mailboxes).values(
            node_id=node_id, epoch=epoch_millis(tx.now), work_seq=0, generation=0
        )
    )


def remove(tx: Tx, node_ids: Sequence[int]) -> None:
    """Delete the mailboxes of deleted nodes."""
    tx.conn.execute(delete(node_mailboxes).where(_M.node_id.in_(node_ids)))


_COLUMNS = (
    _M.node_id,
    _M.owner,
    _M.epoch,
    _M.work_seq,
    _M.unreachable_since,
    _M.generation,
)

_LOCK = Prepared(
    lambda items: (
        select(*_COLUMNS)
        .where(_M.node_id.in_(items.named("nodes")))
        .order_by(_M.node_id)
        .with_for_update()
    )
)
_MARK = Prepared(
    lambda items: (
        update(node_mailboxes)
        .where(_M.node_id.in_(items.named("nodes")))
        .values(
            work_seq=_M.work_seq + 1,
            next_at=case(
                (or_(_M.owner.is_not(None), _M.next_at < bindparam("due")), _M.next_at),
                else_=bindparam("due"),
            ),
        )
    )
)
_KNOWN = Prepared(lambda items: select(_M.node_id).where(_M.node_id.in_(items.named("nodes"))))
#: Due mailboxes, oldest first, passing over those another claimer holds, and those whose agent is
#: connected to another replica. The index is forced: with
#: most of the table due MariaDB would sort it instead, and so lock all that another could claim.
DUE = Prepared(
    lambda _: (
        select(*_COLUMNS)
        .where(_M.next_at <= bindparam("now"), or_(_M.via.is_(None), _M.via == bindparam("me")))
        .order_by(_M.next_at, _M.node_id)
        .limit(bindparam("most"))
        .with_for_update(skip_locked=True)
        .with_hint(node_mailboxes, f"FORCE INDEX ({DUE_INDEX.name})", "mysql")
    )
)
_CLAIM = Prepared(
    lambda items: (
        update(node_mailboxes)
        .where(_M.node_id.in_(items.named("nodes")))
        .values(
            owner=bindparam("me"),
            epoch=case((_M.epoch >= bindparam("floor"), _M.epoch + 1), else_=bindparam("floor")),
            next_at=bindparam("until"),
        )
    )
)
_RENEW = Prepared(
    lambda items: (
        update(node_mailboxes)
        .where(_M.node_id.in_(items.named("nodes")), _M.owner == bindparam("me"))
        .values(next_at=bindparam("until"))
    )
)
_GENERATION = Prepared(
    lambda _: (
        update(node_mailboxes)
        .where(_M.node_id == bindparam("box"))
        .values(generation=bindparam("number"))
    )
)
_RELEASE = Prepared(
    lambda items: (
        update(node_mailboxes)
        .where(_M.node_id.in_(items.named("nodes")), _M.owner == bindparam("me"))
        .values(owner=None, next_at=bindparam("due"))
    )
)

_AWAY = Prepared(
    lambda items: select(_M.node_id, _M.owner, _M.next_at).where(
        _M.node_id.in_(items.named("nodes")), _M.unreachable_since.is_not(None)
    )
)


def lock(tx: Tx, node_ids: Iterable[int]) -> dict[int, Mailbox]:
    """Hold the mailboxes of these nodes until the transaction ends."""
    wanted = sorted(node_ids)
    if not wanted:
        return {}
    return {row[0]: _mailbox(row) for row in _LOCK.rows(tx, nodes=wanted)}


def mark_work(tx: Tx, node_ids: Iterable[int], *, priority: int = 0) -> set[int]:
    """Say that a node has new work, due now; return the nodes that have a mailbox.

    This holds the mailboxes until the transaction ends. One that somebody owns keeps its lease: the
    owner sees ``work_seq`` grow. A priority puts the due time forward, as it does in the lanes: so
    among all that is due the most urgent is claimed first, and nothing waits for ever.
    """
    wanted = sorted(set(node_ids))
    due = tx.now - timedelta(seconds=priority * PRIORITY_STEP_SECONDS)
    if _MARK.change(tx, {"due": due}, nodes=wanted) == len(wanted):
        return set(wanted)
    return {row[0] for row in _KNOWN.rows(tx, nodes=wanted)}


def next_generations(tx: Tx, wanted: Sequence[int]) -> list[int]:
    """Return a new config's generation for each of these nodes, in order; their boxes are held.

    Like an epoch, it never falls below the database's clock: an agent that has seen a higher one
    would refuse what comes after the tables were put back from an older copy.
    """
    if not wanted:
        return []
    known = {row[0]: row[5] for row in _LOCK.rows(tx, nodes=sorted(set(wanted)))}
    floor = epoch_millis(tx.now)
    found: list[int] = []
    for node_id in wanted:
        known[node_id] = max(known[node_id] + 1, floor)
        found.append(known[node_id])
    _GENERATION.change_many(
        tx, [{"box": node_id, "number": number} for node_id, number in sorted(known.items())]
    )
    return found


def claim_due(tx: Tx, limit: int, lease: Lease) -> list[Mailbox]:
    """Take up to ``limit`` due mailboxes that nobody else is taking; each gets a higher epoch.

    The epoch never falls below the database's clock in milliseconds, so that it still grows after
    the database was put back from an older copy, or made anew.
    """
    if limit <= 0:
        return []
    found = [
        _mailbox(row) for row in DUE.rows(tx, {"now": tx.now, "most": limit, "me": lease.owner})
    ]
    if not found:
        return []
    floor = epoch_millis(tx.now)
    until = tx.now + timedelta(seconds=lease.seconds)
    _CLAIM.change(
        tx,
        {"me": lease.owner, "floor": floor, "until": until},
        nodes=sorted(box.node_id for box in found),
    )
    return [
        box._replace(owner=lease.owner, epoch=max(box.epoch + 1, floor), former=box.owner)
        for box in found
    ]


def renew(tx: Tx, node_ids: Sequence[int], lease: Lease) -> None:
    """Extend leases on mailboxes that are locked and known to be the owner's."""
    if node_ids:
        until = tx.now + timedelta(seconds=lease.seconds)
        _RENEW.change(tx, {"me": lease.owner, "until": until}, nodes=node_ids)


def release(tx: Tx, dues: Mapping[int, datetime | None], owner: str) -> None:
    """Give mailboxes back; each is due again when told, or when new work comes (None)."""
    groups: dict[datetime | None, list[int]] = {}
    for node_id, due in dues.items():
        groups.setdefault(due, []).append(node_id)
    for due, node_ids in groups.items():
        _RELEASE.change(tx, {"me": owner, "due": due}, nodes=sorted(node_ids))


def release_all(tx: Tx, owner: str | None) -> int:
    """Give back whatever an owner (None: anybody) holds; due at once."""
    held = _M.owner.is_not(None) if owner is None else _M.owner == owner
    return tx.conn.execute(
        update(node_mailboxes).where(held).values(owner=None, next_at=tx.now)
    ).rowcount


def note_reach(tx: Tx, node_ids: Sequence[int], *, reached: bool) -> None:
    """Write whether the last delivery to these nodes arrived."""
    if not node_ids:
        return
    since = None if reached else func.coalesce(_M.unreachable_since, tx.now)
    tx.conn.execute(
        update(node_mailboxes)
        .where(_M.node_id.in_(sorted(node_ids)))
        .values(unreachable_since=since)
    )


def not_reached(tx: Tx, node_ids: Iterable[int], soon: datetime) -> dict[int, bool]:
    """Return those of these nodes whose last delivery did not arrive.

    With each: whether another delivery is out, or due by ``soon``. Nothing is held.
    """
    wanted = sorted(node_ids)
    rows = _AWAY.rows(tx, nodes=wanted) if wanted else []
    return {row[0]: row[1] is not None or (moment(row[2]) or soon) < soon for row in rows}


def _mailbox(row: Sequence[Any]) -> Mailbox:
    return Mailbox(
        node_id=row[0],
        owner=row[1],
        epoch=row[2],
        work_seq=row[3],
        unreachable_since=moment(row[4]),
        generation=row[5],
    )
