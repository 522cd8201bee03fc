"""The state machine of a task: every place meets every event."""

from random import Random

import pytest

from edgeplane.model import lifecycle
from edgeplane.model.errors import WrongState
from edgeplane.model.lifecycle import MOVES, Event, Place
from edgeplane.model.retry import RetryPolicy
from edgeplane.model.tasks import MAX_ERROR_BYTES, Outcome, Report, TaskStatus
from kit.factories import NOW, a_task, after

LATER = after(5)
STANDING = {
    Place.PENDING: a_task(),
    Place.RUNNING: a_task(status=TaskStatus.RUNNING, attempts=1, started_at=NOW),
    Place.SUCCESS: a_task(status=TaskStatus.SUCCESS, attempts=1, finished_at=NOW, result="done"),
    Place.WAITING: a_task(status=TaskStatus.FAILED, attempts=1, next_retry_at=after(9)),
    Place.FAILED: a_task(status=TaskStatus.FAILED, attempts=1, finished_at=NOW, last_error="no"),
    Place.SUPERSEDED: a_task(status=TaskStatus.SUPERSEDED, superseded_by=2, finished_at=NOW),
    Place.CANCELLED: a_task(status=TaskStatus.CANCELLED, finished_at=NOW, last_error="cancelled"),
}
NEWER = a_task(id=2)


def settle(task, outcome, message="words", **policy):
    """Settle an attempt with a seeded die."""
    report = Report(outcome=outcome, message=message)
    return lifecycle.settle(task, report, LATER, RetryPolicy(**policy), Random(1))


APPLY = {
    Event.BEGIN: lambda task: lifecycle.begin(task, LATER),
    Event.SUCCEED: lambda task: settle(task, Outcome.SUCCEEDED),
    Event.FAIL_FOR_NOW: lambda task: settle(task, Outcome.BUSY),
    Event.FAIL: lambda task: settle(task, Outcome.FAILED),
    Event.RESCUE: lambda task: lifecycle.rescue(task, LATER),
    Event.EXPIRE: lambda task: lifecycle.expire(task, LATER),
    Event.RETRY: lambda task: lifecycle.retry(task, LATER),
    Event.SUPERSEDE: lambda task: lifecycle.supersede(task, NEWER, LATER),
    Event.CANCEL: lambda task: lifecycle.cancel(task, LATER),
    Event.GIVE_UP: lambda task: lifecycle.give_up(task, LATER),
    Event.STOP: lambda task: settle(task._replace(cancel_requested=True), Outcome.BUSY),
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("place", Place)
def test_a_task_moves_as_the_table_says_and_in_no_other_way(place, event):
    """Where the table has a move it is made; where it has none, WrongState is raised."""
    targets = [move.target for move in MOVES if (move.origin, move.event) == (place, event)]
    task = STANDING[place]
    if targets:
        assert [lifecycle.place_of(APPLY[event](task))] == targets
    else:
        with pytest.raises(WrongState, match="task 1 is"):
            APPLY[event](task)


def test_the_table_is_the_one_agreed_on():
    """Nobody adds a move without meaning to."""
    assert {(move.origin.name, move.event.name, move.target.name) for move in MOVES} == {
        ("PENDING", "BEGIN", "RUNNING"),
        ("PENDING", "EXPIRE", "FAILED"),
        ("RUNNING", "SUCCEED", "SUCCESS"),
        ("RUNNING", "FAIL_FOR_NOW", "WAITING"),
        ("RUNNING", "FAIL", "FAILED"),
        ("RUNNING", "RESCUE", "PENDING"),
        ("WAITING", "BEGIN", "RUNNING"),
        ("WAITING", "EXPIRE", "FAILED"),
        ("WAITING", "RETRY", "PENDING"),
        ("FAILED", "RETRY", "PENDING"),
        ("PENDING", "SUPERSEDE", "SUPERSEDED"),
        ("WAITING", "SUPERSEDE", "SUPERSEDED"),
        ("PENDING", "CANCEL", "CANCELLED"),
        ("WAITING", "CANCEL", "CANCELLED"),
        ("RUNNING", "CANCEL", "RUNNING"),
        ("RUNNING", "STOP", "CANCELLED"),
        ("PENDING", "GIVE_UP", "FAILED"),
        ("WAITING", "GIVE_UP", "FAILED"),
    }
    assert len(MOVES) == 18


@pytest.mark.parametrize("place", Place)
def test_final_is_what_only_a_person_moves(place):
    """A task is final exactly where no move but a retry leads on."""
    events = {move.event for move in MOVES if move.origin is place}
    assert STANDING[place].final == (events <= {Event.RETRY})


@pytest.mark.parametrize("outcome", Outcome)
def test_only_what_can_pass_is_tried_again(outcome):
    """Busy, unanswered, unreachable and lost are due again; the rest is final at once."""
    settled = settle(STANDING[Place.RUNNING], outcome)
    passing = {Outcome.BUSY, Outcome.UNANSWERED, Outcome.UNREACHABLE, Outcome.LOST}
    assert (settled.next_retry_at is not None) == (outcome in passing)
    assert settled.final == (outcome not in passing)


@pytest.mark.parametrize("outcome", Outcome)
def test_only_an_attempt_the_agent_may_have_seen_counts(outcome):
    """Neither an unreachable agent nor a lost owner uses up an attempt."""
    counted = settle(STANDING[Place.RUNNING], outcome).counted_attempts
    assert counted == (0 if outcome in (Outcome.UNREACHABLE, Outcome.LOST) else 1)


def test_begin_gives_the_next_number():
    """The number of an attempt is one more than the last, whatever became of that."""
    begun = lifecycle.begin(a_task(attempts=7, next_retry_at=NOW, status=TaskStatus.FAILED), LATER)
    assert (begun.attempts, begun.next_retry_at, begun.started_at) == (8, None, LATER)


def test_success_clears_the_error_and_keeps_the_words():
    """A success has its message as result and no last error, whatever went before."""
    done = settle(
        a_task(status=TaskStatus.RUNNING, attempts=2, last_error="was away"), Outcome.SUCCEEDED
    )
    assert (done.last_error, done.result, done.finished_at) == (None, "words", LATER)


def test_the_last_allowed_attempt_is_final():
    """An attempt that uses up max_attempts leaves nothing due."""
    last = a_task(status=TaskStatus.RUNNING, attempts=5, counted_attempts=4, max_attempts=5)
    settled = settle(last, Outcome.BUSY)
    assert settled.final
    assert settled.finished_at == LATER


def test_one_attempt_turns_all_trying_again_off():
    """With max_attempts=1 even an unreachable agent is final at once."""
    for outcome in (Outcome.UNREACHABLE, Outcome.BUSY, Outcome.UNANSWERED):
        assert settle(a_task(status=TaskStatus.RUNNING, attempts=1, max_attempts=1), outcome).final


def test_an_unreachable_agent_never_uses_attempts_up():
    """However often it was not reached, the task stays due until its deadline."""
    often = a_task(status=TaskStatus.RUNNING, attempts=500, counted_attempts=0, max_attempts=2)
    assert not settle(often, Outcome.UNREACHABLE).final
    late = a_task(status=TaskStatus.RUNNING, attempts=500, max_attempts=2, deadline_at=LATER)
    assert settle(late, Outcome.UNREACHABLE).final


def test_an_error_is_kept_whole_up_to_its_bound():
    """An error of 4096 bytes is whole; a longer one is cut with a mark."""
    assert settle(STANDING[Place.RUNNING], Outcome.FAILED, "x" * 4096).last_error == "x" * 4096
    cut = settle(STANDING[Place.RUNNING], Outcome.FAILED, "x" * 4097).last_error
    assert len(cut.encode()) <= MAX_ERROR_BYTES
    assert cut.endswith("[cut, 4097 bytes in all]")


def test_expiry_says_what_it_had_waited_for():
    """The reason names the deadline and the last error before it."""
    waiting = a_task(
        status=TaskStatus.FAILED, next_retry_at=NOW, deadline_seconds=60, last_error="refused"
    )
    expired = lifecycle.expire(waiting, LATER)
    assert expired.last_error == (
        "deadline exceeded: not done within 60 s of being asked for; last error: refused"
    )
    assert expired.outcome is Outcome.EXPIRED
    assert expired.finished_at == LATER
    full = lifecycle.expire(a_task(last_error="é" * 2048), LATER)
    assert full.last_error is not None
    assert len(full.last_error.encode()) <= MAX_ERROR_BYTES


def test_a_retry_opens_a_new_run():
    """It keeps id, request and attempts, starts the count anew, and gets a deadline of its own."""
    failed = a_task(
        status=TaskStatus.FAILED,
        attempts=3,
        counted_attempts=3,
        run=1,
        deadline_seconds=60,
        deadline_at=NOW,
        last_error="no",
        finished_at=NOW,
        outcome=Outcome.FAILED,
    )
    again = lifecycle.retry(failed, LATER)
    assert (again.attempts, again.run, again.counted_attempts) == (3, 4, 0)
    assert (again.request_id, again.deadline_at) == (failed.request_id, after(65))
    assert (again.last_error, again.finished_at, again.next_retry_at) == (None, None, None)


def test_a_rescue_asks_for_the_same_run_again():
    """What was lost keeps run and attempts: the agent answers it from its journal."""
    back = lifecycle.rescue(a_task(status=TaskStatus.RUNNING, attempts=3, run=2), LATER)
    assert (back.run, back.attempts, back.outcome) == (2, 3, Outcome.LOST)


def test_retrying_what_has_not_failed_says_so():
    """The message names the task, its status and the rule."""
    with pytest.raises(WrongState) as raised:
        lifecycle.retry(STANDING[Place.SUCCESS], LATER)
    assert raised.value.message == "task 1 is success: only a failed task can be retried"


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.SUCCEEDED}))
def test_what_was_cancelled_while_it_ran_is_not_tried_again(outcome):
    """However its attempt ended without success; what the attempt said is kept."""
    running = STANDING[Place.RUNNING]._replace(cancel_requested=True)
    ended = settle(running, outcome, "the agent's words")
    assert (ended.status, ended.next_retry_at) == (TaskStatus.CANCELLED, None)
    assert ended.last_error == "cancelled; the attempt that was out: the agent's words"


def test_what_was_done_before_it_could_be_cancelled_is_done():
    """The truth is what the agent verified."""
    running = lifecycle.cancel(STANDING[Place.RUNNING], LATER)
    assert (running.status, running.cancel_requested) == (TaskStatus.RUNNING, True)
    assert settle(running, Outcome.SUCCEEDED).status is TaskStatus.SUCCESS


def test_what_was_cancelled_and_lost_is_not_asked_for_again():
    """Nobody knows whether it took effect, and the task says so."""
    running = STANDING[Place.RUNNING]._replace(cancel_requested=True)
    lost = lifecycle.rescue(running, LATER)
    assert (lost.status, lost.outcome) == (TaskStatus.CANCELLED, Outcome.LOST)
    assert lost.last_error is not None
    assert "is not known" in lost.last_error


def test_a_superseded_config_names_what_took_its_place():
    """And keeps what it had last been told."""
    old = lifecycle.supersede(STANDING[Place.WAITING]._replace(last_error="away"), NEWER, LATER)
    assert (old.superseded_by, old.last_error, old.finished_at) == (2, "away", LATER)


def test_cancelling_what_has_ended_says_so():
    """The message names the task, its status and the rule."""
    with pytest.raises(WrongState) as raised:
        lifecycle.cancel(STANDING[Place.SUCCESS], LATER)
    assert raised.value.message == (
        "task 1 is success: only a task that has not ended can be cancelled"
    )
