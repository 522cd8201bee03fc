"""When to try again: here, and nowhere else, a retry is decided.

Full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015): a delay is drawn evenly
from nothing to the cap, and the cap doubles. With the defaults the caps after attempts that count
are 1, 2, 4, 8 … 60 s. A node that cannot be reached costs none of its tasks an attempt: it is
probed again within as long as it has been gone, from 1 to 15 s, and after five minutes within 60 s.
How long, not how often: each new task calls for a probe of its own.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from edgeplane.model.clock import truncate
from edgeplane.model.tasks import Outcome, Report, Task

#: What can pass by itself. The rest is final at once.
PASSING = frozenset({Outcome.BUSY, Outcome.UNANSWERED, Outcome.UNREACHABLE, Outcome.LOST})
#: What uses up no attempt: nobody at the other end has seen it, or nobody knows whether they have.
UNCOUNTED = frozenset({Outcome.UNREACHABLE, Outcome.LOST})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Caps of the delays, in seconds."""

    base: float = 1.0
    cap: float = 60.0
    probe_cap: float = 15.0  #: between probes of a node that has just gone
    late_probe_cap: float = 60.0  #: and of one that has been gone for ``early_seconds``
    early_seconds: float = 300.0


def next_retry(
    task: Task, report: Report, now: datetime, policy: RetryPolicy, random: Random
) -> datetime | None:
    """Say when a task whose attempt just ended is due again; None: this was the last word.

    ``task.counted_attempts`` already counts the attempt that ended. A delay never reaches past the
    deadline: at the deadline the task is looked at once more, and expires.
    """
    if report.outcome not in PASSING:
        return None
    if report.outcome is Outcome.LOST:
        return now
    if task.max_attempts == 1 or now >= task.deadline_at:
        return None
    if report.outcome is Outcome.UNREACHABLE:
        cap = _probe_cap(policy, report.away_seconds)
    elif task.counted_attempts >= task.max_attempts:
        return None
    else:
        cap = min(policy.cap, policy.base * 2 ** min(task.counted_attempts - 1, 30))
    delay = max(random.uniform(0, cap), min(report.retry_after or 0.0, policy.cap))
    return min(truncate(now + timedelta(seconds=delay)), task.deadline_at)


def _probe_cap(policy: RetryPolicy, away: float) -> float:
    if away < policy.early_seconds:
        return min(policy.probe_cap, max(policy.base, away))
    return policy.late_probe_cap
