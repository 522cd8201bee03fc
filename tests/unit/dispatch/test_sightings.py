"""What deliveries show of their nodes, until somebody writes it."""

import pytest

from edgeplane.dispatch import sightings
from edgeplane.dispatch.sightings import FRESH_SECONDS, Sightings
from edgeplane.model.tasks import Outcome, Report

DONE = Report(outcome=Outcome.SUCCEEDED, message="done", answered=True)
REFUSED = Report(outcome=Outcome.REFUSED, message="status 409", answered=True)
GONE = Report(outcome=Outcome.UNREACHABLE, message="connection refused")
TOKEN = Report(outcome=Outcome.REFUSED, message="status 401", fault="agent answers 401")


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock the test moves."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(sightings, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("report", "news"),
    [
        (DONE, {7: None}),
        (REFUSED, {7: None}),
        (GONE, {7: "connection refused"}),
        (TOKEN, {7: "agent answers 401"}),
        (Report(outcome=Outcome.UNANSWERED, message="timed out"), {}),
        (Report(outcome=Outcome.LOST, message="the lease lapsed"), {}),
        (Report(outcome=Outcome.BUSY, message="out of descriptors here"), {}),
    ],
    ids=lambda value: getattr(value, "message", ""),
)
def test_what_a_delivery_says_of_its_node(report, news):
    """An answer of an agent, whatever it says; what is none; or nothing."""
    seen = Sightings()
    seen.delivered(7, report)
    assert len(seen) == len(news)
    assert seen.take(10) == news
    assert seen.take(10) == {}


def test_a_node_seen_a_moment_ago_is_not_noted_again(clock):
    """However many tasks it takes; after a while once more."""
    seen, noted = Sightings(), 0
    for _ in range(100):
        clock.now += 0.5
        for _ in range(20):
            seen.delivered(7, DONE)
        noted += len(seen.take(10))
    assert noted == 100 * 0.5 // FRESH_SECONDS


def test_after_a_failure_the_next_answer_is_noted_at_once():
    """So that a node is online again with its first answer."""
    seen = Sightings()
    seen.delivered(7, DONE)
    assert seen.take(10) == {7: None}
    seen.delivered(7, GONE)
    assert seen.take(10) == {7: "connection refused"}
    seen.delivered(7, DONE)
    assert seen.take(10) == {7: None}


@pytest.mark.parametrize("reports", [(DONE, GONE), (GONE, DONE), (GONE, DONE, GONE)])
def test_an_answer_outweighs_a_failure_of_the_same_moment(reports):
    """In whatever order they come."""
    seen = Sightings()
    for report in reports:
        seen.delivered(7, report)
    assert seen.take(10) == {7: None}


def test_no_more_is_taken_than_asked_for_and_nothing_is_lost():
    """The rest is taken next; what could not be written comes back, behind what is newer."""
    seen = Sightings()
    for node_id in range(5):
        seen.delivered(node_id, GONE)
    taken = seen.take(3)
    assert len(taken) == 3
    assert len(seen) == 2
    seen.delivered(min(taken), DONE)
    seen.put_back(taken)
    assert seen.take(10) == {**dict.fromkeys(range(5), "connection refused"), min(taken): None}
