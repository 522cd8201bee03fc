"""Rules that need what the tables say of the past: moves of tasks, lanes, cancels, ownership.

Plain functions that list violations, as those of ``kit.checker``, which ``check_all`` joins. What a
task may do is written down here once more: nothing of the product is used to judge it.
"""

from collections.abc import Iterable, Sequence

from kit.checker import REPAIR_SECONDS, check
from kit.history import CancelTold, Effect, Event, Owned, Retried, Withdrawn
from kit.operation_checks import operations
from kit.tables import AttemptRow, MoveRow, Record, TaskRow

_TRANSACTION_SECONDS = 6.0  #: it waits so long for a lock, at most, and a little
_CONFIG_LANE = {"apply_config", "reload"}
#: What a move is called, the status after it, and before it (``waiting``: failed, and due again).
#: What is taken from one that ran may end at once: its owner is gone, and it is rescued first.
_FROM_OPEN = {"pending", "waiting", "running"}
_MOVES = {
    "created": ("pending", {""}),
    "begun": ("running", {"pending", "waiting"}),
    "succeeded": ("success", {"running"}),
    "waiting": ("waiting", {"running", "pending"}),
    "failed": ("failed", _FROM_OPEN),
    "lost": ("pending", {"running"}),
    "expired": ("failed", _FROM_OPEN),
    "retried": ("pending", {"waiting", "failed"}),
    "superseded": ("superseded", _FROM_OPEN),
    "cancelling": ("running", {"running"}),
    "cancelled": ("cancelled", _FROM_OPEN),
}
#: By how much the attempt's number grows. What shares a failed probe counts one without having
#: begun, and of several moves in one breath (rescued, shared, superseded) only the last is told.
_NUMBERS = {
    "created": {0},
    "begun": {1},
    "succeeded": {0},
    "lost": {0},
    "retried": {0},
    "cancelling": {0},
}


def check_all(
    events: Sequence[Event],
    rows: Sequence[TaskRow],
    record: Record,
    repair: float = REPAIR_SECONDS,
) -> list[str]:
    """Return every violation of every rule, a line each; none: all is well.

    ``repair``: seconds a task may be open while nothing is disturbed.
    """
    return [
        *check(events, rows, repair),
        *moves(events, rows, record.moves),
        *lanes(rows, record.moves),
        *cancels(events, rows, record.attempts),
        *epochs(events, rows),
        *owners(events),
        *usurped(events, rows, record.attempts),
        *operations(events, rows, record),
    ]


def moves(events: Iterable[Event], rows: Iterable[TaskRow], record: Iterable[MoveRow]) -> list[str]:
    """Find tasks whose recorded moves are no way a task may go, or do not lead to its row.

    So what has ended moves no more (cancelled and success are never both), but for a retry of what
    failed; each attempt begins once, under the next number; and who retries or cancels is a person.
    """
    of_task: dict[int, list[MoveRow]] = {}
    for move in record:
        of_task.setdefault(move.task_id, []).append(move)
    retried = {e.request_id for e in events if isinstance(e, Retried)}
    withdrawn = {e.request_id for e in events if isinstance(e, Withdrawn)}
    wrong = []
    for row in rows:
        made = of_task.pop(row.id, [])
        wrong += [f"{row.request_id}: {told}" for told in _walk(row, made)]
        names = {move.what for move in made}
        alone = row.operation_id is None
        if "retried" in names and alone and row.request_id not in retried:
            wrong.append(f"{row.request_id}: retried, and nobody asked for that")
        if "cancelled" in names and alone and row.request_id not in withdrawn:
            wrong.append(f"{row.request_id}: cancelled, and nobody asked for that")
    return wrong + [f"task {task_id}: moved, and is not there" for task_id in of_task]


def _walk(row: TaskRow, made: Sequence[MoveRow]) -> list[str]:
    """Follow a task's moves; return what is wrong with them, up to the first that cannot be."""
    place, attempt = "", 0
    for move in made:
        if move.what == "created" and place and move.at == made[0].at:
            continue  # asked for at two replicas in the same millisecond: it is told twice
        target, origins = _MOVES.get(move.what, ("", set()))
        if place not in origins:
            return [f"{move.what} from {place or 'nothing'}"]
        if move.status != ("failed" if target == "waiting" else target):
            return [f"{move.what}, and its status is {move.status}"]
        if move.attempt - attempt not in _NUMBERS.get(move.what, {0, 1}):
            return [f"{move.what} as attempt {move.attempt} after attempt {attempt}"]
        place, attempt = target, move.attempt
    standing = "waiting" if row.status == "failed" and row.due_again else row.status
    if (place, attempt) != (standing, row.attempts):
        told = f"moved to {place or 'nothing'}, attempt {attempt}"
        return [f"{told}; its row says {standing}, attempt {row.attempts}"]
    return []


def lanes(rows: Iterable[TaskRow], record: Iterable[MoveRow]) -> list[str]:
    """Find config tasks of a node that were out side by side, or began in the wrong order.

    By the order of their moves: a time on record is when a transaction began, not when it counted.
    """
    tasks = {row.id: row for row in rows if row.kind in _CONFIG_LANE}
    out: dict[int, set[int]] = {}
    begun: dict[int, list[int]] = {}
    wrong = []
    for move in record:
        if (row := tasks.get(move.task_id)) is None or move.what == "cancelling":
            continue  # it is out as before
        running, firsts = out.setdefault(row.node_id, set()), begun.setdefault(row.node_id, [])
        running.discard(row.id)
        if move.what != "begun":
            continue
        for other in sorted(running):
            names = f"{tasks[other].request_id} and {row.request_id}"
            wrong.append(f"node {row.node_id}: {names} were out at the same time")
        running.add(row.id)
        newer = [tasks[first].request_id for first in firsts if first > row.id]
        # A reload of a paused operation lets others past, for as long as a person pauses.
        held = row.kind == "reload" and row.operation_id is not None
        if newer and row.id not in firsts and not held:
            wrong.append(f"node {row.node_id}: {row.request_id} began after {newer[-1]}")
        firsts.append(row.id)
    return wrong


def cancels(
    events: Sequence[Event], rows: Iterable[TaskRow], attempts: Iterable[AttemptRow]
) -> list[str]:
    """Find tasks that had an effect though a client was told that they are cancelled.

    One that had been sent may have had it, or may be at it: until its time limit is over.
    """
    told = {e.request_id: e.at for e in events if isinstance(e, CancelTold) and _ended(e)}
    tasks = {row.request_id: row for row in rows}
    arrived = {attempt.task_id for attempt in attempts if attempt.outcome != "unreachable"}
    wrong = [
        f"{name}: told to be cancelled, and is {tasks[name].status}"
        for name in told
        if name in tasks and tasks[name].status != "cancelled"
    ]
    for event in events:
        if not isinstance(event, Effect) or event.request_id not in told:
            continue
        row = tasks.get(event.request_id)
        if row is None:
            continue
        late = event.at > told[event.request_id] + row.timeout_seconds
        if late or row.id not in arrived:
            wrong.append(f"{event.request_id}: took effect, and was told to be cancelled")
    return wrong


def _ended(event: CancelTold) -> bool:
    return event.status == "cancelled"


def epochs(events: Iterable[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find effects of requests that an agent took under an epoch lower than one it knew."""
    nodes = {row.request_id: row.node_id for row in rows}
    told = [e for e in events if isinstance(e, Effect) and e.epoch is not None and e.taken]
    highest: dict[int, int] = {}
    wrong = []
    for event in sorted(told, key=lambda e: e.taken or 0.0):
        node_id, epoch = nodes.get(event.request_id, 0), event.epoch or 0
        known = highest.get(node_id, 0)
        if epoch < known:
            wrong.append(f"{event.request_id}: taken under epoch {epoch} after {known}")
        highest[node_id] = max(epoch, known)
    return wrong


def owners(events: Iterable[Event]) -> list[str]:
    """Find nodes whose epoch fell, or that changed hands under the same one."""
    last: dict[int, tuple[str | None, int]] = {}
    wrong = []
    for event in events:
        if not isinstance(event, Owned):
            continue
        for node_id, who, epoch in event.owners:
            before, known = last.get(node_id, (None, 0))
            if epoch < known:
                wrong.append(f"node {node_id}: epoch {epoch} after {known}")
            elif epoch == known and who is not None and before not in {None, who}:
                wrong.append(f"node {node_id}: {who} after {before} under epoch {epoch}")
            last[node_id] = (who if who is not None or epoch > known else before, epoch)
    return wrong


def usurped(
    events: Iterable[Event], rows: Iterable[TaskRow], attempts: Iterable[AttemptRow]
) -> list[str]:
    """Find attempts that somebody ended while another held the node, before that moment and after.

    For as long after as the transaction may have taken: the moment is when that began. Who is dead
    has its attempts ended by the next owner, in its name: those are ``lost``.
    """
    nodes = {row.id: (row.node_id, row.request_id) for row in rows}
    looks = [event for event in events if isinstance(event, Owned)]
    held = [{n: (who, epoch) for n, who, epoch in look.owners} for look in looks]
    wrong = []
    for attempt in attempts:
        if attempt.outcome == "lost" or attempt.task_id not in nodes:
            continue
        node_id, name = nodes[attempt.task_id]
        until = attempt.ended + _TRANSACTION_SECONDS
        around = [
            number
            for number, look in enumerate(looks)
            if look.seen < attempt.ended or attempt.ended < look.asked < until
        ]
        before = [number for number in around if looks[number].seen < attempt.ended][-1:]
        after = [number for number in around if looks[number].asked > attempt.ended]
        seen = {held[number].get(node_id) for number in (*before, *after)}
        holder = next(iter(seen)) if len(seen) == 1 else None
        if before and after and holder and holder[0] not in {None, attempt.replica}:
            told = f"{attempt.replica} ended attempt {attempt.number}"
            wrong.append(f"{name}: {told}, and {holder[0]} held node {node_id}")
    return wrong
