"""Tasks moved by the rules, written back: each write names what it believes of its row.

Every move that is written appends its event here, in the same transaction.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Update, bindparam, or_, select, update

from edgeplane.model.events import EventType
from edgeplane.model.tasks import Outcome, Task, TaskStatus, lane_of
from edgeplane.store import events
from edgeplane.store.prepared import Items, Prepared, named
from edgeplane.store.rows import agent_tasks
from edgeplane.store.workers import Tx

_T = agent_tasks.c

_FENCES = Prepared(
    lambda items: select(_T.id, _T.status, _T.attempts, _T.cancel_requested).where(
        _T.id.in_(items.named("tasks"))
    )
)
_BEGUN = Prepared(
    lambda items: (
        update(agent_tasks)
        .where(
            _T.id.in_(items.named("tasks")),
            or_(_T.status == TaskStatus.PENDING.value, _T.status == TaskStatus.FAILED.value),
        )
        .values(
            status=TaskStatus.RUNNING.value,
            attempts=_T.attempts + 1,
            next_retry_at=None,
            started_at=bindparam("now"),
            updated_at=bindparam("now"),
        )
    )
)
_SUCCEEDED = Prepared(
    lambda items: (
        update(agent_tasks)
        .where(_T.id.in_(items.named("tasks")), _T.status == TaskStatus.RUNNING.value)
        .values(
            status=TaskStatus.SUCCESS.value,
            lane=None,
            outcome=Outcome.SUCCEEDED.value,
            last_error=None,
            counted_attempts=_T.counted_attempts + 1,
            finished_at=bindparam("now"),
            updated_at=bindparam("now"),
        )
    )
)
_MOVABLE = (
    "status",
    "lane",
    "generation",
    "outcome",
    "last_error",
    "attempts",
    "counted_attempts",
    "run",
    "deadline_at",
    "next_retry_at",
    "started_at",
    "finished_at",
    "updated_at",
    "superseded_by",
    "cancel_requested",
)


def _move(_: Items) -> Update:
    return (
        update(agent_tasks)
        .where(
            _T.id == bindparam("row_id"),
            _T.attempts == bindparam("believed_attempts"),
            _T.status == bindparam("believed_status"),
        )
        .values(named(_MOVABLE))
    )


_MOVED = Prepared(_move)
_WAITING_FOR_NODE = Prepared(
    lambda items: (
        update(agent_tasks)
        .where(
            _T.node_id.in_(items.named("nodes")),
            _T.lane.is_not(None),
            _T.status == TaskStatus.FAILED.value,
            _T.outcome == Outcome.UNREACHABLE.value,
        )
        .values(next_retry_at=bindparam("due"), updated_at=bindparam("now"))
    )
)


def write_begun(tx: Tx, tasks: Sequence[Task]) -> None:
    """Write that attempts began (tasks as they are now): the rows are held by their mailboxes."""
    if tasks:
        count = _BEGUN.change(tx, {"now": tx.now}, tasks=[task.id for task in tasks])
        _tell(tx, [(EventType.BEGUN.value, task) for task in tasks], count - len(tasks))


def write_succeeded(tx: Tx, tasks: Sequence[Task]) -> None:
    """Write many successes (tasks as they are now) in one statement."""
    if tasks:
        count = _SUCCEEDED.change(tx, {"now": tx.now}, tasks=[task.id for task in tasks])
        _tell(tx, [(EventType.SUCCEEDED.value, task) for task in tasks], count - len(tasks))


def write_moved(tx: Tx, moves: Sequence[tuple[Task, Task]]) -> int:
    """Write tasks moved by the rules, each only if it still stands where it was read.

    Args:
        tx: the transaction.
        moves: pairs of a task as it was read and as it must be.

    Returns:
        How many rows were as believed; the others were left alone.

    """
    if not moves:
        return 0
    count = _MOVED.change_many(
        tx,
        [
            {
                "row_id": before.id,
                "believed_attempts": before.attempts,
                "believed_status": before.status.value,
                **_moved_values(after),
            }
            for before, after in moves
        ],
    )
    _tell(tx, events.told(moves), count - len(moves))
    return count


def _tell(tx: Tx, told: Sequence[events.Told], short: int) -> None:
    """Append the events of what was written; where not all was, of what stands as written."""
    if short:
        rows = _FENCES.rows(tx, tasks=sorted(task.id for _, task in told)) if told else []
        standing = {(row[0], row[1], row[2]) for row in rows}
        told = [each for each in told if _stands(each[1]) in standing]
    events.append(tx, told)


def _stands(task: Task) -> tuple[int, str, int]:
    return task.id, task.status.value, task.attempts


def pull_forward(tx: Tx, node_ids: Sequence[int]) -> None:
    """Make due now what only waited because its node could not be reached."""
    if node_ids:
        _WAITING_FOR_NODE.change(tx, {"due": tx.now, "now": tx.now}, nodes=node_ids)


def still_running(tx: Tx, fences: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bool]:
    """Return those of these tasks (id, attempt) that still run under that very attempt.

    With each: whether it has been cancelled since.
    """
    rows = _FENCES.rows(tx, tasks=sorted({task_id for task_id, _ in fences}))
    running = {(row[0], row[2]): bool(row[3]) for row in rows if row[1] == TaskStatus.RUNNING.value}
    return {fence: running[fence] for fence in fences if fence in running}


def _moved_values(task: Task) -> dict[str, Any]:
    return {
        "v_status": task.status.value,
        "v_lane": None if task.final else lane_of(task.kind).value,
        "v_generation": task.generation,
        "v_outcome": task.outcome.value if task.outcome else None,
        "v_last_error": task.last_error,
        "v_attempts": task.attempts,
        "v_counted_attempts": task.counted_attempts,
        "v_run": task.run,
        "v_deadline_at": task.deadline_at,
        "v_next_retry_at": task.next_retry_at,
        "v_started_at": task.started_at,
        "v_finished_at": task.finished_at,
        "v_updated_at": task.updated_at,
        "v_superseded_by": task.superseded_by,
        "v_cancel_requested": task.cancel_requested,
    }
