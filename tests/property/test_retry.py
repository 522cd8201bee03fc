"""When to try again: bounds that hold for every die."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from edgeplane.model.retry import PASSING, UNCOUNTED, RetryPolicy, next_retry
from edgeplane.model.tasks import Outcome, Report
from kit.factories import NOW, a_task, after

POLICY = RetryPolicy()
_seeds = st.integers(0, 2**32).map(Random)
_counted = st.sampled_from(sorted(PASSING - UNCOUNTED))
_waits = st.none() | st.floats(allow_nan=True, allow_infinity=True)


class Highest(Random):
    """A die that always shows its highest face."""

    def uniform(self, a, b):
        """Return the upper bound."""
        return b


def delay(outcome, *, random, counted=0, retry_after=None, away=0.0, **given_task):
    """Return the seconds until a task is due again; None: never."""
    task = a_task(**{"attempts": counted, **given_task}, counted_attempts=counted)
    report = Report(outcome=outcome, message="", retry_after=retry_after, away_seconds=away)
    due = next_retry(task, report, NOW, POLICY, random)
    return None if due is None else (due - NOW).total_seconds()


@given(_counted, st.integers(1, 99), _seeds)
def test_a_delay_lies_under_its_doubling_cap(outcome, counted, random):
    """After the n-th attempt that counts: from nothing to min(60, 2^(n-1)) seconds."""
    found = delay(outcome, counted=counted, random=random, max_attempts=100)
    assert 0 <= found <= min(60, 2 ** (counted - 1))


@given(st.floats(0, 299.999), st.integers(1, 10**6), _seeds)
def test_early_probes_are_at_most_15_seconds_apart(away, attempts, random):
    """For five minutes, however often it was tried: each new task calls for a probe of its own."""
    found = delay(Outcome.UNREACHABLE, attempts=attempts, away=away, random=random)
    assert 0 <= found <= min(15, max(1, away))


@given(st.floats(300, 1e9), _seeds)
def test_late_probes_are_at_most_60_seconds_apart(away, random):
    """However long a node has been gone."""
    assert 0 <= delay(Outcome.UNREACHABLE, away=away, random=random) <= 60


def test_the_caps_are_met():
    """Jitter is full: the caps are what the docstring says, and no lower."""
    counted = [
        delay(Outcome.BUSY, counted=n, random=Highest(), max_attempts=100) for n in range(1, 9)
    ]
    probes = [
        delay(Outcome.UNREACHABLE, away=away, random=Highest())
        for away in (0, 0.5, 1.5, 7, 15, 299, 300, 1e6)
    ]
    assert counted == [1, 2, 4, 8, 16, 32, 60, 60]
    assert probes == [1, 1, 1.5, 7, 15, 15, 60, 60]


@given(st.sampled_from(Outcome), st.integers(0, 200), st.floats(0, 1e5), _waits, _seeds)
def test_nothing_is_due_past_its_deadline(outcome, attempts, left, retry_after, random):
    """At the deadline a task is looked at once more; what lies beyond is never promised."""
    deadline = after(left)
    task = a_task(attempts=attempts, deadline_at=deadline, max_attempts=100)
    report = Report(outcome=outcome, message="", retry_after=retry_after)
    due = next_retry(task, report, NOW, POLICY, random)
    assert due is None or NOW <= due <= max(NOW, deadline)


@given(st.sampled_from(sorted(PASSING)), st.integers(1, 50), _seeds)
def test_a_due_time_has_milliseconds(outcome, attempts, random):
    """So that it is read back as it was returned."""
    task = a_task(attempts=attempts, counted_attempts=1)
    due = next_retry(task, Report(outcome=outcome, message=""), NOW, POLICY, random)
    assert due is not None
    assert due.microsecond % 1000 == 0


@given(st.floats(0, 60), _seeds)
def test_the_agent_may_ask_for_more_time(wanted, random):
    """Its Retry-After is kept to."""
    found = delay(Outcome.BUSY, counted=1, random=random, retry_after=wanted)
    assert found >= wanted - 0.001  # times have milliseconds


@given(_waits, _seeds)
def test_the_agent_cannot_ask_for_ever(wanted, random):
    """Whatever it sends, a minute is the most."""
    found = delay(Outcome.BUSY, counted=1, random=random, retry_after=wanted)
    assert 0 <= found <= 60


@given(st.sampled_from(sorted(set(Outcome) - PASSING)), _seeds)
def test_what_cannot_pass_is_never_due_again(outcome, random):
    """An executed failure and a refusal are final, with attempts left or not."""
    assert delay(outcome, counted=1, random=random, max_attempts=100) is None


@given(_counted, st.integers(1, 100), st.integers(0, 100), _seeds)
def test_attempts_run_out(outcome, most, counted, random):
    """A counted attempt is tried again only below max_attempts."""
    found = delay(outcome, counted=counted, random=random, max_attempts=most)
    assert (found is None) == (most == 1 or counted >= most)
