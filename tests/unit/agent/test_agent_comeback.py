"""When an agent comes again, and what it says meanwhile."""

import logging
from random import Random

import pytest

from edgeplane.agent import comeback
from edgeplane.agent.comeback import Comeback, News, Refused
from edgeplane.agent.requests import Reply
from edgeplane.agent.uplink import NotReached, ReplyLost

URL = "http://control:8081"


class Highest(Random):
    """Draws the end of every range."""

    def uniform(self, a, b):
        """Return the end of the range."""
        return b


class Lowest(Random):
    """Draws the beginning of every range."""

    def uniform(self, a, b):
        """Return the beginning of the range."""
        return a


def _reply(reconnect):
    return Reply(7, [], [], [], 30.0, 0.0, reconnect)


def test_before_any_reply_it_comes_within_two_seconds_then_doubles():
    """Up to ten, at a random time from the beginning on."""
    latest, soonest = Comeback(Highest()), Comeback(Lowest())
    times = [latest.seconds(NotReached("away")) for _ in range(7)]
    assert times == [2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]
    assert [soonest.seconds(NotReached("away")) for _ in range(7)] == [0.0] * 7


@pytest.mark.parametrize(
    ("reconnect", "expected"),
    [
        (4.0, [4.0, 8.0, 10.0, 10.0]),
        (0.0, [0.1, 2.0, 4.0, 8.0]),
        (300.0, [300.0, 300.0, 300.0]),
        (-5.0, [0.1, 2.0]),
    ],
)
def test_a_reply_says_within_which_time(reconnect, expected):
    """And each begins the doubling anew."""
    made = Comeback(Highest())
    made.seconds(ReplyLost("first"))
    for _ in range(2):
        made.replied(_reply(reconnect))
        assert [made.seconds(ReplyLost("cut")) for _ in expected] == expected


@pytest.mark.parametrize("status", [429, 503])
def test_what_is_asked_for_is_never_undercut(status):
    """Spread upwards, as far as a reconnect would be."""
    refused = Refused(status, "too many", "10")
    assert Comeback(Lowest()).seconds(refused) == 10.0
    assert Comeback(Highest()).seconds(refused) == 15.0
    many = Comeback(Highest())
    many.replied(_reply(20.0))
    assert many.seconds(refused) == 30.0
    assert Comeback(Highest()).seconds(Refused(status, "words", "soon")) == 2.0
    assert Comeback(Lowest()).seconds(Refused(status, "words", "0")) == 1.0
    assert Comeback(Lowest()).seconds(Refused(status, "words", "9" * 30)) == 3600.0


@pytest.mark.parametrize(
    ("status", "soonest", "latest"),
    [(401, 15, 30), (404, 15, 30), (403, 15, 30), (302, 15, 30), (413, 15, 30), (400, 30, 30)],
)
def test_what_a_person_has_to_mend_is_asked_again_later(status, soonest, latest):
    """Each time alike, whatever Retry-After says."""
    refused = Refused(status, "words", "1")
    low, high = Comeback(Lowest()), Comeback(Highest())
    for _ in range(3):
        assert (low.seconds(refused), high.seconds(refused)) == (soonest, latest)


def test_a_node_that_changes_hands_is_asked_for_when_it_is_said():
    """409 with Retry-After passes by itself; without one it is for a person."""
    assert Comeback(Lowest()).seconds(Refused(409, "stops", "1")) == 1.0
    assert Comeback(Highest()).seconds(Refused(409, "stops", "1")) == 3.0
    assert Comeback(Lowest()).seconds(Refused(409, "is push")) == 15.0


@pytest.fixture
def clock(monkeypatch):
    """Have a clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(comeback.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def news(caplog):
    """Make news that are caught."""
    caplog.set_level(logging.INFO)
    return News(logging.getLogger("test"))


def test_the_same_words_are_said_once_a_minute(news, clock, caplog):
    """And anew once it was connected between."""
    refused = Refused(401, "unauthorized")
    for _ in range(120):
        news.bad(URL, refused)
        clock[0] += 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert f"{URL} refuses this agent (401): unauthorized" in caplog.text
    news.good("connected")
    news.bad(URL, refused)
    assert len(caplog.records) == 4


def test_each_kind_of_trouble_has_its_words(news, clock, caplog):
    """Where it is somebody's to mend, as an error."""
    news.bad(URL, NotReached("connection refused"))
    news.bad(URL, ReplyLost("connection reset"))
    news.bad(URL, Refused(503, "the database is away"))
    news.bad(URL, Refused(404, "node: edge-1 is not registered"))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", f"control plane {URL} cannot be reached: connection refused"),
        ("WARNING", f"control plane {URL} lost: connection reset"),
        ("WARNING", f"control plane {URL} refuses this agent (503): the database is away"),
        ("ERROR", f"control plane {URL} refuses this agent (404): node: edge-1 is not registered"),
    ]


def test_a_connection_that_flaps_does_not_fill_the_disk(news, clock, caplog):
    """Twenty lines a minute; then how many were left out."""
    for _ in range(100):
        news.good(f"connected to {URL}")
        news.bad(URL, ReplyLost("connection reset"))
    assert len(caplog.records) == News.LINES
    clock[0] += News.SECONDS
    news.good(f"connected to {URL}")
    assert caplog.messages[News.LINES :] == [
        f"{200 - News.LINES} lines on the connection were left out",
        f"connected to {URL}",
    ]


def test_words_that_are_never_the_same_do_not_fill_the_memory(news, clock):
    """A control plane that puts a number into them, say."""
    for number in range(1000):
        news.bad(URL, Refused(500, f"request {number} failed"))
        clock[0] += 60
    assert len(news._said) <= News.LINES
