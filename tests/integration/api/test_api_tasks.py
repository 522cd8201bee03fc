"""Tasks over REST: created once, kept exactly, retried only when failed."""

import asyncio
import json
import re
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from edgeplane.model.errors import TooMany
from edgeplane.model.tasks import Outcome
from edgeplane.services import intake
from edgeplane.store.rows import agent_tasks

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
KEYS = [
    "id",
    "nodeId",
    "type",
    "payload",
    "status",
    "attempts",
    "maxAttempts",
    "timeoutSeconds",
    "deadlineAt",
    "priority",
    "generation",
    "supersededBy",
    "cancelRequested",
    "requestId",
    "nextRetryAt",
    "lastError",
    "result",
    "createdBy",
    "createdAt",
    "startedAt",
    "finishedAt",
    "updatedAt",
    "operationId",
]
CREATE, RETRY = "/agent-tasks/create", "/agent-tasks/retry"
MIB = 1 << 20


@pytest.fixture
async def node(house):
    """Store a node."""
    return await house.node()


def seconds(task):
    """Return how long after its creation a task's deadline is."""
    read = [moment(task[key]) for key in ("createdAt", "deadlineAt")]
    return (read[1] - read[0]).total_seconds()


def moment(text):
    """Read an RFC 3339 time."""
    return datetime.fromisoformat(text)


async def stored_payload(house, task_id):
    """Return the payload's text as the row has it."""
    query = select(agent_tasks.c.payload).where(agent_tasks.c.id == task_id)
    return await house.database.read(lambda tx: tx.conn.scalar(query))


async def test_a_task_is_answered_whole_at_once(house, api, node):
    """All keys are there; it is pending with no attempt; what is absent is null."""
    house.told.clear()
    task = await api.data(CREATE, {"nodeId": node, "type": "reload"})
    assert list(task) == KEYS
    assert UUID7.fullmatch(task["requestId"])
    for key in ("createdAt", "updatedAt", "deadlineAt"):
        assert TIME.fullmatch(task[key])
    expected = {
        "nodeId": node,
        "type": "reload",
        "payload": {},
        "status": "pending",
        "attempts": 0,
        "maxAttempts": 5,
        "timeoutSeconds": 30,
        "nextRetryAt": None,
        "lastError": None,
        "result": None,
        "createdBy": "operator",
        "startedAt": None,
        "finishedAt": None,
    }
    assert {key: task[key] for key in expected} == expected
    assert task["updatedAt"] == task["createdAt"]
    assert seconds(task) == 86_400
    assert await api.data(f"/agent-tasks/{task['id']}") == task
    assert (await api.data("/agent-tasks"))["list"] == [task]
    assert house.told == [{node}]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("apply_config", {"vhost": "example.com", "upstream": ["192.168.1.1:80"]}),
        ("reload", {}),
        ("purge_cache", {"urls": ["/api/*", "/static/*"]}),
    ],
)
async def test_the_seeds_own_tasks_are_taken(api, node, kind, payload):
    """The seed's three bodies, as they are."""
    task = await api.data(CREATE, {"nodeId": node, "type": kind, "payload": payload})
    assert (task["type"], task["payload"], task["status"]) == (kind, payload, "pending")


async def test_what_is_set_is_kept(api, node):
    """Limits and request id come back as given; the deadline is counted from now."""
    given = {
        "requestId": "Ab.9_-" * 10 + "abcd",
        "timeoutSeconds": 3600,
        "maxAttempts": 100,
        "deadlineSeconds": 2_592_000,
    }
    task = await api.data(CREATE, {"nodeId": node, "type": "reload", **given})
    assert {key: task[key] for key in list(given)[:3]} == {
        key: given[key] for key in list(given)[:3]
    }
    assert seconds(task) == 2_592_000


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"nodeId": None}, 2002, "nodeId"),
        ({"nodeId": "1"}, 2002, "nodeId"),
        ({"nodeId": 1.5}, 2002, "nodeId"),
        ({"nodeId": True}, 2002, "nodeId"),
        ({"nodeId": 0}, 2003, "nodeId"),
        ({"nodeId": -1}, 2003, "nodeId"),
        ({"nodeId": 2**63}, 2003, "nodeId"),
        ({"type": "restart"}, 2002, "type"),
        ({"type": ""}, 2002, "type"),
        ({"type": "Reload"}, 2002, "type"),
        ({"type": "reload\n"}, 2002, "type"),
        ({"type": 1}, 2002, "type"),
        ({"type": None}, 2002, "type"),
        ({"requestId": ""}, 2002, "requestId"),
        ({"requestId": "a" * 65}, 2002, "requestId"),
        ({"requestId": "a b"}, 2002, "requestId"),
        ({"requestId": "../x"}, 2002, "requestId"),
        ({"requestId": "a\n"}, 2002, "requestId"),
        ({"requestId": "\u00e9"}, 2002, "requestId"),
        ({"requestId": "a\x00"}, 2002, "requestId"),
        ({"requestId": 1}, 2002, "requestId"),
        ({"payload": None}, 2002, "payload"),
        ({"payload": []}, 2002, "payload"),
        ({"payload": "{}"}, 2002, "payload"),
        ({"payload": 1}, 2002, "payload"),
        ({"timeoutSeconds": 0}, 2003, "timeoutSeconds"),
        ({"timeoutSeconds": 3601}, 2003, "timeoutSeconds"),
        ({"timeoutSeconds": 1.5}, 2002, "timeoutSeconds"),
        ({"timeoutSeconds": None}, 2002, "timeoutSeconds"),
        ({"maxAttempts": 0}, 2003, "maxAttempts"),
        ({"maxAttempts": 101}, 2003, "maxAttempts"),
        ({"maxAttempts": "5"}, 2002, "maxAttempts"),
        ({"deadlineSeconds": 0}, 2003, "deadlineSeconds"),
        ({"deadlineSeconds": 2_592_001}, 2003, "deadlineSeconds"),
        ({"deadlineSeconds": 2**70}, 2003, "deadlineSeconds"),
        ({"type": "purge_cache"}, 2001, "payload.urls"),
        ({"type": "purge_cache", "payload": {}}, 2001, "payload.urls"),
        ({"type": "purge_cache", "payload": {"urls": []}}, 2003, "payload.urls"),
        ({"type": "purge_cache", "payload": {"urls": None}}, 2002, "payload.urls"),
        ({"type": "purge_cache", "payload": {"urls": "/a"}}, 2002, "payload.urls"),
        ({"type": "purge_cache", "payload": {"urls": {"0": "/a"}}}, 2002, "payload.urls"),
        ({"type": "purge_cache", "payload": {"urls": ["/a", 1]}}, 2002, "payload.urls[1]"),
        ({"type": "purge_cache", "payload": {"urls": ["/a", None]}}, 2002, "payload.urls[1]"),
        ({"type": "purge_cache", "payload": {"urls": ["/a", " "]}}, 2003, "payload.urls[1]"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(house, api, node, given, code, field):
    """Each field is typed and bounded; nothing of a refused task is stored."""
    answer = await api.post(CREATE, {"nodeId": node, "type": "reload", **given})
    assert answer.brief == (400, code)
    assert answer.message.startswith(f"{field}: ")
    assert (await api.data("/agent-tasks"))["total"] == 0
    assert house.told == []


async def test_the_message_for_no_urls_is_the_contracts(api, node):
    """The contract quotes it."""
    body = {"nodeId": node, "type": "purge_cache", "payload": {"urls": []}}
    assert (await api.post(CREATE, body)).message == "payload.urls: at least one entry is required"


@pytest.mark.parametrize("missing", ["nodeId", "type"])
async def test_node_and_type_are_required(api, node, missing):
    """400/2001 by name."""
    body = {"nodeId": node, "type": "reload"}
    del body[missing]
    answer = await api.post(CREATE, body)
    assert (answer.brief, answer.message) == ((400, 2001), f"{missing}: is required")


PAYLOADS = [
    '{"n":1180591620717411303424,"m":-9007199254740993}',
    '{"zeta":1,"alpha":2,"Mid":{"b":1,"a":2}}',
    '{ "spaced" : [ 1 , 2 ] ,\n\t"x" : 1.0 }',
    '{"f":0.1000000000000000055511151231257827,"e":1E300,"g":-0.0}',
    '{"u":"\\u00e9é\\n\\u0000","s":"\\/","emoji":"🙂"}',
    '{"":"","a b":null,"t":true}',
    '{"same":1,"same":2}',
    '{"__proto__":{},"$ref":"x"}',
]


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_a_payload_is_kept_byte_for_byte(house, api, node, payload):
    """Key order, large integers, spacing and escapes are in the row and the answers as sent."""
    body = f'{{"type":"apply_config","payload":{payload},"nodeId":{node}}}'.encode()
    answer = await api.post(CREATE, body)
    assert answer.brief == (200, 0)
    assert await stored_payload(house, answer.data["id"]) == payload
    whole = f'"payload":{payload},"status"'.encode()
    assert whole in answer.raw
    assert whole in (await api.get(f"/agent-tasks/{answer.data['id']}")).raw
    assert whole in (await api.get("/agent-tasks")).raw


@pytest.mark.parametrize("letter", ["x", "é", "🙂"])
async def test_a_payload_has_up_to_a_mebibyte(house, api, node, letter):
    """The bound counts bytes as sent: exactly 1 MiB is stored, one more is 400/2003."""
    filler = letter * ((MIB - 8) // len(letter.encode()))
    filler += "y" * (MIB - 8 - len(filler.encode()))
    for more, brief in (("", (200, 0)), ("y", (400, 2003))):
        payload = f'{{"a":"{filler}{more}"}}'
        assert len(payload.encode()) == MIB + len(more)
        body = f'{{"nodeId":{node},"type":"apply_config","payload":{payload}}}'.encode()
        answer = await api.post(CREATE, body)
        assert answer.brief == brief
        if answer.code == 0:
            assert await stored_payload(house, answer.data["id"]) == payload
        else:
            assert answer.message == f"payload: at most {MIB} bytes"


@pytest.mark.parametrize("depth", [64, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
async def test_endless_nesting_is_refused(api, node, depth, opening, closing):
    """A payload too deep to be read is 400/2002, and the process lives."""
    deep = opening * depth + "1" + closing * depth
    body = f'{{"nodeId":{node},"type":"apply_config","payload":{{"a":{deep}}}}}'.encode()
    if len(body) < MIB:
        answer = await api.post(CREATE, body)
        assert answer.brief == (400, 2002)
        assert "nested deeper than" in answer.message
    assert (await api.get("/ping")).brief == (200, 0)


async def test_sensible_nesting_is_taken(api, node):
    """Sixty-four levels are no reason to refuse."""
    payload = json.loads('{"a":' * 64 + "1" + "}" * 64)
    task = await api.data(CREATE, {"nodeId": node, "type": "apply_config", "payload": payload})
    assert task["payload"] == payload


async def test_the_same_request_id_answers_with_the_task_that_exists(house, api, node):
    """Same node, type and payload: one row, whatever became of it meanwhile."""
    body = {"nodeId": node, "type": "purge_cache", "payload": {"urls": ["/a"]}, "requestId": "r.1"}
    first = await api.data(CREATE, body)
    assert await api.data(CREATE, body) == first
    spaced = json.dumps(body, indent=3).encode()
    assert (await api.post(CREATE, spaced)).data == first
    limits = {**body, "timeoutSeconds": 5, "maxAttempts": 1, "deadlineSeconds": 5}
    assert await api.data(CREATE, limits) == first
    await house.fail(await house.row(first["id"]))
    assert (await api.data(CREATE, body))["status"] == "failed"
    await api.data("/nodes/update", {"id": node, "enabled": False})
    assert (await api.data(CREATE, body))["id"] == first["id"]
    await api.data("/nodes/delete", {"ids": [node]})
    assert (await api.data(CREATE, body))["id"] == first["id"]
    assert (await api.data("/agent-tasks"))["total"] == 1


async def test_a_request_id_stands_for_one_thing(house, api, node):
    """Another node, type, payload or key order under the same id is 409/3002."""
    body = {
        "nodeId": node,
        "type": "apply_config",
        "payload": {"a": 1, "b": 2},
        "requestId": "r.1",
    }
    first = await api.data(CREATE, body)
    others: tuple[dict[str, object], ...] = (
        {"nodeId": await house.node()},
        {"nodeId": 999},
        {"type": "reload"},
        {"payload": {"a": 1}},
        {"payload": {"b": 2, "a": 1}},
        {"payload": {}},
    )
    for other in others:
        answer = await api.post(CREATE, {**body, **other})
        assert answer.brief == (409, 3002)
        assert f"task {first['id']}" in answer.message
    assert (await api.data("/agent-tasks"))["total"] == 1


async def test_request_ids_differ_in_case(api, node):
    """``a`` and ``A`` are two ids."""
    bodies = [{"nodeId": node, "type": "reload", "requestId": rid} for rid in ("a", "A")]
    made = [(await api.data(CREATE, body))["id"] for body in bodies]
    assert made[0] != made[1]


async def test_many_at_once_under_one_request_id_make_one_task(api, node):
    """Side by side, in one batch: all get the same task; a different one among them 409."""
    body = {"nodeId": node, "type": "reload", "requestId": "r.1"}
    calls = [api.post(CREATE, body) for _ in range(10)]
    different = {**body, "payload": {"other": 1}}
    *same, other = await asyncio.gather(*calls, api.post(CREATE, different))
    assert {answer.data["id"] for answer in same} == {same[0].data["id"]}
    assert other.brief == (409, 3002)
    assert (await api.data("/agent-tasks"))["total"] == 1


async def test_in_a_shared_commit_each_gets_an_answer_of_its_own(house, api, node):
    """A refused task beside accepted ones costs those nothing."""
    disabled = await house.node(enabled=False)
    bodies = [{"nodeId": n, "type": "reload"} for n in (node, 999, disabled, node)]
    answers = await asyncio.gather(*(api.post(CREATE, body) for body in bodies))
    assert [answer.brief for answer in answers] == [(200, 0), (404, 3001), (409, 3003), (200, 0)]
    assert (await api.data("/agent-tasks"))["total"] == 2


@pytest.mark.parametrize("state", [{"enabled": False}, {"status": "maintenance"}])
async def test_a_paused_node_takes_no_tasks(house, api, node, state):
    """Disabled or in maintenance: 409/3003 for a new task and for a retry, until it is back."""
    task = await house.task(node)
    await house.fail(task)
    await api.data("/nodes/update", {"id": node, **state})
    body = {"nodeId": node, "type": "reload"}
    for answer in (await api.post(CREATE, body), await api.post(RETRY, {"id": task.id})):
        assert answer.brief == (409, 3003)
        assert answer.message.startswith(f"nodeId: node {node}")
    await api.data("/nodes/update", {"id": node, "enabled": True, "status": "offline"})
    assert (await api.post(CREATE, body)).brief == (200, 0)
    assert (await api.post(RETRY, {"id": task.id})).brief == (200, 0)


async def test_an_offline_node_takes_tasks(house, api):
    """Offline is an observation: the task waits for the node to come back."""
    node = await api.data(
        "/nodes/create", {"name": "n", "mainIP": "192.0.2.1", "status": "offline"}
    )
    assert (await api.post(CREATE, {"nodeId": node["id"], "type": "reload"})).brief == (200, 0)


async def test_a_task_or_a_node_that_is_not_there_is_not_found(api, node):
    """404/3001 on look-up, retry and creation."""
    assert (await api.get("/agent-tasks/999")).brief == (404, 3001)
    assert (await api.post(RETRY, {"id": 999})).brief == (404, 3001)
    answer = await api.post(CREATE, {"nodeId": 999, "type": "reload"})
    assert (answer.brief, answer.message) == ((404, 3001), "nodeId: node 999 not found")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, 2001),
        ({"id": None}, 2002),
        ({"id": "1"}, 2002),
        ({"id": 0}, 2003),
        ({"id": -1}, 2003),
        ({"id": 2**63}, 2003),
        ({"id": 1.5}, 2002),
    ],
)
async def test_a_retry_names_its_task(api, body, code):
    """An id, and a number."""
    answer = await api.post(RETRY, body)
    assert answer.brief == (400, code)
    assert answer.message.startswith("id: ")


@pytest.mark.parametrize("waits", [False, True])
async def test_a_failed_task_is_run_again(house, api, node, waits):
    """Pending at once, keeping request id and attempts, with a new deadline and a wake-up."""
    task = await house.task(node)
    due = task.deadline_at if waits else None
    lane = "config" if waits else None
    away = task.created_at - timedelta(hours=1)
    await house.fail(
        task,
        attempts=3,
        counted_attempts=3,
        outcome=Outcome.FAILED,
        next_retry_at=due,
        lane=lane,
        deadline_at=away,
    )
    before = await api.data(f"/agent-tasks/{task.id}")
    assert (before["nextRetryAt"] is not None) is waits
    house.told.clear()
    after = await api.data(RETRY, {"id": task.id})
    assert list(after) == KEYS
    changed = {
        "status": "pending",
        "lastError": None,
        "nextRetryAt": None,
        "updatedAt": after["updatedAt"],
        "deadlineAt": after["deadlineAt"],
    }
    assert after == {**before, **changed}
    assert after["attempts"] == 3
    assert moment(after["deadlineAt"]) > task.deadline_at - timedelta(hours=1)
    assert await api.data(f"/agent-tasks/{task.id}") == after
    assert house.told == [{task.node_id}]
    row = await house.row(task.id)
    assert (row.run, row.counted_attempts) == (4, 0)


@pytest.mark.parametrize("state", ["pending", "running", "success"])
async def test_only_a_failed_task_is_retried(house, api, node, state):
    """409/3003 on any other, and nothing of it changes."""
    task = await house.task(node)
    lane = None if state == "success" else "config"
    await house.move(task, status=state, attempts=1, lane=lane)
    before = await api.data(f"/agent-tasks/{task.id}")
    answer = await api.post(RETRY, {"id": task.id})
    assert answer.brief == (409, 3003)
    assert state in answer.message
    assert await api.data(f"/agent-tasks/{task.id}") == before


async def test_of_concurrent_retries_one_wins(either_house):
    """Ten at once: one 200, the others 409/3003, one new run."""
    from edgeplane.model.users import Role

    api = either_house.callers[Role.OPERATOR]
    task = await either_house.task(await either_house.node())
    await either_house.fail(task)
    answers = await asyncio.gather(*(api.post(RETRY, {"id": task.id}) for _ in range(10)))
    briefs = sorted(answer.brief for answer in answers)
    assert briefs == [(200, 0)] + [(409, 3003)] * 9
    assert (await either_house.row(task.id)).run == 2


async def test_what_the_engine_wrote_is_shown(house, api, node):
    """Result, error and times of a row come out as the contract names them."""
    task = await house.task(node)
    error = "agent unreachable: connect to 192.0.2.1:9090: connection refused"
    await house.move(
        task,
        status="failed",
        attempts=2,
        last_error=error,
        next_retry_at=task.created_at + timedelta(seconds=1.5),
        started_at=task.created_at + timedelta(milliseconds=250),
    )
    shown = await api.data(f"/agent-tasks/{task.id}")
    assert (shown["status"], shown["attempts"], shown["lastError"]) == ("failed", 2, error)
    gap = moment(shown["nextRetryAt"]) - moment(shown["createdAt"])
    assert gap == timedelta(seconds=1.5)
    assert TIME.fullmatch(shown["startedAt"])
    assert shown["finishedAt"] is None


async def test_more_than_can_wait_is_refused(api, node, monkeypatch):
    """Above the intake's bound: 429/3004 with Retry-After, and nothing of it stored."""
    body = {"nodeId": node, "type": "reload"}
    with monkeypatch.context() as patch:
        patch.setattr(intake, "MAX_WAITING", 0)
        assert (await api.post(CREATE, body)).brief == (429, TooMany.code)
    assert (await api.data("/agent-tasks"))["total"] == 0
    assert (await api.post(CREATE, body)).brief == (200, 0)


CANCEL = "/agent-tasks/cancel"


async def test_a_task_that_waits_is_cancelled_at_once(house, api, node):
    """It ends there; the engine is told, because its lane may move on."""
    task = await house.task(node)
    house.told.clear()
    after = await api.data(CANCEL, {"id": task.id})
    assert (after["status"], after["cancelRequested"]) == ("cancelled", True)
    assert (after["lastError"], after["finishedAt"]) == ("cancelled", after["updatedAt"])
    assert house.told == [{node}]
    assert (await api.post(CANCEL, {"id": task.id})).brief == (409, 3003)
    assert (await api.post(RETRY, {"id": task.id})).brief == (409, 3003)
    found = await api.data("/agent-tasks", status="cancelled")
    assert [task["id"] for task in found["list"]] == [task.id]


async def test_a_task_that_runs_is_asked_to_end(house, api, node):
    """It still runs, and says that it has been taken back."""
    task = await house.task(node)
    await house.move(task, status="running", attempts=1)
    after = await api.data(CANCEL, {"id": task.id})
    assert (after["status"], after["cancelRequested"], after["finishedAt"]) == (
        "running",
        True,
        None,
    )


@pytest.mark.parametrize("status", ["success", "superseded"])
async def test_what_has_ended_is_not_cancelled(house, api, node, status):
    """409/3003 says what it is."""
    task = await house.task(node)
    await house.move(task, status=status, lane=None)
    answer = await api.post(CANCEL, {"id": task.id})
    assert (answer.brief, status in answer.message) == ((409, 3003), True)
    assert (await api.post(CANCEL, {"id": 10**9})).brief == (404, 3001)


@pytest.mark.parametrize(("given", "shown"), [({}, 5), ({"priority": 0}, 0), ({"priority": 9}, 9)])
async def test_a_priority_is_kept(api, node, given, shown):
    """5 where none is given."""
    made = await api.data(CREATE, {"nodeId": node, "type": "reload", **given})
    assert made["priority"] == shown


@pytest.mark.parametrize("priority", [-1, 10, 2**63])
async def test_a_priority_has_bounds(api, node, priority):
    """400/2003 names the field."""
    answer = await api.post(CREATE, {"nodeId": node, "type": "reload", "priority": priority})
    assert (answer.brief, answer.message.startswith("priority: ")) == ((400, 2003), True)
