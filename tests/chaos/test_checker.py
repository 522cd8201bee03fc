"""The checker itself: each kind of violation is found, and a good run has none."""

import pytest

from kit.checker import check
from kit.effects import Effects
from kit.history import Accepted, Effect, Ended, Event, History, Killed, Restarted, Sampled
from kit.tables import TaskRow


def row(**given):
    """Make a row of a task that went well."""
    values = {
        "id": 1,
        "request_id": "a",
        "status": "success",
        "due_again": False,
        "attempts": 1,
        "last_error": None,
        "numbers": (1,),
    }
    return TaskRow(**{**values, **given})


ACCEPTED = Accepted(at=0.0, request_id="a", task_id=1)
SAMPLED = Sampled(at=0.5, running=((1, -9.0),))
EFFECT = Effect(at=1.0, request_id="a", file="/work/cmdb_reload_a.txt")
ENDED = Ended(at=2.0, request_id="a")
GOOD: list[Event] = [ACCEPTED, SAMPLED, EFFECT, ENDED]


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
        ([ACCEPTED, ENDED], [row()], "a: 0 effects"),
        ([*GOOD, EFFECT], [row()], "a: 2 effects"),
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
            [ACCEPTED, EFFECT, Ended(at=15.5, request_id="a")],
            [row()],
            "a: open for 15.5 s while nothing was disturbed",
        ),
        (
            [ACCEPTED, EFFECT, Restarted(at=9.0, who="x"), Ended(at=30.0, request_id="a")],
            [row()],
            "a: open for 21.0 s while nothing was disturbed",
        ),
        (
            [ACCEPTED, EFFECT, SAMPLED, Sampled(at=40.0, running=())],
            [row()],
            "a: open for 40.0 s while nothing was disturbed",
        ),
    ],
)
def test_a_bad_run_is_told(events, rows, found):
    """The violation is among those found."""
    assert found in check(events, rows)


def test_a_disturbance_begins_the_time_anew():
    """What is killed at 9 s and back at 20 s has until 35 s."""
    shocks: list[Event] = [Killed(at=9.0, who="x"), Restarted(at=20.0, who="x")]
    events: list[Event] = [ACCEPTED, EFFECT, *shocks, Ended(at=34.0, request_id="a")]
    assert check(events, [row()]) == []


def test_a_lease_lapsed_for_a_moment_is_no_violation():
    """Its rescue takes a moment."""
    assert check([*GOOD, Sampled(at=1.5, running=((1, 9.0),))], [row()]) == []


def test_effects_are_what_appears_under_a_tasks_name(tmp_path):
    """Made there or moved there counts, each time; drafts, folders and strangers' files do not."""
    history = History(tmp_path / "history.jsonl")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "cmdb_reload_before.txt").write_text("")
    effects = Effects(folder, history)
    draft = folder / ".cmdb_draft_0~a~1"
    for _ in range(2):
        draft.write_text("{}")
        draft.rename(folder / "cmdb_apply_config_a.json")
    (folder / "cmdb_purge_cache_b.c_d.json").write_text("{}")
    (folder / "cmdb_reload_dir.txt").mkdir()
    (folder / "notes.txt").write_text("")
    effects.stop()
    seen = [event.request_id for event in history.events if isinstance(event, Effect)]
    assert seen == ["a", "a", "b.c_d"]
    assert (tmp_path / "history.jsonl").read_text().count('"event": "Effect"') == 3
