"""An operation's life against a plain oracle: whatever its nodes and people do, in any order."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from random import Random

from hypothesis import settings
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
from edgeplane.model import progress as rules
from edgeplane.model.lifecycle import Place, place_of
from edgeplane.model.progress import ENDING, FINAL, HELD, Event, OperationState, Standing
from edgeplane.model.retry import RetryPolicy
from edgeplane.model.tasks import Outcome, Report, TaskStatus
from kit.factories import NOW, a_task, after
from kit.operations import a_progress

_ENDS = [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.BUSY, Outcome.UNREACHABLE, Outcome.UNANSWERED]


class Fleet(RuleBasedStateMachine):
    """The rules move an operation; the oracle holds its tasks, and counts them anew."""

    @initialize(
        nodes=st.integers(1, 8),
        window=st.none() | st.integers(1, 3),
        limit=st.none() | st.integers(1, 3),
    )
    def asked_for(self, nodes, window, limit):
        """Ask for an operation."""
        self.now, self.random = NOW, Random(1)
        self.unsent = list(range(1, nodes + 1))
        self.tasks = {}
        self.skipped = 0
        self.came_back = set()  #: nodes whose return may have made more than the window allows
        self.progress = a_progress(unsent=nodes, max_concurrency=window, max_failures=limit)

    def _move(self, node, new):
        old, self.tasks[node] = self.tasks[node], new
        self.progress, call = rules.counted(self.progress, [(old, new)], self.now)
        assert call == (rules.next_step(self.progress) is not None)

    def _in(self, *places):
        return sorted(node for node, task in self.tasks.items() if place_of(task) in places)

    @rule(skip=st.booleans())
    def step(self, skip):
        """Take the next step, as the conductor would."""
        step = rules.next_step(self.progress)
        if step is not None:
            getattr(self, f"_{step.kind}")(step.most, skip)

    def _send(self, most, skip):
        aimed, self.unsent = self.unsent[:most], self.unsent[most:]
        made = Counter({Standing.UNSENT: -len(aimed)})
        made[Standing.SKIPPED if skip else Standing.PENDING] += len(aimed)
        self.skipped += len(aimed) * skip
        for node in () if skip else aimed:
            self.tasks[node] = a_task(
                id=node, node_id=node, operation_id=1, max_attempts=2, deadline_at=after(99)
            )
        self.progress = rules.after_step(self.progress, made, self.now)

    def _wake(self, _most, _skip):
        self.progress = rules.after_step(replace(self.progress, waking=None), {}, self.now)

    def _retry(self, most, _skip):
        failed = self._in(Place.FAILED)[:most]
        self.progress = replace(self.progress, retrying=None)
        for node in failed:
            self._move(node, lifecycle.retry(self.tasks[node], self.now))
        self.progress = rules.after_step(self.progress, {}, self.now)

    def _take_back(self, _most, _skip):
        for node in self._in(Place.PENDING, Place.WAITING):
            task = self.tasks[node]
            self._move(node, rules.taken_back(task, self.progress.state, self.now))

    @rule(pick=st.integers(0, 99))
    def begin(self, pick):
        """Begin an attempt at a node, if the operation is not held."""
        waits = self._in(Place.PENDING, Place.WAITING)
        if waits and self.progress.state not in HELD:
            node = waits[pick % len(waits)]
            self._move(node, lifecycle.begin(self.tasks[node], self.now))

    @rule(pick=st.integers(0, 99), outcome=st.sampled_from(_ENDS))
    def settle(self, pick, outcome):
        """End an attempt that is out."""
        out = self._in(Place.RUNNING)
        if not out:
            return
        node = out[pick % len(out)]
        if self.tasks[node].outcome is Outcome.UNREACHABLE and outcome is not Outcome.UNREACHABLE:
            self.came_back.add(node)
        report = Report(outcome=outcome, message="words")
        task = lifecycle.settle(self.tasks[node], report, self.now, RetryPolicy(), self.random)
        self._move(node, task)

    @rule(outcomes=st.lists(st.sampled_from(_ENDS), min_size=1, max_size=6))
    def it_goes_on(self, outcomes):
        """Let several attempts be made, one after the other."""
        for outcome in outcomes:
            self.step(skip=False)
            self.begin(0)
            self.settle(0, outcome)

    @rule(pick=st.integers(0, 99))
    def rescue(self, pick):
        """Take a task back from an owner that is gone."""
        out = self._in(Place.RUNNING)
        if out:
            node = out[pick % len(out)]
            self.came_back.add(node)
            self._move(node, lifecycle.rescue(self.tasks[node], self.now))

    @rule()
    def deadlines_pass(self):
        """Let what waits expire."""
        self.now += timedelta(seconds=100)
        for node in self._in(Place.PENDING, Place.WAITING):
            if self.tasks[node].deadline_at <= self.now:
                self._move(node, lifecycle.expire(self.tasks[node], self.now))

    @rule(event=st.sampled_from([Event.PAUSE, Event.RESUME, Event.CANCEL, Event.RETRY]))
    def a_person(self, event):
        """Pause, resume, cancel or retry, where that is allowed."""
        if not rules.may(self.progress, event):
            return
        if event is Event.PAUSE:
            self.progress = rules.pause(self.progress)
        elif event is Event.RESUME:
            self.progress = rules.resume(self.progress)
        elif event is Event.CANCEL:
            self.progress = rules.cancel(self.progress, "me", self.now)
        elif self.progress.counts[Standing.FAILED]:
            self.progress = rules.retry_failed(self.progress)

    @rule(pick=st.integers(0, 99))
    def a_person_retries_one(self, pick):
        """Retry a single task, whatever its operation does."""
        failed = self._in(Place.FAILED, Place.WAITING)
        if failed and self.progress.state not in ENDING:
            node = failed[pick % len(failed)]
            self.came_back.add(node)
            self._move(node, lifecycle.retry(self.tasks[node], self.now))

    @invariant()
    def counts_are_what_a_recount_gives(self):
        """And add up to the nodes it was for."""
        counted = Counter(rules.standing_of(task) for task in self.tasks.values())
        counted[Standing.UNSENT], counted[Standing.SKIPPED] = len(self.unsent), self.skipped
        assert {k: v for k, v in self.progress.counts.items() if v} == dict(+counted)

    @invariant()
    def the_window_holds(self):
        """Except for nodes that were gone and came back, and what a person retried."""
        window = self.progress.max_concurrency
        out = [
            node
            for node, task in self.tasks.items()
            if rules.standing_of(task) in (Standing.PENDING, Standing.RUNNING, Standing.WAITING)
        ]
        assert window is None or len([n for n in out if n not in self.came_back]) <= window

    @invariant()
    def it_has_ended_just_when_nothing_can_happen(self):
        """A final state with open tasks comes of a person's single retry alone."""
        opened = [task for task in self.tasks.values() if not task.final]
        if self.progress.state is OperationState.DONE:
            assert not opened
            assert not self.unsent
        if self.progress.state in FINAL:
            assert self.progress.finished_at is not None
            assert rules.next_step(self.progress) is None
        else:
            assert self.progress.finished_at is None

    @precondition(lambda self: self.progress.state not in FINAL)
    @invariant()
    def somebody_can_go_on(self):
        """A step is due, or a task is open, or a person has paused it."""
        waits = any(not task.final for task in self.tasks.values())
        paused = self.progress.state is OperationState.PAUSED
        assert rules.next_step(self.progress) is not None or waits or paused

    def teardown(self):
        """Let everything succeed from here on: the operation ends."""
        if not hasattr(self, "progress") or self.progress.state in FINAL:
            return
        if self.progress.state is OperationState.PAUSED:
            self.progress = rules.resume(self.progress)
        for _ in range(100):
            self.step(skip=False)
            self.begin(0)
            self.settle(0, Outcome.SUCCEEDED)
        assert self.progress.state in FINAL, self.progress
        assert all(t.status is not TaskStatus.RUNNING for t in self.tasks.values())


def test_a_life_is_as_the_oracle_says():
    """For any order of events."""
    run_state_machine_as_test(
        Fleet, settings=settings(max_examples=200, stateful_step_count=40, deadline=None)
    )
