"""Any history of good answers and failures: what the status may be."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from edgeplane.model import health
from edgeplane.model.health import PATIENCE_SECONDS, UNKNOWN
from edgeplane.model.nodes import NodeStatus
from kit.factories import NOW

#: Seconds since the one before, and whether it was a good answer.
HISTORIES = st.lists(st.tuples(st.floats(0, 60), st.booleans()), max_size=40)


def played(history):
    """Yield each moment, whether its answer was good, and what is known after it."""
    now, known = NOW, UNKNOWN
    for seconds, good in history:
        now += timedelta(seconds=seconds)
        known = health.answered(known, now) if good else health.failed(known, "no", now)
        yield now, good, known


@given(HISTORIES)
def test_the_status_is_that_of_a_plain_reading_of_the_history(history):
    """Online after a good answer; offline when failures in a row span the patience, and only then.

    The reading keeps the whole history, which the rule does not.
    """
    failures = []
    for now, good, known in played(history):
        failures = [] if good else [*failures, now]
        span = (failures[-1] - failures[0]).total_seconds() if failures else 0.0
        down = NodeStatus.OFFLINE if span >= PATIENCE_SECONDS else None
        assert known.status is (NodeStatus.ONLINE if good else down)


@given(HISTORIES)
def test_words_and_times_belong_together(history):
    """There is an error exactly while the last answer was none; the last good one is remembered."""
    last = None
    for now, good, known in played(history):
        last = now if good else last
        assert (known.last_error is None) == good == (known.failing_since is None)
        assert known.seen_at == last


@given(HISTORIES, st.floats(0, 1), st.integers(1, 3600))
def test_the_next_look_is_never_past(history, spread, interval):
    """Or a node would be asked over and over."""
    for now, _, known in played(history):
        due = health.next_check(known, now, interval, spread)
        # what began to fail is decided at the look that comes then
        assert due > now - timedelta(seconds=0.001)
