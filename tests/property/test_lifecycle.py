"""A task's life against a plain oracle: whatever happens, in whatever order."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edgeplane.model import lifecycle
from edgeplane.model.errors import WrongState
from edgeplane.model.retry import RetryPolicy
from edgeplane.model.tasks import MAX_ERROR_BYTES, Outcome, Report, TaskStatus, bounded_text
from kit.factories import NOW, a_task, after

_ENDS = [outcome for outcome in Outcome if outcome not in (Outcome.EXPIRED, Outcome.LOST)]
_FREE = (Outcome.UNREACHABLE, Outcome.LOST)
_PASSING = (Outcome.BUSY, Outcome.UNANSWERED, *_FREE)


ENDS = ("success", "failed", "superseded", "cancelled")


class Life(RuleBasedStateMachine):
    """The rules move a task; the oracle counts in plain numbers."""

    @initialize(most=st.integers(1, 4), deadline=st.integers(1, 60), seed=st.integers(0, 99))
    def asked_for(self, most, deadline, seed):
        """Ask for a task."""
        self.now = NOW
        self.random = Random(seed)
        self.task = a_task(
            max_attempts=most, deadline_seconds=deadline, deadline_at=after(deadline)
        )
        self.begun = self.counted = self.highest = 0
        self.place = "pending"
        self.cancelling = False
        self.deadline = after(deadline)

    @rule(seconds=st.integers(0, 20))
    def time_passes(self, seconds):
        """Let some seconds go by."""
        self.now += timedelta(seconds=seconds)

    @rule()
    def begin(self):
        """Begin an attempt, if it waits."""
        if self.place in ("pending", "waiting"):
            self.task = lifecycle.begin(self.task, self.now)
            self.begun += 1
            self.place = "running"
        else:
            self._refused(lifecycle.begin, self.task, self.now)

    @precondition(lambda self: self.place == "running")
    @rule(outcome=st.sampled_from([*_ENDS, Outcome.LOST]), words=st.text(max_size=20))
    def settle(self, outcome, words):
        """End the attempt that is out."""
        report = Report(outcome=outcome, message=words)
        self.task = lifecycle.settle(self.task, report, self.now, RetryPolicy(), self.random)
        self.counted += outcome not in _FREE
        if outcome is Outcome.SUCCEEDED:
            self.place = "success"
        elif self.cancelling:
            self.place = "cancelled"
        elif outcome is Outcome.LOST or (outcome in _PASSING and self._may_go_on(outcome)):
            self.place = "waiting"
        else:
            self.place = "failed"

    def _may_go_on(self, outcome):
        if self.task.max_attempts == 1 or self.now >= self.deadline:
            return False
        return outcome in _FREE or self.counted < self.task.max_attempts

    @precondition(lambda self: self.place != "running")
    @rule(outcome=st.sampled_from(_ENDS))
    def settle_late(self, outcome):
        """Refuse a result when nothing is out."""
        report = Report(outcome=outcome, message="late")
        self._refused(lifecycle.settle, self.task, report, self.now, RetryPolicy(), self.random)

    @rule()
    def rescue(self):
        """Take it back from an owner that is gone."""
        if self.place == "running":
            self.task = lifecycle.rescue(self.task, self.now)
            self.place = "cancelled" if self.cancelling else "pending"
        else:
            self._refused(lifecycle.rescue, self.task, self.now)

    @rule()
    def expire(self):
        """Let its deadline end it, if it waits."""
        if self.place in ("pending", "waiting"):
            self.task = lifecycle.expire(self.task, self.now)
            self.place = "failed"
        else:
            self._refused(lifecycle.expire, self.task, self.now)

    @rule()
    def retry(self):
        """Run it now, if it failed."""
        if self.place in ("waiting", "failed"):
            self.task = lifecycle.retry(self.task, self.now)
            self.place, self.counted = "pending", 0
            self.deadline = self.now + timedelta(seconds=self.task.deadline_seconds)
            assert self.task.run == self.begun + 1
        else:
            self._refused(lifecycle.retry, self.task, self.now)

    @rule()
    def cancel(self):
        """Take it back, unless it has ended."""
        if self.place in ("pending", "waiting"):
            self.task = lifecycle.cancel(self.task, self.now)
            self.place = "cancelled"
        elif self.place == "running":
            self.task = lifecycle.cancel(self.task, self.now)
            self.cancelling = True
        else:
            self._refused(lifecycle.cancel, self.task, self.now)

    @rule()
    def supersede(self):
        """Let a newer one take its place, if it waits."""
        newer = a_task(id=2)
        if self.place in ("pending", "waiting"):
            self.task = lifecycle.supersede(self.task, newer, self.now)
            self.place = "superseded"
        else:
            self._refused(lifecycle.supersede, self.task, newer, self.now)

    def _refused(self, move, task, *rest):
        with pytest.raises(WrongState):
            move(task, *rest)

    @invariant()
    def it_stands_where_the_oracle_says(self):
        """Status, final and the next retry agree with the place."""
        status = {"waiting": "failed"}.get(self.place, self.place)
        assert self.task.status.value == status
        assert self.task.final == (self.place in ENDS)
        assert (self.task.next_retry_at is not None) == (self.place == "waiting")
        assert (self.task.finished_at is not None) == self.task.final

    @invariant()
    def it_counts_as_the_oracle_does(self):
        """Attempts never shrink, and no more count than began in this run."""
        assert self.task.attempts == self.begun >= self.highest
        self.highest = self.begun
        assert self.task.counted_attempts == self.counted <= self.task.attempts
        assert self.counted <= self.task.max_attempts
        assert 1 <= self.task.run <= self.task.attempts + 1

    @invariant()
    def it_is_never_due_past_its_deadline(self):
        """A lost attempt is due at once, so that the deadline is seen at once."""
        due = self.task.next_retry_at
        assert self.task.deadline_at == self.deadline
        assert due is None or due <= max(self.deadline, self.now)


def test_a_life_is_as_the_oracle_says():
    """For any order of events and any die."""
    run_state_machine_as_test(
        Life, settings=settings(max_examples=150, stateful_step_count=30, deadline=None)
    )


@given(st.text(max_size=3000), st.integers(64, 6000))
def test_a_bounded_text_keeps_to_its_limit(text, limit):
    """In bytes of UTF-8; what fits stays whole, what does not begins alike and carries the mark."""
    found = bounded_text(text, limit)
    assert len(found.encode()) <= limit
    plain = text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if len(plain.encode()) <= limit:
        assert found == plain
    else:
        kept, mark = found.rsplit("… [cut, ", 1)
        assert plain.startswith(kept)
        assert mark == f"{len(plain.encode())} bytes in all]"
        assert len(found.encode()) > limit - 4


@given(st.text(st.characters(exclude_categories=[]), min_size=2000, max_size=2100))
def test_an_error_of_any_characters_can_be_stored(text):
    """Four-byte characters, lone surrogates and NULs end in at most 4 KiB of valid UTF-8."""
    stored = bounded_text(text)
    assert len(stored.encode("utf-8")) <= MAX_ERROR_BYTES
    assert "\x00" not in stored


def test_a_place_is_told_from_the_task_alone():
    """Each status is a place; failed is two, told apart by the next retry."""
    found = {lifecycle.place_of(a_task()._replace(status=status)) for status in TaskStatus}
    waiting = a_task()._replace(status=TaskStatus.FAILED, next_retry_at=NOW)
    assert found | {lifecycle.place_of(waiting)} == set(lifecycle.Place)
