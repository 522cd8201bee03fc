"""The rules that read the tables' past: each lets a good run pass, and finds what is broken."""

from dataclasses import replace

import pytest

from kit.checker import check
from kit.checks import cancels, check_all, epochs, lanes, moves, owners, usurped
from kit.history import (
    Accepted,
    CancelTold,
    Effect,
    Ended,
    Event,
    OperationAccepted,
    OperationAsked,
    Owned,
    Placed,
    Retried,
    Unheard,
    Withdrawn,
)
from kit.tables import AttemptRow, MoveRow, Record, TaskRow

PLACED = Placed(at=-1.0, node_id=7, agent="agent", folder="/one")
ACCEPTED = Accepted(at=0.0, request_id="a", task_id=1, node_id=7)
EFFECT = Effect(at=1.0, request_id="a", file="/one/a")
ENDED = Ended(at=2.0, request_id="a")
GOOD: list[Event] = [PLACED, ACCEPTED, EFFECT, ENDED]


def row(**given):
    """Make a row of a task that went well."""
    values = {
        "id": 1,
        "node_id": 7,
        "request_id": "a",
        "kind": "apply_config",
        "status": "success",
        "superseded_by": None,
        "due_again": False,
        "attempts": 1,
        "last_error": None,
        "numbers": (1,),
        "generation": 10,
    }
    return TaskRow(**{**values, **given})


def attempt(task_id=1, number=1, begun=100.0, ended=101.0, outcome="succeeded", replica="r1"):
    """Make an attempt."""
    return AttemptRow(
        task_id=task_id, number=number, begun=begun, ended=ended, outcome=outcome, replica=replica
    )


_STATUS = {"created": "pending", "begun": "running", "succeeded": "success", "lost": "pending"}
_STATUS |= {"waiting": "failed", "expired": "failed", "retried": "pending", "cancelling": "running"}


def walk(*steps, task_id=1):
    """Make a task's moves: names, each with the number of its attempt."""
    return [
        MoveRow(
            id=number,
            at=100.0 + number,
            what=what,
            task_id=task_id,
            status=_STATUS.get(what, what),
            attempt=counted,
        )
        for number, (what, counted) in enumerate(steps)
    ]


WELL = walk(("created", 0), ("begun", 1), ("succeeded", 1))


def test_a_good_run_passes_every_rule():
    """Made, begun, done: nothing to say."""
    record = Record(attempts=(attempt(),), moves=tuple(WELL))
    assert check_all(GOOD, [row()], record) == []


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (Record(attempts=(attempt(),)), "a: moved to nothing, attempt 0; its row says success"),
        (
            Record(attempts=(attempt(),), moves=(*WELL[:2], *walk(("begun", 1), task_id=2))),
            "node 7: a and b were out at the same time",
        ),
    ],
)
def test_every_rule_is_asked(record, found):
    """What is found by one of them is found by all together."""
    rows = [row(), row(id=2, request_id="b", kind="reload", generation=None)]
    assert any(line.startswith(found) for line in check_all(GOOD, rows, record))


@pytest.mark.parametrize(
    ("steps", "status", "attempts"),
    [
        ([("created", 0), ("waiting", 1), ("begun", 2), ("lost", 2), ("begun", 3)], "running", 3),
        ([("created", 0), ("begun", 1), ("lost", 1), ("waiting", 2), ("superseded", 2)], None, 2),
        ([("created", 0), ("begun", 1), ("superseded", 2)], "superseded", 2),
        ([("created", 0), ("begun", 1), ("failed", 1), ("retried", 1), ("begun", 2)], "running", 2),
        ([("created", 0), ("begun", 1), ("cancelled", 1)], "cancelled", 1),
        ([("created", 0), ("begun", 1), ("cancelling", 1), ("succeeded", 1)], "success", 1),
    ],
)
def test_the_ways_a_task_may_go(steps, status, attempts):
    """Lost and begun again, tried again, taken back, made way."""
    events: list[Event] = [Withdrawn(at=0.0, request_id="a"), Retried(at=0.0, request_id="a")]
    standing = row(status=status or steps[-1][0], attempts=attempts)
    assert moves(events, [standing], walk(*steps)) == []


@pytest.mark.parametrize(
    ("steps", "standing", "found"),
    [
        ([("begun", 1)], {}, "a: begun from nothing"),
        ([("created", 0), ("cancelling", 0)], {}, "a: cancelling from pending"),
        ([*[("created", 0), ("begun", 1)] * 2], {}, "a: created from running"),
        (
            [("created", 0), ("begun", 1), ("cancelled", 1), ("succeeded", 1)],
            {},
            "a: succeeded from cancelled",
        ),
        (
            [("created", 0), ("begun", 1), ("succeeded", 1), ("cancelled", 1)],
            {},
            "a: cancelled from success",
        ),
        (
            [("created", 0), ("begun", 1), ("succeeded", 1), ("succeeded", 1)],
            {},
            "a: succeeded from success",
        ),
        ([("created", 0), ("succeeded", 0)], {}, "a: succeeded from pending"),
        ([("created", 0), ("begun", 2)], {}, "a: begun as attempt 2 after attempt 0"),
        (
            [("created", 0), ("begun", 1), ("lost", 1), ("begun", 1)],
            {},
            "a: begun as attempt 1 after attempt 1",
        ),
        ([("created", 0), ("begun", 1), ("succeeded", 2)], {}, "a: succeeded as attempt 2"),
        ([("created", 0), ("begun", 1), ("gone", 1)], {}, "a: gone from running"),
        (
            [("created", 0), ("begun", 1)],
            {},
            "a: moved to running, attempt 1; its row says success, attempt 1",
        ),
        (
            [("created", 0), ("begun", 1), ("succeeded", 1)],
            {"attempts": 2},
            "a: moved to success, attempt 1; its row says success, attempt 2",
        ),
        (
            [("created", 0), ("begun", 1), ("failed", 1), ("retried", 1)],
            {"status": "pending"},
            "a: retried, and nobody asked for that",
        ),
        (
            [("created", 0), ("cancelled", 0)],
            {"status": "cancelled", "attempts": 0},
            "a: cancelled, and nobody asked for that",
        ),
    ],
)
def test_a_way_no_task_may_go_is_told(steps, standing, found):
    """Whatever led to it."""
    assert any(told.startswith(found) for told in moves([], [row(**standing)], walk(*steps)))


def test_a_status_that_does_not_fit_its_move_is_told():
    """A task that is said to have succeeded must be ``success``."""
    last = replace(WELL[-1], status="failed")
    assert moves([], [row()], [*WELL[:-1], last]) == ["a: succeeded, and its status is failed"]


def test_a_creation_may_be_told_by_two_replicas():
    """That were asked in the same millisecond, and only then."""
    assert moves([], [row()], [*WELL[:2], WELL[0], WELL[2]]) == []
    other = replace(WELL[0], at=WELL[0].at + 0.001)
    assert moves([], [row()], [*WELL[:2], other, WELL[2]]) == ["a: created from running"]


def test_moves_of_a_task_that_is_not_there_are_told():
    """It was there once."""
    assert moves([], [], WELL) == ["task 1: moved, and is not there"]


TWO = [row(), row(id=2, request_id="b", kind="reload", generation=None)]


def sequence(*steps: tuple[int, str]):
    """Make moves of several tasks in one order: (task, what)."""
    return [
        MoveRow(id=number, at=0.0, what=what, task_id=task_id, status="", attempt=0)
        for number, (task_id, what) in enumerate(steps)
    ]


def test_config_tasks_that_follow_each_other_are_in_order():
    """Purges and other nodes do not matter; what began once may begin again behind a newer one."""
    others = [row(id=3, kind="purge_cache", request_id="c"), row(id=4, node_id=8, request_id="d")]
    beside = [(3, "begun"), (4, "begun")]
    steps = [(1, "begun"), *beside, (1, "succeeded"), (2, "begun"), (2, "succeeded")]
    assert lanes([*TWO, *others], sequence(*steps)) == []
    again = [(1, "begun"), (1, "failed"), (2, "begun"), (2, "lost"), (1, "retried"), (1, "begun")]
    assert lanes(TWO, sequence(*again)) == []


def test_config_tasks_out_of_order_are_told():
    """Out side by side, or the newer one first."""
    beside = lanes(TWO, sequence((1, "begun"), (2, "begun"), (1, "succeeded"), (2, "succeeded")))
    assert beside == ["node 7: a and b were out at the same time"]
    still = lanes(TWO, sequence((1, "begun"), (1, "cancelling"), (2, "begun")))
    assert still == ["node 7: a and b were out at the same time"]
    wrong = lanes(TWO, sequence((2, "begun"), (2, "succeeded"), (1, "begun"), (1, "succeeded")))
    assert wrong == ["node 7: a began after b"]


TOLD = CancelTold(at=0.5, request_id="a", status="cancelled")


def test_a_cancel_that_was_told_is_kept():
    """What was sent before may have had its effect; what was not has none, ever."""
    cancelled = row(status="cancelled")
    assert cancels([TOLD, EFFECT], [cancelled], [attempt(outcome="unanswered")]) == []
    out: list[Event] = [replace(TOLD, status="running"), EFFECT]
    assert cancels(out, [row()], [attempt()]) == []
    words = "a: took effect, and was told to be cancelled"
    assert cancels([TOLD, EFFECT], [cancelled], []) == [words]
    assert cancels([TOLD, EFFECT], [cancelled], [attempt(outcome="unreachable")]) == [words]
    late = replace(EFFECT, at=0.5 + 30.1)
    assert cancels([TOLD, late], [cancelled], [attempt(outcome="unanswered")]) == [words]
    assert cancels([TOLD], [row()], [attempt()]) == ["a: told to be cancelled, and is success"]


def test_an_effect_under_a_past_epoch_is_told():
    """By when requests were taken, not by when they took effect; each node has its own epochs."""
    old = replace(EFFECT, epoch=5, taken=0.5, at=3.0)
    new = replace(EFFECT, request_id="b", epoch=6, taken=0.6, at=1.0)
    assert epochs([new, old], TWO) == []
    assert epochs([new, replace(old, taken=0.7)], TWO) == ["a: taken under epoch 5 after 6"]
    elsewhere = [row(), row(id=2, node_id=8, request_id="b")]
    assert epochs([new, replace(old, taken=0.7)], elsewhere) == []


def owned(at, *held):
    """Make a look at who holds which node."""
    return Owned(at=at, asked=at, seen=at + 0.01, owners=held)


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        ([(7, "r1", 5), (7, None, 5), (7, "r2", 6)], []),
        ([(7, "r1", 5), (7, "r1", 5), (7, "r2", 6)], []),
        ([(7, "r1", 5), (7, "r2", 5)], ["node 7: r2 after r1 under epoch 5"]),
        ([(7, "r1", 5), (7, None, 5), (7, "r2", 5)], ["node 7: r2 after r1 under epoch 5"]),
        ([(7, "r1", 5), (7, "r2", 4)], ["node 7: epoch 4 after 5"]),
    ],
)
def test_a_node_changes_hands_under_a_new_epoch(looks, found):
    """And epochs only grow."""
    assert owners([owned(at, held) for at, held in enumerate(looks)]) == found


def test_who_ends_what_another_holds_is_told():
    """Where the other held the node before and after, and no owner's end was the reason."""
    by_other = [owned(at, (7, "r2", 5)) for at in (100.0, 102.0, 106.0, 108.0)]
    words = "a: r1 ended attempt 1, and r2 held node 7"
    assert usurped(by_other, [row()], [attempt()]) == [words]
    assert usurped(by_other, [row()], [attempt(outcome="lost")]) == []
    assert usurped(by_other, [row()], [attempt(replica="r2")]) == []
    assert usurped([owned(100.0, (7, "r1", 4)), *by_other[1:]], [row()], [attempt()]) == []
    let_go = [*by_other[:2], owned(106.0, (7, None, 5)), by_other[3]]
    assert usurped(let_go, [row()], [attempt()]) == []
    later = [*by_other[:3], owned(108.0, (7, None, 5))]
    assert usurped(later, [row()], [attempt()]) == [words]


def test_the_config_in_effect_is_the_newest_that_succeeded():
    """A newer generation may be in effect of which nobody heard; an older one may not."""
    old = row(generation=9)
    newer = row(id=2, request_id="b", generation=10)
    words = "b: succeeded, the newest in effect is task 1"
    assert words in check([*GOOD, replace(ENDED, request_id="b")], [old, newer])
    retried = row(generation=11)  # it is the newest again: its effect is of that generation
    both: list[Event] = [
        *GOOD[:2],
        replace(ACCEPTED, request_id="b", task_id=2),
        replace(EFFECT, request_id="b", generation=10),
        replace(EFFECT, generation=11),
        ENDED,
        replace(ENDED, request_id="b"),
    ]
    assert check(both, [retried, newer]) == []
    assert check([*GOOD[:2], replace(EFFECT, generation=9), ENDED], [retried]) == []
    swapped = [*both[:3], replace(EFFECT, generation=9), both[3], *both[5:]]
    assert "a: succeeded, the newest in effect is task 2" in check(swapped, [retried, newer])
    late = [*both[:4], replace(EFFECT, generation=9), *both[5:]]
    assert "a: took effect after task 2 had" in check(late, [old, newer])


def test_a_config_makes_way_for_a_later_generation():
    """Whatever their ids: one that was retried is newer than its id says."""
    gone = row(status="superseded", superseded_by=2, attempts=0, numbers=())
    taken = replace(EFFECT, request_id="b")
    second = replace(ACCEPTED, request_id="b", task_id=2)
    ends: list[Event] = [ENDED, replace(ENDED, request_id="b")]
    events: list[Event] = [PLACED, ACCEPTED, second, taken, *ends]
    assert check(events, [gone, row(id=2, request_id="b", generation=11)]) == []
    older = check(events, [gone, row(id=2, request_id="b", generation=9)])
    assert older == ["a: final, superseded: None"]


def test_what_was_never_sent_has_no_effect():
    """One that made way before its first attempt cannot have had one."""
    gone = row(status="cancelled", attempts=0, numbers=())
    events: list[Event] = [*GOOD, Withdrawn(at=0.0, request_id="a")]
    assert check(events, [gone]) == ["a: 1 effects"]


def test_a_task_nobody_asked_for_is_told():
    """Of creates whose answer was lost there are as many tasks as were sent, at most."""
    events: list[Event] = [PLACED, EFFECT]
    unheard = Unheard(at=0.0, node_id=7, kind="apply_config")
    assert check(events, [row()]) == ["a: nobody asked for it"]
    assert check([*events, unheard], [row()]) == []
    more = [row(), row(id=2, request_id="b", status="failed", last_error="x")]
    assert "b: nobody asked for it" in check([*events, unheard], more)
    assert check([*events, replace(unheard, kind="reload")], [row()]) == ["a: nobody asked for it"]


def test_a_task_of_an_operation_is_for_one_of_its_nodes():
    """And of its kind."""
    asked = OperationAccepted(
        at=0.0, request_id="o", operation_id=3, kind="apply_config", nodes=(7,)
    )
    events: list[Event] = [PLACED, asked, EFFECT]
    assert check(events, [row(operation_id=3)]) == []
    words = "which asked for something else"
    assert words in check([PLACED, asked], [row(operation_id=3, node_id=8)])[0]
    assert words in check(events, [row(operation_id=3, kind="reload")])[0]
    assert check([PLACED, EFFECT], [row(operation_id=3)]) == ["a: nobody asked for it"]


@pytest.mark.parametrize(
    ("standing", "right"),
    [
        ({"outcome": "failed", "last_error": "no"}, True),
        ({"outcome": "unanswered", "attempts": 5, "numbers": (1, 2, 3, 4, 5)}, True),
        ({"outcome": "unanswered", "attempts": 4, "numbers": (1, 2, 3, 4)}, False),
        ({"outcome": "refused"}, False),
        ({"outcome": "expired"}, False),
    ],
)
def test_only_a_faulty_agent_may_fail_a_task(standing, right):
    """By its own word, or by never answering."""
    failed = row(status="failed", **standing)
    faulty: list[Event] = [replace(PLACED, faulty=True), *GOOD[1:]]
    assert (check(faulty, [failed]) == []) is right
    assert check(GOOD, [failed]) != []


def test_an_operation_takes_its_tasks_back():
    """Cancelled with it, because somebody asked for that."""
    asked = OperationAccepted(
        at=0.0, request_id="o", operation_id=3, kind="apply_config", nodes=(7,)
    )
    gone = row(operation_id=3, status="cancelled", attempts=0, numbers=())
    events: list[Event] = [PLACED, asked]
    cancel: Event = OperationAsked(at=0.0, wall=0.0, operation_id=3, what="cancel")
    assert check(events, [gone]) == ["a: final, cancelled: None"]
    assert check([*events, cancel], [gone]) == []
