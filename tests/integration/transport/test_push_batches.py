"""Push: many tasks in one request, one by one where the agent knows no batches, and cancels."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from edgeplane.transport import batching
from edgeplane.transport.base import (
    Address,
    Busy,
    Outdated,
    Refused,
    Stale,
    Unanswered,
    Unreachable,
)
from edgeplane.transport.batching import SIDE_BY_SIDE
from edgeplane.wire import (
    BATCH_PATH,
    CANCEL_PATH,
    EXECUTE_PATH,
    MAX_BATCH,
    MAX_BODY_BYTES,
    MAX_REPLY_BYTES,
    MAX_RESULT_BYTES,
    ExecuteReply,
    ExecuteRequest,
)
from kit.agents import (
    Hangup,
    Scripted,
    Silence,
    http,
    item,
    refusal,
    refused,
    reply,
    request,
    results,
    state,
)
from kit.ports import free_port


@pytest.fixture
def ask_many(agent, push):
    """Deliver tasks of these ids to the scripted agent, which takes these steps."""

    async def deliver(ids, *steps, seconds=10.0, **given):
        agent.script.extend(steps)
        asked = [request(request_id, **given) for request_id in ids]
        return await push.deliver_many(agent.address, asked, seconds)

    return deliver


@pytest.fixture
async def old_agent():
    """Run an agent from before there were batches."""
    running = Scripted(batches=False)
    running.address = await running.start()
    yield running
    await running.stop()


def done(*ids):
    """Return what successes look like."""
    return [ExecuteReply(request_id, "success", "done") for request_id in ids]


async def test_many_tasks_are_one_request(agent, ask_many):
    """Bearer and tasks are as alone; the payloads' bytes are untouched."""
    payload = b'{ "zeta": 1180591620717411303424,\n "alpha": [1.0] }'
    given = {"payload": Raw(payload), "attempt": 3, "node_id": 7, "epoch": 2, "generation": 9}
    assert await ask_many(["a", "b"], **given) == done("a", "b")
    ((line, headers),) = agent.heads
    assert line == f"POST {BATCH_PATH} HTTP/1.1"
    assert headers["Authorization"] == "Bearer an-agent-token-for-the-tests"
    assert agent.bodies[0].count(payload) == 2
    first, second = json.loads(agent.bodies[0])["tasks"]
    assert (first.pop("requestId"), second.pop("requestId")) == ("a", "b")
    assert first == second
    first.pop("payload")
    assert first == {"type": "reload", "attempt": 3, "nodeId": 7, "epoch": 2, "generation": 9}


async def test_one_task_keeps_the_seeds_form(agent, ask_many):
    """It goes where a single one goes; none goes nowhere."""
    assert await ask_many(["a"]) == done("a")
    assert await ask_many([]) == []
    assert agent.paths() == [EXECUTE_PATH]


async def test_batches_and_single_tasks_share_connections(agent, push, ask, ask_many):
    """Whatever was asked before."""
    await ask_many(["a", "b"])
    await ask()
    await ask_many(["c", "d"])
    assert len(agent.connections) == push.connections_made == 1


async def test_each_result_is_of_its_own_kind(ask_many):
    """In the order asked, with the words it would have had alone."""
    ids = [f"r{number}" for number in range(9)]
    found = await ask_many(
        ids,
        http(
            200,
            results(
                item("r0"),
                item("r1", "failed", "nginx -t: emerg"),
                refused("r2", 409, 3002),
                refused("r3", 409, 3003),
                refused("r4", 409, 3003, data={"begunGeneration": 7}),
                refused("r5", 429, 3004, retryAfter=7),
                refused("r6", 503, 5001),
                refused("r7", 500, 5002),
                refused("r8", 401, 1001),
            ),
        ),
    )
    kinds = [ExecuteReply, ExecuteReply, Refused, Stale, Outdated, Busy, Busy, Busy, Refused]
    assert [type(one) for one in found] == kinds
    assert found[1] == ExecuteReply("r1", "failed", "nginx -t: emerg")
    assert str(found[4]) == "agent returned status 409: the agent's own words"
    assert (found[5].retry_after, found[6].retry_after) == (7, None)


async def test_results_are_told_by_their_id(ask_many):
    """Whatever their order; what is missing or not understood is unanswered, and only that."""
    found = await ask_many(
        ["a", "b", "c", "d", "e", "f"],
        http(
            200,
            results(
                item("e"),
                item("z"),
                {"requestId": "b", "status": "done", "message": ""},
                item("c", "failed", "no"),
                7,
                {"requestId": "d"},
                item("a"),
                {"requestId": "f", "httpStatus": "409", "code": 3002, "error": ""},
            ),
        ),
    )
    assert [type(one) for one in found] == [
        ExecuteReply,
        Unanswered,
        ExecuteReply,
        Unanswered,
        ExecuteReply,
        Unanswered,
    ]
    assert (found[0].request_id, found[2].message, found[4].request_id) == ("a", "no", "e")
    assert str(found[1]) == "sent in a batch, and its result is not in the agent's answer"


async def test_an_id_twice_has_two_results(ask_many):
    """Each its own, in order."""
    found = await ask_many(["a", "a"], http(200, results(item("a"), refused("a", 409, 3002))))
    assert [type(one) for one in found] == [ExecuteReply, Refused]


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (http(401, refusal(1001)), Refused),
        (http(404, b"<html>"), Refused),
        (http(404, refusal(1004)), Refused),
        (http(429, refusal(3004), "Retry-After: 7"), Busy),
        (http(503, refusal(5001)), Busy),
        (http(200, b"nonsense"), Unanswered),
        (http(200, b'{"code":0,"message":"success","data":{"results":{}}}'), Unanswered),
        (http(200, b'{"code":0,"message":"success","data":null}'), Unanswered),
        (http(200, refusal(5001)), Refused),
        (Hangup(), Unanswered),
    ],
)
async def test_what_concerns_the_whole_batch_concerns_each(agent, ask_many, step, kind):
    """Nothing is sent again by itself."""
    found = await ask_many(["a", "b"], step)
    assert [type(one) for one in found] == [kind, kind]
    assert agent.paths() == [BATCH_PATH]


async def test_an_agent_that_is_away_is_unreachable_for_each(push):
    """Nothing arrived."""
    away = Address("127.0.0.1", free_port())
    found = await push.deliver_many(away, [request("a"), request("b")], 5)
    assert [type(one) for one in found] == [Unreachable, Unreachable]


async def test_silence_is_unanswered_for_each(ask_many):
    """When the time of the batch is over."""
    found = await ask_many(["a", "b"], Silence(), seconds=0.05)
    assert [type(one) for one in found] == [Unanswered, Unanswered]
    assert "timed out" in str(found[0])


@pytest.mark.parametrize("status", [400, 413])
async def test_one_tasks_fault_does_not_fail_the_others(agent, ask_many, status):
    """A batch that is refused as malformed is sent one by one: each is judged alone."""
    agent.script.append(http(status, refusal(2002, "tasks[1].type: must be one of reload")))
    found = await ask_many(["a", "b"])
    assert found == done("a", "b")
    assert agent.paths() == [BATCH_PATH, EXECUTE_PATH, EXECUTE_PATH]
    await ask_many(["c", "d"])
    assert agent.paths()[-1] == BATCH_PATH


async def test_an_agent_that_knows_no_batches_is_asked_one_by_one(old_agent, push, monkeypatch):
    """That is remembered for its address, for a while."""
    ids = [f"r{number}" for number in range(20)]
    asked = [request(request_id) for request_id in ids]
    for _ in range(2):
        assert await push.deliver_many(old_agent.address, asked, 10) == done(*ids)
    assert old_agent.paths() == [BATCH_PATH, *[EXECUTE_PATH] * 40]
    assert len(old_agent.connections) <= SIDE_BY_SIDE
    old_agent.batches = True
    monkeypatch.setattr(batching.time, "monotonic", _later(batching.time.monotonic))
    assert await push.deliver_many(old_agent.address, asked, 10) == done(*ids)
    assert old_agent.paths()[41:] == [BATCH_PATH]


def _later(monotonic):
    return lambda: monotonic() + batching.ONE_BY_ONE_SECONDS


async def test_one_by_one_each_failure_is_its_own(old_agent, push):
    """What one brings does not touch the next."""
    old_agent.script.extend([http(404, refusal(3001)), http(500, refusal(5001))])
    found = await push.deliver_many(old_agent.address, [request("a"), request("b")], 10)
    assert sorted(type(one).__name__ for one in found) == ["Busy", "ExecuteReply"]


async def test_as_many_addresses_are_remembered_as_may_be(old_agent, push, monkeypatch):
    """The one that was learned of first is forgotten: it costs a request to learn it again."""
    monkeypatch.setattr(batching, "MAX_REMEMBERED", 1)
    other = Scripted(batches=False)
    other.address = await other.start()
    try:
        for agent in (old_agent, other, old_agent):
            await push.deliver_many(agent.address, [request("a"), request("b")], 10)
    finally:
        await other.stop()
    assert old_agent.paths().count(BATCH_PATH) == 2


async def test_more_tasks_than_a_batch_takes_are_several(agent, ask_many):
    """None is lost, and the order is the asked one."""
    ids = [f"r{number}" for number in range(2 * MAX_BATCH + 1)]
    assert await ask_many(ids) == done(*ids)
    sizes = sorted(len(json.loads(body).get("tasks", [1])) for body in agent.bodies)
    assert sizes == [1, MAX_BATCH, MAX_BATCH]


async def test_large_tasks_are_spread_over_several_batches(agent, ask_many):
    """Each body is one that an agent takes."""
    payload = Raw(json.dumps({"a": "x" * 300_000}).encode())
    ids = [f"r{number}" for number in range(8)]
    assert await ask_many(ids, payload=payload) == done(*ids)
    assert all(len(body) <= MAX_BODY_BYTES for body in agent.bodies)
    assert len(agent.bodies) == 3


class Sized(bytes):
    """Bytes that take no room."""

    size = 0

    def __len__(self):
        return self.size


@given(sizes=st.lists(st.integers(1, MAX_BODY_BYTES + 100) | st.integers(1, 200), max_size=250))
def test_batches_are_cut_where_they_must_be(sizes):
    """Nothing is lost or moved, each is within its bounds, and none has room for the next task."""
    encoded = []
    for number, size in enumerate(sizes):
        body = Sized()
        body.size = size
        encoded.append((ExecuteRequest(str(number), "reload"), body))
    parts = list(batching._parts(encoded))
    assert [one for part in parts for one in part] == encoded
    whole = [len(b'{"tasks":[]}') + sum(len(body) + 1 for _, body in part) for part in parts]
    for part, size in zip(parts, whole, strict=True):
        assert 1 <= len(part) <= MAX_BATCH
        assert size <= MAX_BODY_BYTES or len(part) == 1
    for part, size, following in zip(parts, whole, parts[1:], strict=False):
        assert len(part) == MAX_BATCH or size + len(following[0][1]) + 1 > MAX_BODY_BYTES


async def test_the_answer_of_a_batch_may_be_larger_than_of_one(ask, ask_many):
    """As large as its results together may be; a single one's bound stays what it was."""
    words = "x" * (MAX_REPLY_BYTES // 2)
    found = await ask_many(["a", "b"], http(200, results(*(item(n, message=words) for n in "ab"))))
    assert [one.message for one in found] == [words, words]
    too_much = "x" * (MAX_REPLY_BYTES + 2 * MAX_RESULT_BYTES)
    (first, _) = await ask_many(["a", "b"], http(200, results(item("a", message=too_much))))
    assert isinstance(first, Unanswered)
    with pytest.raises(Unanswered, match=f"more than {MAX_REPLY_BYTES} bytes"):
        await ask(http(200, reply(message="x" * MAX_REPLY_BYTES)))


async def test_a_batch_that_is_given_up_leaves_no_connection(agent, push):
    """Whoever waited is gone: so is what waited for the answer."""
    agent.script.append(Silence())
    waiting = asyncio.create_task(
        push.deliver_many(agent.address, [request("a"), request("b")], 60)
    )
    await agent.asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(agent.gone.wait(), 10)


@pytest.mark.parametrize("told", ["cancelled", "done", "running", "unknown"])
async def test_a_cancel_tells_how_the_request_stands(agent, push, told):
    """Path, bearer and body are the agent's; what is not known is not sent."""
    agent.script.append(http(200, state(told=told)))
    assert await push.cancel(agent.address, "r-1", 7, 3, 5.0) == told
    await push.cancel(agent.address, "r-2", None, None, 5.0, attempt=4)
    assert agent.paths() == [CANCEL_PATH, CANCEL_PATH]
    assert [json.loads(body) for body in agent.bodies] == [
        {"requestId": "r-1", "nodeId": 7, "epoch": 3},
        {"requestId": "r-2", "attempt": 4},
    ]
    assert agent.heads[0][1]["Authorization"] == "Bearer an-agent-token-for-the-tests"


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (http(409, refusal(3003)), Stale),
        (http(404, refusal(3001)), Refused),
        (http(500, refusal(5002)), Busy),
        (http(200, state("r-2")), Unanswered),
        (http(200, state(told="stopped")), Unanswered),
        (http(200, reply()), Unanswered),
        (Hangup(), Unanswered),
    ],
)
async def test_a_cancel_fails_as_a_delivery_does(agent, push, step, kind):
    """In the same kinds."""
    agent.script.append(step)
    with pytest.raises(kind) as caught:
        await push.cancel(agent.address, "r-1", 7, 3, 5.0)
    assert type(caught.value) is kind
