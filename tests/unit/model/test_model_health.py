"""When observations change a node's status."""

import pytest

from edgeplane.model import health
from edgeplane.model.health import ENOUGH_FAILURES, PATIENCE_SECONDS, UNKNOWN
from edgeplane.model.nodes import NodeStatus
from kit.factories import NOW, after


def test_nothing_observed_leaves_the_status_as_it_was_given():
    """A node that was never asked is what a person said."""
    assert UNKNOWN.status is None
    assert (UNKNOWN.seen_at, UNKNOWN.last_error) == (None, None)


def test_one_good_answer_is_online():
    """Whatever there was."""
    known = health.failed(health.failed(UNKNOWN, "no", NOW), "no", after(60))
    assert known.status is NodeStatus.OFFLINE
    known = health.answered(known, after(61))
    assert (known.status, known.seen_at, known.last_error) == (NodeStatus.ONLINE, after(61), None)
    assert (known.failures, known.failing_since) == (0, None)


def test_one_failure_says_why_and_changes_nothing():
    """The words are there at once; the status may yet be right."""
    known = health.failed(health.answered(UNKNOWN, NOW), "refused", after(5))
    assert (known.status, known.last_error, known.failing_since) == (None, "refused", after(5))
    assert known.seen_at == NOW


@pytest.mark.parametrize("number", [2, 3, 50])
def test_many_failures_at_once_are_one(number):
    """A queue that meets a restart."""
    known = UNKNOWN
    for at in range(number):
        known = health.failed(known, "refused", after(at * (PATIENCE_SECONDS - 0.1) / number))
    assert known.status is None


def test_two_failures_far_enough_apart_are_offline():
    """Exactly at the bound, and not a moment before."""
    once = health.failed(UNKNOWN, "refused", NOW)
    assert health.failed(once, "refused", after(PATIENCE_SECONDS - 0.001)).status is None
    twice = health.failed(once, "refused", after(PATIENCE_SECONDS))
    assert (twice.status, twice.failures) == (NodeStatus.OFFLINE, ENOUGH_FAILURES)


def test_what_is_no_news_is_the_same_object():
    """So that nobody writes it again; other words are news."""
    known = health.failed(health.failed(UNKNOWN, "refused", NOW), "refused", after(30))
    assert health.failed(known, "refused", after(60)) is known
    other = health.failed(known, "timed out", after(60))
    assert (other.last_error, other.failing_since, other.status) == (
        "timed out",
        NOW,
        NodeStatus.OFFLINE,
    )


def test_words_are_bounded_and_never_missing():
    """Whatever an agent says; and a failure without words has some."""
    long = health.failed(UNKNOWN, "é\x00" * 5000, NOW).last_error
    assert long is not None
    assert len(long.encode()) <= health.MAX_WORDS_BYTES
    assert "\x00" not in long
    assert health.failed(UNKNOWN, "", NOW).last_error


def test_who_begins_to_fail_is_asked_again_soon():
    """As soon as a second failure counts, however long the interval is."""
    well, failing = health.answered(UNKNOWN, NOW), health.failed(UNKNOWN, "no", NOW)
    for spread in (0.0, 0.5, 1.0):
        due = health.next_check(well, NOW, 300, spread)
        assert after(240) <= due <= after(360)
        soon = health.next_check(failing, after(3), 300, spread)
        assert after(PATIENCE_SECONDS) <= soon <= after(PATIENCE_SECONDS * 1.2)
        assert health.failed(failing, "no", soon).status is NodeStatus.OFFLINE
    gone = health.failed(failing, "no", after(20))
    assert health.next_check(gone, after(20), 300, 0.0) == after(260)


def test_who_is_asked_together_parts():
    """The next time differs by up to two fifths of the interval."""
    dues = [health.next_check(UNKNOWN, NOW, 30, spread / 10) for spread in range(11)]
    assert dues == sorted(set(dues))
    assert (dues[-1] - dues[0]).total_seconds() == pytest.approx(12)
