"""The rules for operations: each lets a good run pass, and finds what is broken."""

from dataclasses import replace

import pytest

from kit.history import OperationAccepted, OperationAsked, OperationTold, Retried
from kit.operation_checks import operations
from kit.tables import COUNTS, AttemptRow, MoveRow, OperationRow, Record, TaskRow

ACCEPTED = OperationAccepted(
    at=0.0, request_id="o", operation_id=3, kind="reload", nodes=(7, 8), max_concurrency=1
)
COUNTED = {**dict.fromkeys(COUNTS, 0), "success": 2}
OPERATION = OperationRow(
    id=3,
    request_id="o",
    state="done",
    max_concurrency=1,
    max_failures=None,
    counts=COUNTED,
    targets=0,
)


def task(number, **given):
    """Make a task of the operation, for node 6 + number."""
    values = {
        "id": number,
        "node_id": 6 + number,
        "request_id": f"op3-n{number}",
        "kind": "reload",
        "status": "success",
        "superseded_by": None,
        "due_again": False,
        "attempts": 1,
        "last_error": None,
        "numbers": (1,),
        "operation_id": 3,
    }
    return TaskRow(**{**values, **given})


def attempt(task_id, begun, outcome="succeeded"):
    """Make an attempt that took a second."""
    return AttemptRow(
        task_id=task_id, number=1, begun=begun, ended=begun + 1, outcome=outcome, replica="r"
    )


def move(number, what, task_id, at=0.0):
    """Make a move."""
    return MoveRow(id=number, at=at, what=what, task_id=task_id, status="", attempt=0)


IN_TURN = (
    move(1, "created", 1),
    move(2, "begun", 1),
    move(3, "succeeded", 1),
    move(4, "created", 2),
    move(5, "begun", 2),
    move(6, "succeeded", 2),
)
TASKS = (task(1), task(2))
RECORD = Record(
    attempts=(attempt(1, 100.0), attempt(2, 101.0)), moves=IN_TURN, operations=(OPERATION,)
)


def asked(what, wall):
    """Let a client ask at a time of the wall clock."""
    return OperationAsked(at=0.0, wall=wall, operation_id=3, what=what)


def told(what, wall, begun=None, *, done=True):
    """Let it be answered."""
    return OperationTold(
        at=0.0, wall=wall, asked=wall if begun is None else begun, operation_id=3, what=what,
        done=done,
    )  # fmt: skip


def with_operation(**given):
    """Make the record with another row of the operation."""
    return replace(RECORD, operations=(replace(OPERATION, **given),))


def test_a_good_operation_passes():
    """Each node in turn, counted, done; what nobody asked to be told of is no matter here."""
    assert operations([ACCEPTED], TASKS, RECORD) == []
    assert operations([ACCEPTED, ACCEPTED], TASKS, RECORD) == []


@pytest.mark.parametrize(
    ("tasks", "record", "found"),
    [
        (TASKS, replace(RECORD, operations=()), "accepted as operation 3, stored as nothing"),
        (TASKS, with_operation(id=4), "accepted as operation 3, stored as [4]"),
        ((*TASKS, task(3, node_id=7)), RECORD, "2 tasks for node 7"),
        (TASKS[:1], RECORD, "1 nodes are accounted for, 2 were meant"),
        (TASKS, with_operation(counts={**COUNTED, "success": 1}), "counts 1 success, there are 2"),
        (
            (task(1), task(2, status="cancelled")),
            RECORD,
            "counts 2 success, there are 1",
        ),
        (
            TASKS[:1],
            with_operation(counts={**COUNTED, "success": 1, "unsent": 1}),
            "1 unsent, 0 targets left",
        ),
        (
            TASKS[:1],
            with_operation(counts={**COUNTED, "success": 1, "unsent": 1}, targets=1),
            "done, and 1 nodes never got their task",
        ),
        (TASKS, with_operation(state="running"), "has not ended: running"),
        (TASKS, with_operation(state="cancelled"), "cancelled, and nobody asked for that"),
        (TASKS, with_operation(state="stopped"), "stopped, and has no limit of failures"),
        (
            (task(1), task(2, status="running")),
            with_operation(counts={**COUNTED, "success": 1, "running": 1}),
            "done, and ['op3-n2'] are open",
        ),
    ],
)
def test_a_broken_operation_is_told(tasks, record, found):
    """The violation is among those found."""
    assert f"o: {found}" in operations([ACCEPTED], tasks, record)


def test_a_cancel_that_was_told_ends_it():
    """Cancelled it is then, and nothing of it begins any more, unless it is retried."""
    events = [ACCEPTED, asked("cancel", 100.4), told("cancel", 100.5)]
    wrong = operations(events, TASKS, RECORD)
    assert "o: told to be cancelled, and is done" in wrong
    assert "o: task 2 began 0.500 s after the cancel" in wrong
    assert not any("after the cancel" in line for line in operations(events[:2], TASKS, RECORD))
    retried = Retried(at=0.0, request_id="op3-n2")
    assert not any("began" in line for line in operations([*events, retried], TASKS, RECORD))
    refused = [ACCEPTED, asked("cancel", 100.4), told("cancel", 100.5, done=False)]
    assert operations(refused, TASKS, RECORD) == []


def test_what_begins_in_a_pause_is_told():
    """Between its answer and the asking to go on; not where going on was under way beside it."""
    pause = [ACCEPTED, asked("pause", 100.4), told("pause", 100.5, 100.4)]
    words = "o: task 2 began 0.500 s into a pause"
    assert operations(pause, TASKS, RECORD) == [words]
    assert operations([*pause, asked("resume", 101.1)], TASKS, RECORD) == [words]
    assert operations([*pause, asked("resume", 100.9)], TASKS, RECORD) == []
    assert operations([*pause, asked("resume", 100.45)], TASKS, RECORD) == []
    before = [asked("resume", 100.1), told("resume", 100.2, 100.1, done=False)]
    assert operations([*before, *pause], TASKS, RECORD) == [words]
    assert operations([before[0], *pause], TASKS, RECORD) == []
    shared = replace(RECORD, attempts=(replace(attempt(2, 101.0, "unreachable"), ended=101.0),))
    assert operations(pause, TASKS, shared) == []


def failing(*, begun):
    """Make a run in which the first task fails and the second begins at some time."""
    tasks = (task(1, status="failed", outcome="failed"), task(2))
    record = replace(
        with_operation(max_failures=1, counts={**COUNTED, "success": 1, "failed": 1}),
        attempts=(attempt(1, 100.0, "failed"), attempt(2, begun)),
        moves=(IN_TURN[0], IN_TURN[1], move(3, "failed", 1, at=101.0), *IN_TURN[3:]),
    )
    return [replace(ACCEPTED, max_failures=1)], tasks, record


def test_too_many_failures_stop_it():
    """What begins a moment later may have been on its way; and no fewer failures stop it."""
    assert operations(*failing(begun=102.9)) == []
    assert operations(*failing(begun=103.1)) == ["o: task 2 began after 1 failures"]
    events = [replace(ACCEPTED, max_failures=1)]
    stopped = with_operation(state="stopped", max_failures=1)
    assert operations(events, TASKS, stopped) == ["o: stopped after 0 failures, 1 were to stop it"]


def test_more_out_at_once_than_may_be_is_told():
    """Not where a node could not be reached: it takes no place, and may come back at any time."""
    beside = (IN_TURN[0], IN_TURN[1], IN_TURN[3], IN_TURN[2], *IN_TURN[4:])
    crowded = replace(RECORD, moves=beside)
    assert operations([ACCEPTED], TASKS, crowded) == ["o: 2 tasks were out at once, 1 may be"]
    away = replace(crowded, attempts=(attempt(1, 100.0, "unreachable"), attempt(2, 101.0)))
    assert operations([ACCEPTED], TASKS, away) == []
    free = [replace(ACCEPTED, max_concurrency=None)]
    assert operations(free, TASKS, crowded) == []
