"""Which of a node's open tasks may begin now, and when to look again: the order of work at a node.

Config tasks run one at a time, oldest first: the head of the lane is served or waited for, and
nothing overtakes it, so an older config never follows a newer one; of several configs that wait
only the newest is sent, and takes the place of the others. A held config keeps its place, and what
comes behind it waits; a held reload lets everything past, and has its turn when it is not held any
more: no task waits for a person because of it. Purges wait for nobody, the most urgent
first; many of them go out in one request, and however many there are, they leave the head of the
config lane its place. A node that could not be reached gets one probe, its oldest task, whatever is
queued.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from edgeplane.model.tasks import Lane, Task, TaskKind, TaskStatus, lane_of

#: So many purges are out at a node at most: fewer than an agent takes at once (256 of any kind), or
#: it would answer some with 429, which uses up their attempts.
MOST_PURGES_OUT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do with a node's open tasks."""

    begin: tuple[Task, ...]
    expire: tuple[Task, ...]
    supersede: tuple[tuple[Task, Task], ...]  #: each with the newer one that takes its place
    next_due: datetime | None  #: ahead: when time alone makes one of the others due; None: never


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What bears on the choice besides the tasks."""

    now: datetime  #: the database's time
    limit: int  #: how many requests may be out at this node at once
    batch: int = 1  #: how many purges may go in one of them
    out: int | None = None  #: how many are out; None: one for each task that runs
    paused: bool  #: the node is disabled or in maintenance: nothing is sent, deadlines still pass
    probing: bool  #: the last delivery did not arrive
    held: frozenset[int] = frozenset()  #: operations whose tasks may not begin


def plan(tasks: Sequence[Task], conditions: Conditions) -> Plan:
    """Choose what begins now out of a node's open tasks, given oldest first."""
    now = conditions.now
    running = [task for task in tasks if task.status is TaskStatus.RUNNING]
    waiting = [task for task in tasks if task.status is not TaskStatus.RUNNING]
    expired = tuple(task for task in waiting if task.deadline_at <= now)
    alive = [task for task in waiting if task.deadline_at > now] if expired else waiting
    superseded = _superseded(alive)
    open_ones = _without(alive, [old for old, _ in superseded])
    free = _free(open_ones, conditions.held)
    if conditions.paused:
        begin: tuple[Task, ...] = ()
    elif conditions.probing:
        begin = _probe(free, running, now)
    else:
        begin = _in_order(free, running, conditions)
    left = _without(open_ones, begin)
    later = _next_due(left, _without(free, begin), running, begin, conditions) if left else None
    return Plan(
        begin=begin,
        expire=expired,
        supersede=superseded,
        next_due=later,
    )


def _next_due(
    left: Sequence[Task],
    free: Sequence[Task],
    running: Sequence[Task],
    begun: Sequence[Task],
    conditions: Conditions,
) -> datetime:
    """Return when time alone makes something due: a deadline, or the turn of what is ``free``."""
    dues = [task.deadline_at for task in left]
    out = [*running, *begun]
    if _has_room(out, begun, conditions):
        full = _purges(out) >= MOST_PURGES_OUT
        heads = _heads(free, out)
        dues += [_due(task) for task in heads if not (full and lane_of(task.kind) is Lane.PURGE)]
    return min(dues)


def _without(tasks: Sequence[Task], others: Sequence[Task]) -> Sequence[Task]:
    if not others:
        return tasks
    over = {task.id for task in others}
    return [task for task in tasks if task.id not in over]


def _free(waiting: Sequence[Task], held: frozenset[int]) -> Sequence[Task]:
    """Leave out what a held operation keeps from beginning, and what comes behind a held config.

    A reload leaves nothing at the node that a later task builds on: others may go before it.
    """
    if not held:
        return waiting
    found: list[Task] = []
    behind = False
    for task in waiting:
        if task.operation_id in held:
            behind |= task.kind is TaskKind.APPLY_CONFIG
        elif not (behind and lane_of(task.kind) is Lane.CONFIG):
            found.append(task)
    return found


def _superseded(waiting: Sequence[Task]) -> tuple[tuple[Task, Task], ...]:
    """Pair each config that waits with the newest, if it is not that itself."""
    if len(waiting) < 2:  # noqa: PLR2004
        return ()
    configs = [task for task in waiting if task.kind is TaskKind.APPLY_CONFIG]
    if len(configs) < 2:  # noqa: PLR2004
        return ()
    newest = max(configs, key=lambda task: task.generation or 0)
    return tuple((task, newest) for task in configs if task is not newest)


def _has_room(running: Sequence[Task], begun: Sequence[Task], conditions: Conditions) -> bool:
    """Whether time alone can let one more begin; else it takes a result, or a person."""
    if conditions.paused:
        return False
    if conditions.probing:
        return not running
    if conditions.out is None:
        return len(running) < conditions.limit
    config = sum(lane_of(task.kind) is Lane.CONFIG for task in begun)
    requests = config + -(-(len(begun) - config) // conditions.batch)
    return conditions.out + requests < conditions.limit


def _due(task: Task) -> datetime:
    return task.next_retry_at or task.created_at


def _heads(waiting: Sequence[Task], running: Sequence[Task]) -> list[Task]:
    """Return those whose turn it is: the oldest config task if none is running, every purge."""
    purges = [task for task in waiting if lane_of(task.kind) is Lane.PURGE]
    purges.sort(key=lambda task: (task.rank, task.id))
    if any(lane_of(task.kind) is Lane.CONFIG for task in running):
        return purges
    return [task for task in waiting if lane_of(task.kind) is Lane.CONFIG][:1] + purges


def _in_order(
    waiting: Sequence[Task], running: Sequence[Task], conditions: Conditions
) -> tuple[Task, ...]:
    """Fill the requests that may go out: one for the head of the config lane, purges together."""
    due = [task for task in _heads(waiting, running) if _due(task) <= conditions.now]
    out = len(running) if conditions.out is None else conditions.out
    places = conditions.limit - out
    if places <= 0:
        return ()
    head = [task for task in due if lane_of(task.kind) is Lane.CONFIG]
    purges = [task for task in due if lane_of(task.kind) is Lane.PURGE]
    if conditions.limit == 1 and any(task.id < other.id for task in purges for other in head):
        head = []  # the one place there is goes round by age
    most = min((places - len(head)) * conditions.batch, MOST_PURGES_OUT - _purges(running))
    return (*head, *purges[: max(0, most)])


def _purges(tasks: Sequence[Task]) -> int:
    return sum(lane_of(task.kind) is Lane.PURGE for task in tasks)


def _probe(waiting: Sequence[Task], running: Sequence[Task], now: datetime) -> tuple[Task, ...]:
    """Send one task, when any is due; a new arrival makes it due at once."""
    if running or not any(_due(task) <= now for task in waiting):
        return ()
    return tuple(waiting[:1])
