"""How far an operation is, and the rules it follows.

An operation counts where its nodes stand. From these counts alone, and its limits, follows what is
to be done next and whether it has ended: ``counted`` and ``next_step`` are the heart of it. States
and moves are one table, as those of a task in ``lifecycle``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal

from edgeplane.model import lifecycle
from edgeplane.model.errors import WrongState
from edgeplane.model.tasks import Outcome, Task, TaskStatus

CHUNK = 1000  #: tasks moved in one transaction


class OperationState(StrEnum):
    """Where an operation is."""

    RUNNING = "running"  #: its tasks are sent, as many at once as its limit allows
    PAUSED = "paused"  #: by a person: no task of it begins; what is out may finish
    STOPPING = "stopping"  #: too many failed: the rest is taken back, what is out may finish
    STOPPED = "stopped"
    CANCELLING = "cancelling"  #: the same, by a person
    CANCELLED = "cancelled"
    DONE = "done"  #: every task has ended, well or not


class Event(StrEnum):
    """What moves an operation."""

    PAUSE = "a person pauses"
    RESUME = "a person resumes"
    CANCEL = "a person cancels"
    STOP = "too many nodes failed"
    END = "nothing is open any more"
    RETRY = "a person retries what failed"
    REOPEN = "a person retries one of its tasks"


@dataclass(frozen=True, slots=True)
class Move:
    """One legal move."""

    origin: OperationState
    event: Event
    target: OperationState


_S = OperationState
MOVES = (
    Move(_S.RUNNING, Event.PAUSE, _S.PAUSED),
    Move(_S.PAUSED, Event.RESUME, _S.RUNNING),
    Move(_S.RUNNING, Event.CANCEL, _S.CANCELLING),
    Move(_S.PAUSED, Event.CANCEL, _S.CANCELLING),
    Move(_S.RUNNING, Event.STOP, _S.STOPPING),
    Move(_S.PAUSED, Event.STOP, _S.STOPPING),
    Move(_S.RUNNING, Event.END, _S.DONE),
    Move(_S.PAUSED, Event.END, _S.DONE),
    Move(_S.STOPPING, Event.END, _S.STOPPED),
    Move(_S.CANCELLING, Event.END, _S.CANCELLED),
    Move(_S.RUNNING, Event.RETRY, _S.RUNNING),
    Move(_S.PAUSED, Event.RETRY, _S.PAUSED),
    Move(_S.STOPPED, Event.RETRY, _S.RUNNING),
    Move(_S.DONE, Event.RETRY, _S.RUNNING),
    Move(_S.DONE, Event.REOPEN, _S.RUNNING),
)
_TARGETS = {(move.origin, move.event): move.target for move in MOVES}
#: What a person is told who asks for what the table does not have.
_OBJECTIONS = {
    Event.PAUSE: "only one that is running can be paused",
    Event.RESUME: "only one that is paused can be resumed",
    Event.CANCEL: "only one that is running or paused can be cancelled",
    Event.RETRY: "only one that is running, paused, stopped or done can be tried again",
}

#: No task of an operation in these states begins.
HELD = frozenset({_S.PAUSED, _S.STOPPING, _S.CANCELLING})
#: What has not begun, or waits to be tried again, is taken back.
ENDING = frozenset({_S.STOPPING, _S.CANCELLING})
FINAL = frozenset({_S.STOPPED, _S.CANCELLED, _S.DONE})


class Standing(StrEnum):
    """Where one of an operation's nodes stands; each has its count."""

    UNSENT = "unsent"  #: its task is not made yet
    SKIPPED = "skipped"  #: it was disabled, in maintenance or gone, and gets no task
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"  #: it was reached, and will be tried again
    UNREACHABLE = "unreachable"  #: it is probed until it is back
    SUCCESS = "success"
    FAILED = "failed"  #: for good
    SUPERSEDED = "superseded"  #: a newer config took the place of its task
    CANCELLED = "cancelled"


#: These take a place of ``max_concurrency``.
_OUT = (Standing.PENDING, Standing.RUNNING, Standing.WAITING)
_OPEN = (*_OUT, Standing.UNREACHABLE)
#: While it runs, these change by themselves, sooner or later.
MOVING = (Standing.UNSENT, *_OUT)
#: These can be taken back; of the unreachable ones, those that are not being probed just now.
_RETURNABLE = (Standing.PENDING, Standing.WAITING, Standing.UNREACHABLE)

Counts = Mapping[Standing, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an operation is: what its rules read and change."""

    id: int
    state: OperationState
    reason: str | None  #: why it is where it is, where that is not plain
    counts: Counts
    failures: int  #: nodes that were reached and failed for good, since it last began
    max_concurrency: int | None  #: None: no limit
    max_failures: int | None
    waking: int | None  #: nodes up to this one know that it goes on; None: all
    retrying: int | None  #: failed tasks up to this id are tried again; None: none is to be
    epoch: int  #: grows whenever somebody else takes the next step
    work_seq: int  #: grows with whatever may call for a step
    finished_at: datetime | None

    def count(self, standings: Iterable[Standing]) -> int:
        """Add up counts."""
        return sum(self.counts[standing] for standing in standings)

    @property
    def total(self) -> int:
        """How many nodes it was aimed at."""
        return self.count(Standing)

    @property
    def room(self) -> int:
        """How many more tasks may be out."""
        if self.max_concurrency is None:
            return CHUNK
        return max(0, min(CHUNK, self.max_concurrency - self.count(_OUT)))


#: Kinds of steps.
STEPS = ("send", "wake", "retry", "take_back")


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next, in one transaction, for up to so many nodes."""

    kind: Literal["send", "wake", "retry", "take_back"]
    most: int


def standing_of(task: Task) -> Standing:
    """Return where a task stands, as its operation counts.

    A node that could not be reached stays unreachable while it is probed: a probe that goes
    nowhere takes no place from the others.
    """
    if task.final:
        return Standing(task.status.value)
    away = task.outcome is Outcome.UNREACHABLE
    if task.status is TaskStatus.RUNNING:
        return Standing.UNREACHABLE if away else Standing.RUNNING
    if task.status is TaskStatus.FAILED:
        return Standing.UNREACHABLE if away else Standing.WAITING
    return Standing.PENDING


def counted(
    before: Progress, moves: Sequence[tuple[Task, Task]], now: datetime
) -> tuple[Progress, bool]:
    """Count tasks that moved; return also whether a step may have become possible."""
    changes: Counter[Standing] = Counter()
    failures, reopened = 0, False
    for old, new in moves:
        changes[standing_of(old)] -= 1
        changes[standing_of(new)] += 1
        failures += _tells_against(old, new)
        reopened |= old.final and not new.final
    after = shifted(before, changes)
    after = replace(after, failures=before.failures + failures)
    if reopened and may(before, Event.REOPEN):
        after = moved(after, Event.REOPEN)
    after = _concluded(after, now)
    return after, next_step(after) is not None


def _tells_against(old: Task, new: Task) -> bool:
    """Whether a node that was reached has failed for good; one that was never there does not."""
    if standing_of(new) is not Standing.FAILED or not new.counted_attempts:
        return False
    return old.status is TaskStatus.RUNNING or new.outcome is Outcome.EXPIRED


def shifted(before: Progress, changes: Mapping[Standing, int]) -> Progress:
    """Change counts by differences."""
    counts = {standing: before.counts[standing] + changes.get(standing, 0) for standing in Standing}
    return replace(before, counts=counts)


def _concluded(progress: Progress, now: datetime) -> Progress:
    """Move an operation whose counts say that it has ended, or that too many failed."""
    limit = progress.max_failures
    too_many = limit is not None and progress.failures >= limit
    if too_many and not _finished(progress) and may(progress, Event.STOP):
        reason = f"{progress.failures} nodes failed, {limit} stop it"
        stopping = moved(progress, Event.STOP)
        progress = replace(stopping, reason=reason, waking=None, retrying=None)
    if not _finished(progress) or not may(progress, Event.END):
        return progress
    ended = moved(progress, Event.END)
    return replace(ended, reason=progress.reason, waking=None, finished_at=now)


def _finished(progress: Progress) -> bool:
    """Whether nothing of it is open; one that ends leaves unsent what is."""
    if progress.count(_OPEN):
        return False
    left = progress.counts[Standing.UNSENT] > 0 or progress.retrying is not None
    return progress.state in ENDING or not left


def after_step(before: Progress, changes: Mapping[Standing, int], now: datetime) -> Progress:
    """Count what a step did by itself: tasks made, nodes skipped."""
    return _concluded(shifted(before, changes), now)


def next_step(progress: Progress) -> Step | None:
    """Say what is to be done now; None: it waits for results, or for a person."""
    if progress.state in ENDING:
        return Step("take_back", CHUNK) if progress.count(_RETURNABLE) else None
    if progress.state is not OperationState.RUNNING:
        return None
    if progress.waking is not None:
        return Step("wake", CHUNK)
    if progress.room > 0:
        if progress.retrying is not None:
            return Step("retry", progress.room)
        if progress.counts[Standing.UNSENT] > 0:
            return Step("send", progress.room)
    return None


def calls(before: Progress, after: Progress) -> bool:
    """Whether somebody must step on: there is something to do, or it has just ended.

    The step after its end does nothing to it; whoever takes it tells how it went.
    """
    ended = before.state not in FINAL and after.state in FINAL
    return ended or next_step(after) is not None


def may(progress: Progress, event: Event) -> bool:
    """Whether the table allows the event where the operation is."""
    return (progress.state, event) in _TARGETS


def moved(progress: Progress, event: Event) -> Progress:
    """Move an operation by the table; raise WrongState where it has no such move."""
    if not may(progress, event):
        why = _OBJECTIONS.get(event, f"not possible when {event.value}")
        raise WrongState(f"operation {progress.id} is {progress.state.value}: {why}")
    return replace(progress, state=_TARGETS[progress.state, event], reason=None, finished_at=None)


def pause(progress: Progress) -> Progress:
    """Let no further task of it begin. Raises WrongState."""
    return moved(progress, Event.PAUSE)


def resume(progress: Progress) -> Progress:
    """Go on; its nodes are told. Raises WrongState."""
    return replace(moved(progress, Event.RESUME), waking=0)


def cancel(progress: Progress, by: str, now: datetime) -> Progress:
    """Take back what has not begun. Raises WrongState."""
    after = replace(moved(progress, Event.CANCEL), reason=f"cancelled by {by}")
    return _concluded(replace(after, waking=None, retrying=None), now)


def retry_failed(progress: Progress) -> Progress:
    """Try again what has failed so far; failures are counted anew. Raises WrongState."""
    if not progress.counts[Standing.FAILED]:
        raise WrongState(f"operation {progress.id}: none of its tasks has failed for good")
    return replace(moved(progress, Event.RETRY), failures=0, retrying=0)


def taken_back(task: Task, state: OperationState, now: datetime) -> Task:
    """End a task that has not begun, or waits to be tried again, with its operation."""
    if state is OperationState.CANCELLING:
        return lifecycle.cancel(task, now, "operation cancelled")
    return lifecycle.give_up(task, now)
