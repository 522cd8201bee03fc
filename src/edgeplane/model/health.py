"""What is observed of a node, and when that changes its status.

One good answer makes a node online: nothing but an agent that knows the token can give it. A
failure may be a restart or a lost packet, so it takes two in a row, and ``PATIENCE_SECONDS``
between the first and the last. Time is asked for, not a higher number: a queue of fifty tasks can
meet fifty failures within the second an agent takes to restart, and they are worth no more than
one. A node that has just failed is asked again after those seconds, so it is offline some ten
seconds after the first failure was seen, however long the usual interval is.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from edgeplane.model.clock import truncate
from edgeplane.model.nodes import NodeStatus
from edgeplane.model.tasks import bounded_text

PATIENCE_SECONDS = 10.0  #: longer than an agent takes to restart
ENOUGH_FAILURES = 2  #: in a row
MAX_WORDS_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What was observed of a node so far: by a probe, a delivery, or the node's own call."""

    seen_at: datetime | None = None  #: when it last gave a good answer; None: never
    failures: int = 0  #: in a row; counted as far as they decide: 0, 1, or enough
    failing_since: datetime | None = None  #: when the first of them was seen
    last_error: str | None = None  #: what is wrong; None: nothing, as far as is known

    @property
    def status(self) -> NodeStatus | None:
        """What the observations make of a node's status; None: they leave it as it is."""
        if self.failures == 0:
            return None if self.seen_at is None else NodeStatus.ONLINE
        return NodeStatus.OFFLINE if self.failures >= ENOUGH_FAILURES else None


UNKNOWN = Health()


def failed(before: Health, words: str, now: datetime) -> Health:
    """Return what is known after one more failure; the very same object where that is no news."""
    words = bounded_text(words or "no reason was given", MAX_WORDS_BYTES)
    if before.failing_since is None:
        return replace(before, failures=1, failing_since=now, last_error=words)
    more = before.failures < ENOUGH_FAILURES and _patient(before.failing_since, now)
    if not more and words == before.last_error:
        return before
    return replace(before, failures=before.failures + more, last_error=words)


def answered(before: Health, now: datetime) -> Health:
    """Return what is known after a good answer, which ends whatever there was."""
    return replace(before, seen_at=now, failures=0, failing_since=None, last_error=None)


def next_check(health: Health, now: datetime, interval: float, spread: float) -> datetime:
    """Say when to ask a node again: soon, where it has begun to fail.

    Args:
        health: what is known of it.
        now: of the database.
        interval: seconds between two looks at a node.
        spread: from 0 to 1, another each time: nodes that were asked together part.

    """
    if health.failing_since is not None and health.status is None:
        soon = PATIENCE_SECONDS * (1.0 + 0.2 * spread)
        return truncate(health.failing_since + timedelta(seconds=soon))
    return truncate(now + timedelta(seconds=interval * (0.8 + 0.4 * spread)))


def _patient(since: datetime, now: datetime) -> bool:
    return (now - since).total_seconds() >= PATIENCE_SECONDS
