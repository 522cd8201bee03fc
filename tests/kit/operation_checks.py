"""What must hold for operations: one task per node, true counts, limits, pauses and ends."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kit.history import Event, OperationAccepted, OperationAsked, OperationTold, Retried
from kit.tables import AttemptRow, MoveRow, OperationRow, Record, TaskRow

#: A transaction that began before one committed may commit after it, and tells when it began.
_TRANSACTION_SECONDS = 2.0
_ENDS = {"done", "stopped", "cancelled"}
_AFTER = {"created": "pending", "retried": "pending", "lost": "pending", "begun": "running"}
_AFTER |= {"cancelling": "running"}


@dataclass(frozen=True, slots=True)
class _Seen:
    """An operation with all that bears on it."""

    accepted: OperationAccepted
    row: OperationRow
    tasks: Sequence[TaskRow]
    events: Sequence[Event]
    attempts: Sequence[AttemptRow]
    moves: Sequence[MoveRow]

    def asked(self, what: str) -> list[OperationAsked]:
        """Return what a client asked of it."""
        return [e for e in self.events if isinstance(e, OperationAsked) and self._is(e, what)]

    def told(self, what: str) -> list[OperationTold]:
        """Return what a client was answered."""
        return [e for e in self.events if isinstance(e, OperationTold) and self._is(e, what)]

    def done(self, what: str) -> list[OperationTold]:
        """Return what a client was told to have happened."""
        return [event for event in self.told(what) if event.done]

    def _is(self, event: OperationAsked | OperationTold, what: str) -> bool:
        return event.operation_id == self.row.id and event.what == what

    @property
    def retried(self) -> bool:
        """Whether anybody retried it, or one of its tasks."""
        names = {task.request_id for task in self.tasks}
        return any(
            isinstance(event, Retried)
            and (event.operation_id == self.row.id or event.request_id in names)
            for event in self.events
        )


def operations(events: Sequence[Event], rows: Iterable[TaskRow], record: Record) -> list[str]:
    """Return what is wrong with operations, a line each."""
    known: dict[str, list[OperationRow]] = {}
    for row in record.operations:
        known.setdefault(row.request_id, []).append(row)
    tasks = list(rows)
    wrong = []
    for event in events:
        if not isinstance(event, OperationAccepted):
            continue
        found = known.get(event.request_id, [])
        if [row.id for row in found] != [event.operation_id]:
            stored = [row.id for row in found] or "nothing"
            told = f"accepted as operation {event.operation_id}, stored as {stored}"
            wrong.append(f"{event.request_id}: {told}")
            continue
        seen = _seen(event, found[0], tasks, events, record)
        for rule in (_nodes, _counts, _end, _pauses, _cancelled, _failures, _concurrency):
            wrong += [f"{event.request_id}: {told}" for told in rule(seen)]
    return wrong


def _seen(
    told: OperationAccepted,
    row: OperationRow,
    tasks: Iterable[TaskRow],
    events: Sequence[Event],
    record: Record,
) -> _Seen:
    own = [task for task in tasks if task.operation_id == row.id]
    ids = {task.id for task in own}
    return _Seen(
        told,
        row,
        own,
        events,
        [attempt for attempt in record.attempts if attempt.task_id in ids],
        [move for move in record.moves if move.task_id in ids],
    )


def _nodes(seen: _Seen) -> Iterator[str]:
    """Each node has one task, or is left out by an end before its turn, or was passed over."""
    per_node = Counter(task.node_id for task in seen.tasks)
    yield from (f"{n} tasks for node {node}" for node, n in per_node.items() if n > 1)
    counts = seen.row.counts
    accounted = len(per_node) + counts["unsent"] + counts["skipped"]
    if accounted != len(seen.accepted.nodes):
        yield f"{accounted} nodes are accounted for, {len(seen.accepted.nodes)} were meant"
    if counts["unsent"] != seen.row.targets:
        yield f"{counts['unsent']} unsent, {seen.row.targets} targets left"
    if seen.row.state == "done" and counts["unsent"]:
        yield f"done, and {counts['unsent']} nodes never got their task"


def _counts(seen: _Seen) -> Iterator[str]:
    """What its row counts is what its tasks show."""
    shown = Counter(_standing(task) for task in seen.tasks)
    for name, number in seen.row.counts.items():
        if name not in {"unsent", "skipped"} and number != shown[name]:
            yield f"counts {number} {name}, there are {shown[name]}"


def _standing(task: TaskRow) -> str:
    if task.final:
        return task.status
    away = task.outcome == "unreachable"
    if task.status == "pending":
        return "pending"
    if away:
        return "unreachable"
    return "running" if task.status == "running" else "waiting"


def _end(seen: _Seen) -> Iterator[str]:
    """It has ended, as it was told to, and with it all its tasks."""
    state = seen.row.state
    if state not in _ENDS:
        yield f"has not ended: {state}"
    if seen.done("cancel") and state != "cancelled":
        yield f"told to be cancelled, and is {state}"
    if state == "cancelled" and not seen.asked("cancel"):
        yield "cancelled, and nobody asked for that"
    if state == "stopped" and seen.accepted.max_failures is None:
        yield "stopped, and has no limit of failures"
    left = [task.request_id for task in seen.tasks if not task.final]
    if state in _ENDS and left:
        yield f"{state}, and {left} are open"


def _pauses(seen: _Seen) -> Iterator[str]:
    """No attempt of it begins between the answer to a pause and the asking to go on.

    Where somebody's asking to go on was under way beside the pause, which came last is not known.
    """
    for paused in seen.done("pause"):
        before = [asked.wall for asked in seen.asked("resume") if asked.wall < paused.wall]
        answered = {told.asked for told in seen.told("resume") if told.wall < paused.asked}
        if not answered.issuperset(before):
            continue
        ways_on = [asked.wall for asked in seen.asked("resume") if asked.wall >= paused.wall]
        on = min(ways_on, default=float("inf"))
        for attempt in seen.attempts:
            if attempt.sent and paused.wall < attempt.begun < on:
                late = attempt.begun - paused.wall
                yield f"task {attempt.task_id} began {late:.3f} s into a pause"


def _cancelled(seen: _Seen) -> Iterator[str]:
    """Nothing of it begins once a cancel was told, unless somebody retries it."""
    if seen.retried:
        return
    for cancelled in seen.done("cancel"):
        for attempt in seen.attempts:
            if attempt.sent and attempt.begun > cancelled.wall:
                late = attempt.begun - cancelled.wall
                yield f"task {attempt.task_id} began {late:.3f} s after the cancel"


def _failures(seen: _Seen) -> Iterator[str]:
    """Once as many failed as may, nothing more of it begins; and it stops for no less."""
    limit = seen.accepted.max_failures
    if limit is None or seen.retried:
        return
    reached = {attempt.task_id for attempt in seen.attempts if attempt.outcome != "unreachable"}
    stopped = {task.id for task in seen.tasks if "operation stopped" in (task.last_error or "")}
    failures = sorted(
        move.at
        for move in seen.moves
        if move.what in {"failed", "expired"}
        and move.task_id in reached
        and move.task_id not in stopped
    )
    if seen.row.state == "stopped" and len(failures) < limit:
        yield f"stopped after {len(failures)} failures, {limit} were to stop it"
    if len(failures) >= limit:
        over = failures[limit - 1] + _TRANSACTION_SECONDS
        late = [attempt for attempt in seen.attempts if attempt.sent and attempt.begun > over]
        yield from (f"task {attempt.task_id} began after {limit} failures" for attempt in late)


def _concurrency(seen: _Seen) -> Iterator[str]:
    """A task is made only where fewer than the limit are out.

    One that cannot be reached takes no place and may come back at any moment: where there was one,
    this says nothing.
    """
    limit = seen.accepted.max_concurrency
    away = any(attempt.outcome == "unreachable" for attempt in seen.attempts)
    if limit is None or away or seen.retried:
        return
    out: set[int] = set()
    for move in seen.moves:
        place = _AFTER.get(move.what, "waiting" if move.what == "waiting" else "")
        if place:
            out.add(move.task_id)
        else:
            out.discard(move.task_id)
        if move.what == "created" and len(out) > limit:
            yield f"{len(out)} tasks were out at once, {limit} may be"
