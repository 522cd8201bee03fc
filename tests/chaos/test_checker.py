"""The checker itself: each kind of violation is found, and a good run has none."""

from dataclasses import replace

import pytest

from kit.checker import check
from kit.history import (
    Accepted,
    Disturbed,
    Effect,
    Ended,
    Event,
    Killed,
    Placed,
    Restarted,
    Sampled,
    Withdrawn,
)
from kit.tables import TaskRow


def row(**given):
    """Make a row of a task that went well."""
    values = {
        "id": 1,
        "node_id": 7,
        "request_id": "a",
        "kind": "reload",
        "status": "success",
        "superseded_by": None,
        "due_again": False,
        "attempts": 1,
        "last_error": None,
        "numbers": (1,),
    }
    return TaskRow(**{**values, **given})


OLD = row(kind="apply_config", status="superseded", superseded_by=2)
NEW = row(id=2, request_id="b", kind="apply_config")
PLACED = Placed(at=-1.0, node_id=7, agent="agent", folder="/one")
OTHER = Placed(at=-1.0, node_id=8, agent="other", folder="/other")
PLACES: list[Event] = [PLACED, OTHER]
ACCEPTED = Accepted(at=0.0, request_id="a", task_id=1, node_id=7)
SAMPLED = Sampled(at=0.5, running=((1, -9.0),))
EFFECT = Effect(at=1.0, request_id="a", file="/one/cmdb_reload_a.txt")
ENDED = Ended(at=2.0, request_id="a")
GOOD: list[Event] = [*PLACES, ACCEPTED, SAMPLED, EFFECT, ENDED]


def ended(at: float, *shocks: Event) -> list[Event]:
    """Make a run in which all went well but for the time it took."""
    return [*PLACES, ACCEPTED, EFFECT, *shocks, Ended(at=at, request_id="a")]


def test_a_task_may_make_way_or_be_taken_back():
    """For a newer config of its node, or because a client asked; it may have had its effect."""
    newer = replace(EFFECT, request_id="b")
    both = [ACCEPTED, replace(ACCEPTED, request_id="b", task_id=2)]
    quiet = [*PLACES, *both, newer, ENDED, replace(ENDED, request_id="b")]
    assert check(quiet, [OLD, NEW]) == []
    assert check([*quiet[:4], EFFECT, *quiet[4:]], [OLD, NEW]) == []
    taken = [*PLACES, ACCEPTED, Withdrawn(at=0.5, request_id="a"), ENDED]
    assert check(taken, [row(status="cancelled")]) == []
    assert check(taken, [row(status="failed")]) == ["a: final, failed: None"]


def test_a_good_run_has_no_violation():
    """Accepted, leased, done once, recorded: nothing to say."""
    assert check(GOOD, [row()]) == []


@pytest.mark.parametrize(
    ("events", "rows", "found"),
    [
        (GOOD, [], "a: accepted as task 1, stored as nothing"),
        (GOOD, [row(id=2)], "a: accepted as task 1, stored as [2]"),
        (GOOD, [row(), row(id=2)], "a: accepted as task 1, stored as [1, 2]"),
        (GOOD, [row(status="pending", attempts=0, numbers=())], "a: not final, pending: None"),
        (GOOD, [row(status="running", numbers=())], "a: not final, running: None"),
        (
            GOOD,
            [row(status="failed", due_again=True, last_error="refused")],
            "a: not final, failed: refused",
        ),
        (GOOD, [row(status="failed", last_error="disk")], "a: final, failed: disk"),
        (GOOD, [row(node_id=8)], "a: accepted for node 7, stored for node 8"),
        ([*PLACES, ACCEPTED, ENDED], [row()], "a: 0 effects"),
        ([*GOOD, EFFECT], [row()], "a: 2 effects"),
        ([*GOOD, EFFECT], [OLD, NEW], "a: 2 effects"),
        (GOOD, [row(status="cancelled")], "a: final, cancelled: None"),
        (GOOD, [row(status="superseded")], "a: final, superseded: None"),
        (GOOD, [OLD], "a: final, superseded: None"),
        (GOOD, [OLD, replace(NEW, node_id=8)], "a: final, superseded: None"),
        (GOOD, [OLD, replace(NEW, kind="reload")], "a: final, superseded: None"),
        (
            [*PLACES, ACCEPTED, replace(EFFECT, request_id="b"), EFFECT, ENDED],
            [row(kind="apply_config"), NEW],
            "a: took effect after task 2 had",
        ),
        (
            [*GOOD, Effect(at=1.0, request_id="b", file="f")],
            [row()],
            "b: an effect of no task",
        ),
        (
            [*GOOD, Sampled(at=1.5, running=((1, None),))],
            [row()],
            "task 1: running, its lease absent",
        ),
        (
            [*GOOD, Sampled(at=1.5, running=((1, 15.2),))],
            [row()],
            "task 1: running, its lease 15.2 s over",
        ),
        (GOOD, [row(attempts=2)], "a: 2 attempts, on record [1]"),
        (GOOD, [row(attempts=2, numbers=(1, 3))], "a: 2 attempts, on record [1, 3]"),
        (GOOD, [row(numbers=(1, 1))], "a: 1 attempts, on record [1, 1]"),
        (
            ended(15.5),
            [row()],
            "a: open for 15.5 s while nothing was disturbed",
        ),
        (
            ended(30.0, Restarted(at=9.0, who="x")),
            [row()],
            "a: open for 21.0 s while nothing was disturbed",
        ),
        (
            [*PLACES, ACCEPTED, EFFECT, SAMPLED, Sampled(at=40.0, running=())],
            [row()],
            "a: open for 40.0 s while nothing was disturbed",
        ),
    ],
)
def test_a_bad_run_is_told(events, rows, found):
    """The violation is among those found."""
    assert found in check(events, rows)


ABROAD = Effect(at=1.0, request_id="a", file="/other/cmdb_reload_a.txt")


@pytest.mark.parametrize("events", [[*PLACES, ACCEPTED, ABROAD, ENDED], [*GOOD, ABROAD]])
def test_an_effect_at_another_nodes_agent_is_told(events):
    """Be it the only one or one more; alone it does not count as the one there has to be."""
    found = check(events, [row()])
    assert "a: an effect in /other, its node's folder is /one" in found
    assert ("a: 0 effects" in found) is (EFFECT not in events)


def test_an_effect_for_a_node_that_nobody_registered_is_told():
    """A test that does not say whose folder is whose has not shown anything."""
    events: list[Event] = [ACCEPTED, EFFECT, ENDED]
    assert "a: an effect in /one, its node's folder is None" in check(events, [row()])


def test_what_others_share_is_left_out_while_it_is_away():
    """Killed at 9 s and back a minute later, it has until 15 s after that; not a moment more."""
    shocks = (Killed(at=9.0, who="mariadbd"), Restarted(at=69.0, who="mariadbd"))
    assert check(ended(83.9, *shocks), [row()]) == []
    told = "a: open for 15.1 s while nothing was disturbed"
    assert check(ended(84.1, *shocks), [row()]) == [told]


@pytest.mark.parametrize("shock", [Killed(at=9.0, who="x"), Disturbed(at=9.0, who="x")])
def test_one_that_is_frozen_or_never_back_is_stood_in_for_in_time(shock):
    """Only the moment begins the time anew."""
    assert check(ended(23.9, shock), [row()]) == []
    told = "a: open for 15.1 s while nothing was disturbed"
    assert check(ended(24.1, shock), [row()]) == [told]


def test_a_task_stuck_since_its_agents_kill_is_not_excused_by_another_agents():
    """Other agents' kills, however many, give it no grace."""
    own = (Killed(at=1.0, who="agent"), Restarted(at=2.0, who="agent"))
    others = [Killed(at=at, who="other") for at in (6.0, 12.0, 18.0)]
    told = "a: open for 18.0 s while nothing was disturbed"
    assert check(ended(20.0, *own, *others), [row()]) == [told]


def test_what_may_wait_for_a_probe_has_as_long_as_a_probe_may_take():
    """Two seconds more than any other, if its own agent was away."""
    own = (Killed(at=1.0, who="agent"), Restarted(at=2.0, who="agent"))
    assert check(ended(18.9, *own), [row()]) == []
    told = "a: open for 17.1 s while nothing was disturbed"
    assert check(ended(19.1, *own), [row()]) == [told]


def test_a_kill_after_the_end_changes_nothing():
    """A shock that a task did not live to see gives it no grace."""
    shock = Killed(at=16.0, who="agent")
    assert check(ended(15.5, shock), [row()]) == ["a: open for 15.5 s while nothing was disturbed"]


def test_a_lease_lapsed_for_a_moment_is_no_violation():
    """Its rescue takes a moment."""
    assert check([*GOOD, Sampled(at=1.5, running=((1, 9.0),))], [row()]) == []
