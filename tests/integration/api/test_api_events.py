"""Following along: what comes, in which order, where it goes on, and how it ends."""

import asyncio

import pytest

from edgeplane.api import events as route
from edgeplane.model.lifecycle import begin
from edgeplane.model.users import Role
from edgeplane.services import feed
from edgeplane.store import events, task_moves, users
from kit.operations import Stepper
from kit.streams import following


@pytest.fixture
def follow(either_house):
    """Follow as a viewer."""

    def begin_to(query="", last=None):
        token = either_house.callers[Role.VIEWER].token
        return following(either_house.app, token, query, last)

    return begin_to


async def started(house, task):
    """Begin a task's attempt."""
    await house.database.write(lambda tx: task_moves.write_begun(tx, [begin(task, tx.now)]))


async def test_an_event_says_where_the_task_stands(either_house, follow):
    """Its id, when, what, which task and node; the block's id and name are the same."""
    node = await either_house.node()
    async with follow() as stream:
        task = await either_house.task(node)
        while "data" not in (block := await stream.block()):
            pass
        shown = await either_house.row(task.id)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["cache-control"] == "no-store"
    assert "content-length" not in stream.headers
    assert len(stream.headers["x-request-id"]) == 16
    assert (block["event"], int(block["id"])) == ("created", stream.last_id)
    import json

    assert json.loads(block["data"]) == {
        "id": stream.last_id,
        "at": shown.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "type": "created",
        "taskId": task.id,
        "nodeId": node,
        "operationId": None,
        "status": "pending",
        "attempt": 0,
    }


async def test_a_stream_begins_with_how_soon_to_come_back(follow):
    """Two seconds; and with the id it would go on behind, before any event."""
    async with follow() as stream:
        blocks = [await stream.block()]
        while "id" not in blocks[-1]:
            blocks.append(await stream.block())
    assert blocks[0]["retry"] == "2000"


async def test_who_comes_back_sees_each_once(either_house, follow):
    """Behind the last id, in order, whatever happened meanwhile; by header or by query."""
    node = await either_house.node()
    async with follow() as stream:
        first = await either_house.task(node)
        assert await stream.take(1) == [("created", first.id)]
    second = await either_house.task(node)
    async with follow(last=stream.last_id) as again:
        third = await either_house.task(node)
        assert await again.take(2) == [("created", second.id), ("created", third.id)]
    async with follow(query=f"lastEventId={stream.last_id}") as by_query:
        assert await by_query.take(2) == [("created", second.id), ("created", third.id)]


async def test_the_header_outweighs_the_query(either_house, follow):
    """A browser comes back with the header to the address it knew."""
    node = await either_house.node()
    async with follow() as stream:
        made = [await either_house.task(node) for _ in range(2)]
        await stream.take(1)
        seen = stream.last_id
    async with follow(query="lastEventId=0", last=seen) as again:
        assert await again.take(1) == [("created", made[1].id)]


@pytest.mark.parametrize("by", ["taskId", "nodeId"])
async def test_a_filter_lets_through_what_was_asked_for(either_house, follow, by):
    """Live and behind the last id alike."""
    nodes = [await either_house.node() for _ in range(2)]
    mine, other = [await either_house.task(node) for node in nodes]
    query = f"{by}={mine.id if by == 'taskId' else mine.node_id}"
    async with follow(query, last=0) as stream:
        assert await stream.take(1) == [("created", mine.id)]
        await started(either_house, other)
        await started(either_house, mine)
        assert await stream.take(1) == [("begun", mine.id)]


async def test_an_operation_is_followed_with_its_tasks(either_house, follow):
    """Its own events are of no task and no node; those of other tasks are not let through."""
    node = await either_house.node()
    await either_house.task(node)
    operator = either_house.callers[Role.OPERATOR]
    body = {"type": "reload", "target": {"all": True}}
    first, other = [(await operator.data("/operations/create", body))["id"] for _ in range(2)]
    async with follow(f"operationId={first}", last=0) as stream:
        await Stepper(either_house.database).all()
        await operator.data("/operations/pause", {"id": other})
        await operator.data("/operations/pause", {"id": first})
        created, task, paused = [await stream.next() for _ in range(3)]
    (of_it,) = (await operator.data(f"/operations/{first}/tasks"))["list"]
    assert (task["type"], task["taskId"]) == ("created", of_it["id"])
    assert (task["nodeId"], task["operationId"]) == (node, first)
    assert {"id", "at"} < created.keys()
    assert {**paused, "id": 0, "at": ""} == {
        "id": 0,
        "at": "",
        "type": "op-paused",
        "taskId": None,
        "nodeId": None,
        "operationId": first,
        "status": "paused",
        "attempt": 0,
    }


async def test_a_long_absence_is_made_up_for_in_steps(either_house, follow, monkeypatch):
    """More than one read brings: all of it, in order, and then what is new."""
    monkeypatch.setattr(events, "WINDOW", 3)
    monkeypatch.setattr(events.behind, "__defaults__", (3,))
    node = await either_house.node()
    made = [await either_house.task(node) for _ in range(8)]
    async with follow(last=0) as stream:
        assert await stream.take(8) == [("created", task.id) for task in made]
        new = await either_house.task(node)
        assert await stream.take(1) == [("created", new.id)]


async def test_many_streams_get_the_same(either_house, follow):
    """One reader feeds them all."""
    node = await either_house.node()
    async with follow() as one, follow() as two:
        task = await either_house.task(node)
        assert await one.take(1) == await two.take(1) == [("created", task.id)]


async def test_what_is_not_kept_any_more_is_told(either_house, follow):
    """Pruned since, or from another database: the follower must look anew."""
    node = await either_house.node()
    for _ in range(3):
        await either_house.task(node)
    await either_house.database.write(lambda tx: events.prune(tx, tx.now.replace(year=2999), 2))
    first, last = await either_house.database.read(events.bounds)
    for seen, missed in ((first - 2, True), (first - 1, False), (last, False), (10**12, True)):
        async with follow(last=seen) as stream:
            block = await stream.block()
            assert (
                (await stream.block() if block == {"retry": "2000"} else block).get("event")
                == "missed"
            ) is missed, seen


async def test_a_quiet_stream_shows_that_it_lives(either_house, follow, monkeypatch):
    """A comment, with the id to go on behind."""
    monkeypatch.setattr(route, "HEARTBEAT_SECONDS", 0.01)
    other = await either_house.task(await either_house.node())
    async with follow("taskId=999") as stream:
        await started(either_house, other)
        _, newest = await either_house.database.read(events.bounds)
        while stream.last_id != newest:
            assert "data" not in await stream.block()


async def test_who_does_not_keep_up_is_ended(either_house, follow, monkeypatch):
    """It is told so in a comment, and goes on from the last id it has; the others never wait."""
    monkeypatch.setattr(feed, "MAX_WAITING", 3)
    node = await either_house.node()
    async with follow() as slow, follow() as quick:
        slow.room.clear()
        made = [await either_house.task(node)]
        await asyncio.wait_for(slow.stuck.wait(), 15)
        for _ in range(6):
            made.append(await either_house.task(node))
            await quick.next()
        await quick.next()
        slow.room.set()
        seen = []
        while not slow.ended:
            block = await slow.block()
            seen += [block["id"]] if "data" in block else []
        assert len(seen) < len(made)
    async with follow(last=slow.last_id) as again:
        left = [task_id for _, task_id in await again.take(len(made) - len(seen))]
    assert left == [task.id for task in made[len(seen) :]]


async def test_streams_are_bounded(house, monkeypatch):
    """One more is answered 429; a place that is left is free again."""
    monkeypatch.setattr(feed, "MAX_STREAMS", 2)
    caller = house.callers[Role.VIEWER]
    async with following(house.app, caller.token), following(house.app, caller.token):
        answer = await caller.get("/events")
        assert answer.brief == (429, 3004)
    async with following(house.app, caller.token) as stream:
        assert stream.status == 200


async def test_a_stop_ends_all_streams_at_once(house, follow_one):
    """And no new one begins."""
    async with follow_one() as stream:
        house.parts.feed.end_all()
        while not stream.ended:
            await stream.block()
    assert (await house.callers[Role.VIEWER].get("/events")).brief == (429, 3004)


@pytest.fixture
def follow_one(house):
    """Follow as a viewer, on SQLite."""
    return lambda: following(house.app, house.callers[Role.VIEWER].token)


async def test_who_may_not_look_any_more_is_ended(house, follow_one, monkeypatch):
    """A user who was disabled meanwhile: at the next sign of life."""
    monkeypatch.setattr(route, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr("edgeplane.services.users.STANDING_SECONDS", 0.0)
    async with follow_one() as stream:
        await house.database.write(lambda tx: users.change(tx, "viewer", active=False))
        while not stream.ended:
            await stream.block()


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 20, str(2**63), "٣"])
async def test_what_is_no_id_is_refused(house, last):
    """400/2002, as a query and as a header."""
    from urllib.parse import quote

    caller = house.callers[Role.VIEWER]
    answer = await caller.call("GET", "/events", query=f"lastEventId={quote(last)}")
    assert answer.brief == (400, 2002)


@pytest.mark.parametrize(
    "query", ["taskId=0", "nodeId=x", "taskID=1", "operationId=0", "type=created"]
)
async def test_what_is_no_filter_is_refused(house, query):
    """Nobody follows everything by a slip of the pen."""
    answer = await house.callers[Role.VIEWER].call("GET", "/events", query=query)
    assert answer.status == 400
