"""Operations: limits, request ids, and how they end."""

import pytest

from edgeplane.model import progress as rules
from edgeplane.model.errors import Invalid, NotAllowed, WrongState
from edgeplane.model.operations import (
    check_given_id,
    check_limit,
    resolve_limit,
    task_request_id,
)
from edgeplane.model.progress import MOVES, Event, OperationState, Standing
from edgeplane.model.tasks import MAX_ERROR_BYTES, Outcome, TaskStatus
from kit.factories import NOW, a_task
from kit.operations import a_progress


@pytest.mark.parametrize(
    ("written", "nodes", "number"),
    [(1, 10, 1), (999_999, 10, 999_999), ("10%", 25, 3), ("1%", 1, 1), ("100%", 7, 7)],
)
def test_a_limit_is_a_number_or_a_part_rounded_up(written, nodes, number):
    """So a part of few nodes is still one."""
    assert resolve_limit(check_limit(written, "f"), nodes) == number
    assert resolve_limit(None, nodes) is None


@pytest.mark.parametrize("written", [0, -1, 1_000_000, "", "0%", "1.5%", "10 %", "x", True])
def test_what_is_no_limit_is_refused(written):
    """With the field and what it should be."""
    with pytest.raises(
        Invalid, match=r'^f: must be a whole number from 1 to 999999, or like "10%"'
    ):
        check_limit(written, "f")
    with pytest.raises(NotAllowed, match=r"^f: at most 100%$"):
        check_limit("101%", "f")


def test_a_client_cannot_take_the_request_id_of_an_operations_task():
    """The fan-out would find it taken, and pass over the node."""
    assert check_given_id("op5-n") == "op5-n"
    with pytest.raises(Invalid, match="^requestId: the form op<number>-n<number> is kept"):
        check_given_id(task_request_id(5, 7))


def test_every_state_but_final_ones_can_be_left_and_every_state_reached():
    """The table has no dead end; only a person's retry leads out of an end."""
    left = {move.origin for move in MOVES if move.event not in (Event.RETRY, Event.REOPEN)}
    assert left == set(OperationState) - rules.FINAL
    assert {move.target for move in MOVES} == set(OperationState)
    assert len({(move.origin, move.event) for move in MOVES}) == len(MOVES)


def test_a_move_the_table_does_not_have_is_told():
    """With what the operation is and what was tried."""
    with pytest.raises(
        WrongState, match=r"^operation 1 is done: only one that is running can be paused"
    ):
        rules.pause(a_progress(state=OperationState.DONE))


def test_nothing_failed_is_nothing_to_retry():
    """Asking for it is an error, not an empty success."""
    with pytest.raises(WrongState, match=r"^operation 1: none of its tasks has failed"):
        rules.retry_failed(a_progress(success=3))


def test_the_last_failure_ends_an_operation_rather_than_stop_it():
    """There is nothing left to be stopped."""
    old = a_task(status=TaskStatus.RUNNING, operation_id=1, counted_attempts=1)
    new = a_task(status=TaskStatus.FAILED, operation_id=1, counted_attempts=1)
    after, _ = rules.counted(a_progress(running=1, success=4, max_failures=1), [(old, new)], NOW)
    assert (after.state, after.failures, after.finished_at) == (OperationState.DONE, 1, NOW)
    after, _ = rules.counted(a_progress(running=2, success=4, max_failures=1), [(old, new)], NOW)
    assert (after.state, after.reason) == (OperationState.STOPPING, "1 nodes failed, 1 stop it")


def test_a_node_that_was_never_there_does_not_stop_an_operation():
    """Its task fails at the deadline, and is no failure of what was asked for."""
    old = a_task(status=TaskStatus.FAILED, outcome=Outcome.UNREACHABLE, next_retry_at=NOW)
    new = a_task(status=TaskStatus.FAILED, outcome=Outcome.EXPIRED)
    before = a_progress(unreachable=1, running=1, max_failures=1)
    after, _ = rules.counted(before, [(old, new)], NOW)
    assert (after.state, after.failures) == (OperationState.RUNNING, 0)
    assert after.counts[Standing.FAILED] == 1


def test_what_is_taken_back_says_so_with_what_it_had_met():
    """Within the bound of an error."""
    task = a_task(last_error="x" * MAX_ERROR_BYTES)
    back = rules.taken_back(task, OperationState.CANCELLING, NOW)
    assert back.last_error is not None
    assert back.last_error.startswith("operation cancelled; last error: xxx")
    assert len(back.last_error.encode()) <= MAX_ERROR_BYTES
    assert (
        rules.taken_back(a_task(), OperationState.STOPPING, NOW).last_error == "operation stopped"
    )
