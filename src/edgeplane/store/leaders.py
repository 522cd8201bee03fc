"""Leaders: which replica does what only one should, until when, and under which term.

``until_at`` is the end of a leader's time and, once its work is done, the time the next is due: a
duty in the past is free. A term is a number that grows at every change of hands. Each write of a
leader holds the row and names the term, so one that was paused past its time writes nothing.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from edgeplane.store.rows import leaders
from edgeplane.store.workers import Tx

_L = leaders.c


def due_at(tx: Tx, duty: str) -> datetime | None:
    """Return when a duty is free to be taken; None: it never was taken."""
    return tx.conn.scalar(select(_L.until_at).where(_L.duty == duty))


def take(tx: Tx, duty: str, owner: str, seconds: float) -> int | None:
    """Become the leader for so long; return the term, or None where it is somebody's."""
    if not tx.conn.scalar(select(_L.term).where(_L.duty == duty)):
        _make(tx, duty)
    free = or_(_L.until_at <= tx.now, _L.owner == owner)
    taken = tx.conn.execute(
        update(leaders)
        .where(_L.duty == duty, free)
        .values(owner=owner, term=_L.term + 1, until_at=tx.now + timedelta(seconds=seconds))
    ).rowcount
    return tx.conn.scalar(select(_L.term).where(_L.duty == duty)) if taken else None


def hold(tx: Tx, duty: str, owner: str, term: int, seconds: float) -> bool:
    """Hold the row until the transaction ends, and go on for so long; False: it is another's."""
    return _write(tx, duty, owner, term, {"until_at": tx.now + timedelta(seconds=seconds)})


def lay_down(tx: Tx, duty: str, owner: str, term: int, seconds: float) -> bool:
    """Stop being the leader; nobody is to be before so many seconds have passed."""
    values = {"owner": None, "until_at": tx.now + timedelta(seconds=seconds)}
    return _write(tx, duty, owner, term, values)


def _write(tx: Tx, duty: str, owner: str, term: int, values: dict[str, Any]) -> bool:
    mine = and_(_L.duty == duty, _L.owner == owner, _L.term == term)
    return tx.conn.execute(update(leaders).where(mine).values(values)).rowcount == 1


def _make(tx: Tx, duty: str) -> None:
    """Make the row of a duty nobody ever had, unless another replica has just done so."""
    try:
        with tx.conn.begin_nested():
            tx.conn.execute(insert(leaders).values(duty=duty, term=0, until_at=tx.now))
    except IntegrityError:
        return
