"""What an agent has to tell: what goes into an exchange, and when it is forgotten."""

import pytest
from msgspec import json

from edgeplane.agent import outbox
from edgeplane.agent.outbox import MAX_KEPT, Outbox
from edgeplane.wire import (
    MAX_BODY_BYTES,
    MAX_RESULT_BYTES,
    MAX_TOLD,
    CancelReply,
    ExecuteReply,
    SyncRequest,
    Told,
)


class Stirs:
    """Counts how often it is called."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        """Count one."""
        self.count += 1


@pytest.fixture
def stirs():
    """Make a counter of calls."""
    return Stirs()


@pytest.fixture
def box(stirs):
    """Make an empty outbox."""
    return Outbox(stirs)


def _put(box, *names, epoch=1, words="made"):
    for name in names:
        box.put((name, 1), epoch, ExecuteReply(name, "success", words))


def _told(load):
    return [json.decode(bytes(told.result))["requestId"] for told in load.results]


def test_what_is_untold_stirs_and_what_was_told_rides_along(box, stirs):
    """Untold first; told again until it is acknowledged."""
    _put(box, "a", "b")
    assert (stirs.count, box.untold) == (2, True)
    assert _told(box.load()) == ["a", "b"]
    assert not box.untold
    _put(box, "c")
    load = box.load()
    assert _told(load) == ["c", "a", "b"]
    box.arrived(load, [Told("a", 1), Told("b", 2), Told("unknown", 1)])
    assert sorted(_told(box.load())) == ["b", "c"]
    assert len(box) == 2


def test_as_many_as_an_exchange_may_tell(box):
    """The rest stays untold, and is the first of the next."""
    names = [f"r{number}" for number in range(MAX_TOLD + 10)]
    _put(box, *names)
    assert _told(box.load()) == names[:MAX_TOLD]
    assert box.untold
    second = _told(box.load())
    assert second[:10] == names[MAX_TOLD:]
    assert second[10:] == names[: MAX_TOLD - 10]
    assert not box.untold


def test_the_body_of_an_exchange_keeps_to_its_bound(box):
    """The largest results there may be, and as many answers to cancels as fit, in one body."""
    words = "x" * (MAX_RESULT_BYTES - 200)
    names = [f"{number:064}" for number in range(40)]
    _put(box, *names, words=words)
    for number in range(MAX_TOLD + 5):
        box.put_cancel(CancelReply(f"{number:064}", "cancelled"))
    told = []
    while box.untold:
        load = box.load()
        body = json.encode(
            SyncRequest("n" * 128, "s" * 64, 2**53, True, "v" * 64, load.results, load.cancels)
        )
        assert len(body) <= MAX_BODY_BYTES
        assert load.results
        told += _told(load)
        box.arrived(load, [])
    assert set(told) == set(names)


def test_a_result_larger_than_the_room_goes_alone(box, monkeypatch):
    """It is never stuck."""
    monkeypatch.setattr(outbox, "_RESULTS_BYTES", 100)
    _put(box, "a", "b", words="x" * 200)
    assert [_told(box.load()) for _ in range(3)] == [["a"], ["b"], ["a"]]


def test_after_a_lost_connection_all_is_untold(box):
    """In the order it was told; results and answers to cancels."""
    _put(box, "a", "b")
    box.put_cancel(CancelReply("c", "done"))
    box.load()
    _put(box, "d")
    assert box.untold
    box.nothing_arrived()
    load = box.load()
    assert _told(load) == ["a", "b", "d"]
    assert [reply.request_id for reply in load.cancels] == ["c"]
    assert not box.untold


def test_an_answer_to_a_cancel_is_over_with_its_reply(box):
    """A newer one for the same request is another answer."""
    box.put_cancel(CancelReply("c", "running"))
    load = box.load()
    box.put_cancel(CancelReply("c", "done"))
    assert box.untold
    box.arrived(load, [])
    newer = box.load()
    assert [reply.state for reply in newer.cancels] == ["done"]
    box.arrived(newer, [])
    assert box.load().cancels == []


def test_answers_to_cancels_are_bounded(box):
    """The oldest is left out: it is asked for again."""
    for number in range(MAX_KEPT + 1):
        box.put_cancel(CancelReply(str(number), "done"))
    seen = []
    while box.untold:
        load = box.load()
        seen += [reply.request_id for reply in load.cancels]
        box.arrived(load, [])
    assert len(seen) == MAX_KEPT
    assert "0" not in seen


def test_what_is_asked_for_again_is_told_again(box, stirs):
    """By the same epoch; for another it is forgotten, and judged anew."""
    _put(box, "a", epoch=3)
    box.load()
    assert box.tell_again(("a", 1), 3)
    assert box.untold
    assert not box.tell_again(("a", 2), 3)
    assert not box.tell_again(("b", 1), 3)
    assert not box.tell_again(("a", 1), 4)
    assert len(box) == 0
    assert not box.untold


def test_a_newer_result_of_a_run_takes_the_place_of_the_older(box):
    """What was refused before has succeeded since."""
    _put(box, "a", words="older")
    box.load()
    _put(box, "a", words="newer")
    (told,) = box.load().results
    assert json.decode(bytes(told.result))["message"] == "newer"
    assert len(box) == 1
