"""The state machine of a task: one table, and the functions that apply it.

``docs/state-machine.md`` is drawn from ``MOVES``; a test fails when they differ. Every function
takes the task as it stands in its (locked) row and returns it as it must be written, or raises
``WrongState``; none of them reads a clock or rolls a die of its own.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

from edgeplane.model.errors import WrongState
from edgeplane.model.retry import UNCOUNTED, RetryPolicy, next_retry
from edgeplane.model.tasks import Outcome, Report, Task, TaskStatus, bounded_text


class Place(StrEnum):
    """A status, with the two meanings of ``failed`` told apart."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    WAITING = "failed, next_retry_at set"
    FAILED = "failed, final"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What moves a task."""

    BEGIN = "an attempt begins"
    SUCCEED = "the agent succeeded"
    FAIL_FOR_NOW = "what failed can pass"
    FAIL = "it failed for good"
    RESCUE = "its lease lapsed"
    EXPIRE = "its deadline passed"
    RETRY = "a person retries"
    SUPERSEDE = "a newer config waits"
    CANCEL = "a person takes it back"
    STOP = "taken back before, and not done"
    GIVE_UP = "its operation has stopped"


@dataclass(frozen=True, slots=True)
class Move:
    """One legal move."""

    origin: Place
    event: Event
    target: Place


MOVES = (
    Move(Place.PENDING, Event.BEGIN, Place.RUNNING),
    Move(Place.PENDING, Event.EXPIRE, Place.FAILED),
    Move(Place.RUNNING, Event.SUCCEED, Place.SUCCESS),
    Move(Place.RUNNING, Event.FAIL_FOR_NOW, Place.WAITING),
    Move(Place.RUNNING, Event.FAIL, Place.FAILED),
    Move(Place.RUNNING, Event.RESCUE, Place.PENDING),
    Move(Place.WAITING, Event.BEGIN, Place.RUNNING),
    Move(Place.WAITING, Event.EXPIRE, Place.FAILED),
    Move(Place.WAITING, Event.RETRY, Place.PENDING),
    Move(Place.FAILED, Event.RETRY, Place.PENDING),
    Move(Place.PENDING, Event.SUPERSEDE, Place.SUPERSEDED),
    Move(Place.WAITING, Event.SUPERSEDE, Place.SUPERSEDED),
    Move(Place.PENDING, Event.CANCEL, Place.CANCELLED),
    Move(Place.WAITING, Event.CANCEL, Place.CANCELLED),
    Move(Place.RUNNING, Event.CANCEL, Place.RUNNING),
    Move(Place.RUNNING, Event.STOP, Place.CANCELLED),
    Move(Place.PENDING, Event.GIVE_UP, Place.FAILED),
    Move(Place.WAITING, Event.GIVE_UP, Place.FAILED),
)

_TARGETS = {(move.origin, move.event): move.target for move in MOVES}


_OBJECTIONS = {
    Event.RETRY: "only a failed task can be retried",
    Event.CANCEL: "only a task that has not ended can be cancelled",
}


def place_of(task: Task) -> Place:
    """Return where a task stands."""
    if task.status is TaskStatus.FAILED:
        return Place.WAITING if task.next_retry_at is not None else Place.FAILED
    return Place(task.status.value)


def may(task: Task, event: Event) -> bool:
    """Whether the table allows the event where the task stands."""
    return (place_of(task), event) in _TARGETS


def begin(task: Task, now: datetime) -> Task:
    """Begin an attempt: it gets the next number, which is its fence."""
    _check(task, Event.BEGIN)
    return task._replace(
        status=TaskStatus.RUNNING,
        attempts=task.attempts + 1,
        next_retry_at=None,
        started_at=now,
        updated_at=now,
    )


def settle(task: Task, report: Report, now: datetime, policy: RetryPolicy, random: Random) -> Task:
    """Write an attempt's outcome into the task: success, due again, or failed for good."""
    counted = task.counted_attempts + (report.outcome not in UNCOUNTED)
    if report.outcome is Outcome.SUCCEEDED:
        _check(task, Event.SUCCEED)
        return task._replace(
            status=TaskStatus.SUCCESS,
            counted_attempts=counted,
            outcome=report.outcome,
            last_error=None,
            result=report.message,
            finished_at=now,
            updated_at=now,
        )
    ended = task._replace(counted_attempts=counted, outcome=report.outcome, updated_at=now)
    if task.cancel_requested:
        return _stop(ended, f"cancelled; the attempt that was out: {report.message}", now)
    due = next_retry(ended, report, now, policy, random)
    _check(task, Event.FAIL if due is None else Event.FAIL_FOR_NOW)
    return ended._replace(
        status=TaskStatus.FAILED,
        last_error=bounded_text(report.message),
        next_retry_at=due,
        finished_at=now if due is None else None,
    )


def rescue(task: Task, now: datetime) -> Task:
    """Take back a task whose owner is gone: due at once; the same run is asked for again.

    One that was cancelled meanwhile is not asked for again.
    """
    if task.cancel_requested:
        why = "cancelled; whether the attempt that was out took effect is not known"
        return _stop(task._replace(outcome=Outcome.LOST), why, now)
    _check(task, Event.RESCUE)
    return task._replace(status=TaskStatus.PENDING, outcome=Outcome.LOST, updated_at=now)


def expire(task: Task, now: datetime) -> Task:
    """End a task whose deadline passed while it waited; say what it had been waiting for."""
    _check(task, Event.EXPIRE)
    seconds = task.deadline_seconds
    why = f"deadline exceeded: not done within {seconds} s of being asked for"
    return task._replace(
        status=TaskStatus.FAILED,
        outcome=Outcome.EXPIRED,
        last_error=_with_last(why, task),
        next_retry_at=None,
        finished_at=now,
        updated_at=now,
    )


def retry(task: Task, now: datetime) -> Task:
    """Run a failed task now, as a new run: the agent will not answer it with the old failure.

    Raises:
        WrongState: the task has not failed.

    """
    _check(task, Event.RETRY)
    return task._replace(
        status=TaskStatus.PENDING,
        counted_attempts=0,
        run=task.attempts + 1,
        deadline_at=now + timedelta(seconds=task.deadline_seconds),
        next_retry_at=None,
        last_error=None,
        finished_at=None,
        updated_at=now,
    )


def supersede(task: Task, by: Task, now: datetime) -> Task:
    """End a config that waits, because a newer one of its node waits too."""
    _check(task, Event.SUPERSEDE)
    return task._replace(
        status=TaskStatus.SUPERSEDED,
        superseded_by=by.id,
        next_retry_at=None,
        finished_at=now,
        updated_at=now,
    )


def give_up(task: Task, now: datetime) -> Task:
    """End a task that waits because its operation has stopped; a retry may open it again."""
    _check(task, Event.GIVE_UP)
    return task._replace(
        status=TaskStatus.FAILED,
        last_error=_with_last("operation stopped", task),
        next_retry_at=None,
        finished_at=now,
        updated_at=now,
    )


def cancel(task: Task, now: datetime, why: str = "cancelled") -> Task:
    """Take a task back: at once where it waits; where an attempt is out, once that is back.

    Raises:
        WrongState: it has ended.

    """
    _check(task, Event.CANCEL)
    if task.status is TaskStatus.RUNNING:
        return task._replace(cancel_requested=True, updated_at=now)
    return _cancelled(task, _with_last(why, task), now)


def _stop(task: Task, why: str, now: datetime) -> Task:
    _check(task, Event.STOP)
    return _cancelled(task, why, now)


def _cancelled(task: Task, why: str, now: datetime) -> Task:
    return task._replace(
        status=TaskStatus.CANCELLED,
        cancel_requested=True,
        last_error=bounded_text(why),
        next_retry_at=None,
        finished_at=now,
        updated_at=now,
    )


def _with_last(why: str, task: Task) -> str:
    """Say why a task ends, and what it had met."""
    return bounded_text(f"{why}; last error: {task.last_error}" if task.last_error else why)


def _check(task: Task, event: Event) -> None:
    if not may(task, event):
        why = _OBJECTIONS.get(event, f"not possible when {event.value}")
        raise WrongState(f"task {task.id} is {task.status.value}: {why}")
