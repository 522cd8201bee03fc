"""The steps of operations: each moves up to a thousand nodes on, in one transaction.

What is true if the process dies after any of them stands in the operation's row: the targets that
are left, how far waking and retrying are, and the counts. Locks are taken as everywhere: mailboxes
in the order of nodes, then tasks, and the operation last; so what a step saw of the operation is
looked at again before it is written.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeplane.model import lifecycle
from edgeplane.model import progress as rules
from edgeplane.model.lifecycle import Place, place_of
from edgeplane.model.operations import Operation, task_request_id
from edgeplane.model.progress import OperationState, Progress, Standing
from edgeplane.model.tasks import NewTask, Task
from edgeplane.observe.crashpoints import crash_point
from edgeplane.services.tasks import generations, is_outdated
from edgeplane.store import mailboxes, nodes, operation_steps, operations, task_moves, tasks
from edgeplane.store.workers import Tx


class Overtaken(Exception):
    """Somebody else has moved the operation: nothing of this step counts, look again."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """What a step did."""

    nodes: Sequence[int] = ()  #: those that have news
    again: bool = False  #: the operation calls for another step at once
    kind: str | None = None  #: of the step; None: there was nothing to do
    ended: OperationState | None = None  #: it has ended, and nobody has told so yet
    lifetime: float = 0.0  #: of one that has ended, in seconds


@dataclass(frozen=True, slots=True)
class _Did:
    """What a step did to tasks, and how far its operation is by that, as far as it knows."""

    nodes: Sequence[int]
    moves: Sequence[tuple[Task, Task]] = ()
    made: Counter[Standing] | None = None  #: changes of counts besides the moves
    waking: int | None = None
    retrying: int | None = None


def take(tx: Tx, operation_id: int, epoch: int) -> Stepped:
    """Take the next step of an operation that was claimed under this epoch.

    Raises:
        Overtaken: it is somebody else's by now, or has been moved meanwhile.

    """
    seen = operations.see(tx, operation_id)
    if seen is None or seen.epoch != epoch:
        raise Overtaken
    step = rules.next_step(seen)
    if step is None:
        did = _Did((), waking=seen.waking, retrying=seen.retrying)
    else:
        did = _STEPS[step.kind](tx, seen, step.most)
    now = operations.lock(tx, operation_id)
    if now is None or _believed(now) != _believed(seen):
        raise Overtaken
    after, _ = rules.counted(
        replace(now, waking=did.waking, retrying=did.retrying), did.moves, tx.now
    )
    after = rules.after_step(after, did.made or {}, tx.now)
    operations.write(tx, now, after)
    moved_on = bool(did.nodes) or after != now or now.work_seq != seen.work_seq
    again = moved_on and rules.next_step(after) is not None
    operation_steps.release(tx, operation_id, epoch, again=again)
    crash_point("fanout.before_commit")
    kind = step.kind if step is not None else None
    if after.state not in rules.FINAL:
        return Stepped(did.nodes, again=again, kind=kind)
    seconds = operation_steps.lifetime(tx, operation_id)
    return Stepped(did.nodes, again=again, kind=kind, ended=after.state, lifetime=seconds)


def _believed(progress: Progress) -> object:
    """Return what a step relies on; counts of tasks may change beside it."""
    left = progress.counts[Standing.UNSENT]
    return progress.epoch, progress.state, progress.waking, progress.retrying, left


def _send(tx: Tx, seen: Progress, most: int) -> _Did:
    """Make the tasks of the next nodes; those that take none now are passed over, and counted."""
    aimed = operation_steps.targets(tx, seen.id, most)
    operation = operations.get(tx, seen.id)
    if operation is None:
        raise Overtaken
    usable: set[int] = set()
    if aimed:
        known = mailboxes.mark_work(tx, aimed, priority=operation.priority)
        usable = known - nodes.paused(tx, aimed)
    _still_ours(tx, seen)  # with the mailboxes held nobody else makes these tasks
    if usable:
        size, digest = operations.for_tasks(tx, seen.id)
        asked = [_task(operation, node_id, size, digest) for node_id in sorted(usable)]
        tasks.insert_new(tx, asked, generations(tx, asked))
    if aimed:
        operation_steps.drop_targets(tx, seen.id, aimed[-1])
    made = Counter(
        {
            # Without targets nothing is left, whatever was counted.
            Standing.UNSENT: -len(aimed) if aimed else -seen.counts[Standing.UNSENT],
            Standing.PENDING: len(usable),
            Standing.SKIPPED: len(aimed) - len(usable),
        }
    )
    return _Did(sorted(usable), made=made, waking=seen.waking, retrying=seen.retrying)


def _still_ours(tx: Tx, seen: Progress) -> None:
    found = operations.see(tx, seen.id)
    if found is None or _believed(found) != _believed(seen):
        raise Overtaken


def _task(operation: Operation, node_id: int, size: int, digest: bytes) -> NewTask:
    operation_id = operation.progress.id
    return NewTask(
        operation_id=operation_id,
        node_id=node_id,
        kind=operation.kind,
        priority=operation.priority,
        payload=None,
        payload_bytes=size,
        payload_digest=digest,
        request_id=task_request_id(operation_id, node_id),
        request_id_given=False,
        timeout_seconds=operation.timeout_seconds,
        max_attempts=operation.max_attempts,
        deadline_seconds=operation.deadline_seconds,
        created_by=operation.created_by,
    )


def _wake(tx: Tx, seen: Progress, most: int) -> _Did:
    """Tell nodes whose tasks were held that they may begin."""
    found = operation_steps.open_nodes(tx, seen.id, seen.waking or 0, most)
    if found:
        mailboxes.mark_work(tx, found)
    further = found[-1] if len(found) == most else None
    return _Did(found, waking=further, retrying=seen.retrying)


def _retry(tx: Tx, seen: Progress, most: int) -> _Did:
    """Try tasks again that failed for good, but for nodes that take none, and outdated configs."""
    found = operation_steps.failed(tx, seen.id, seen.retrying or 0, most)
    boxes = mailboxes.lock(tx, set(found.values()))
    usable = set(boxes) - nodes.paused(tx, boxes) if boxes else set()
    moves = [
        (task, lifecycle.retry(task, tx.now))
        for task in tasks.many(tx, found)
        if place_of(task) is Place.FAILED
        and task.node_id in usable
        and not is_outdated(task, boxes[task.node_id])
    ]
    if usable:
        mailboxes.mark_work(tx, usable, priority=max((t.priority for t, _ in moves), default=0))
    _write(tx, moves)
    further = max(found) if len(found) == most else None
    return _Did(sorted(usable), moves, waking=seen.waking, retrying=further)


def _take_back(tx: Tx, seen: Progress, most: int) -> _Did:
    """End tasks that have not begun, or wait to be tried again."""
    found = operation_steps.returnable(tx, seen.id, most)
    if found:  # what was asked for behind a config that was held may begin now
        mailboxes.mark_work(tx, found.values())
    moves = [
        (task, rules.taken_back(task, seen.state, tx.now))
        for task in tasks.many(tx, found)
        if place_of(task) in {Place.PENDING, Place.WAITING}
    ]
    _write(tx, moves)
    nodes_of = [task.node_id for task, _ in moves]
    return _Did(nodes_of, moves, waking=seen.waking, retrying=seen.retrying)


def _write(tx: Tx, moves: Sequence[tuple[Task, Task]]) -> None:
    """Write moves of tasks whose mailboxes are held: all of them stand where they were read."""
    if task_moves.write_moved(tx, moves) != len(moves):
        raise Overtaken


_STEPS = {"send": _send, "wake": _wake, "retry": _retry, "take_back": _take_back}
