"""Operations over REST: shapes, rules, lists, on both engines where it matters."""

import pytest

from edgeplane.model.users import Role
from kit.operations import Stepper

CREATE = "/operations/create"
KEYS = [
    *("id", "requestId", "type", "payload", "target", "state", "reason", "total", "counts"),
    *("failures", "maxConcurrency", "maxFailures", "priority", "timeoutSeconds", "maxAttempts"),
    *("deadlineSeconds", "createdBy", "createdAt", "finishedAt", "updatedAt"),
]
PURGE = {"type": "purge_cache", "payload": {"urls": ["/a"]}}


@pytest.fixture
def both(either_house):
    """Call as an operator, on either engine."""
    return either_house.callers[Role.OPERATOR]


def to(*ids, **given):
    """Make a body for these nodes, or for all."""
    return {**PURGE, "target": {"nodeIds": list(ids)} if ids else {"all": True}, **given}


async def test_an_operation_is_answered_whole_at_once(house, api):
    """All keys are there; nothing is sent yet; a look-up answers the same."""
    node = await house.node()
    await house.node(enabled=False)
    made = await api.data(CREATE, {"type": "reload", "target": {"all": True}})
    assert list(made) == KEYS
    assert (made["state"], made["total"], made["payload"]) == ("running", 2, {})
    assert made["counts"] == {
        **dict.fromkeys(
            [
                "pending",
                "running",
                "waiting",
                "unreachable",
                "success",
                "failed",
                "superseded",
                "cancelled",
            ],
            0,
        ),
        "unsent": 1,
        "skipped": 1,
    }
    assert (made["maxConcurrency"], made["maxFailures"]) == (None, None)
    assert made["createdBy"] == "operator"
    assert await api.data(f"/operations/{made['id']}") == made
    assert (await api.data("/operations"))["list"] == [made]
    asked = to(node, maxConcurrency=5, maxFailures="10%", maxAttempts=2, timeoutSeconds=9)
    other = await api.data(CREATE, {**asked, "deadlineSeconds": 60})
    assert (other["maxConcurrency"], other["maxFailures"]) == (5, "10%")
    assert (other["maxAttempts"], other["timeoutSeconds"], other["deadlineSeconds"]) == (2, 9, 60)
    assert other["target"] == {"nodeIds": [node]}


async def test_its_tasks_are_listed_and_carry_its_payload(either_house, both):
    """Newest first, by status, by cursor; each is a task like any other."""
    ids = [await either_house.node(labels={"region": "eu"}) for _ in range(3)]
    body = {**PURGE, "target": {"labels": {"region": "eu"}}}
    made = await both.data(CREATE, {**body, "payload": {"urls": ["/b", "/a"], "n": 2**60}})
    await Stepper(either_house.database).all()
    path = f"/operations/{made['id']}/tasks"
    listed = await both.data(path)
    assert [task["nodeId"] for task in listed["list"]] == ids[::-1]
    assert listed["total"] == 3
    first = listed["list"][-1]
    assert first["payload"] == {"urls": ["/b", "/a"], "n": 2**60}
    assert (first["operationId"], first["requestId"]) == (made["id"], f"op{made['id']}-n{ids[0]}")
    assert await both.data(f"/agent-tasks/{first['id']}") == first
    assert (await both.data("/agent-tasks", nodeId=ids[0]))["list"] == [first]
    page = await both.data(path, pageSize=2)
    rest = await both.data(path, pageSize=2, cursor=page["nextCursor"])
    assert [task["id"] for task in rest["list"]] == [first["id"]]
    assert (await both.data(path, status="failed"))["list"] == []
    assert len((await both.data(path, status="pending"))["list"]) == 3
    assert (await both.data("/operations", state="done"))["list"] == []
    assert len((await both.data("/operations", state="running"))["list"]) == 1


async def test_the_same_request_id_is_the_same_operation(house, api):
    """White space in the payload and the order of ids do not count; all else does."""
    first, second = await house.node(), await house.node()
    made = await api.data(CREATE, to(first, second, requestId="mine"))
    raw = (
        b'{"type":"purge_cache","payload":{ "urls" : ["/a"] },"requestId":"mine",'
        b'"target":{"nodeIds":[%d,%d,%d]}}' % (second, first, second)
    )
    again = await api.call("POST", CREATE, raw)
    assert again.brief == (200, 0)
    assert again.data == made
    for other in (to(first), to(first, second, maxFailures=1), to(first, second, maxAttempts=1)):
        answer = await api.post(CREATE, {**other, "requestId": "mine"})
        assert answer.brief == (409, 3002)
        assert answer.message.startswith("requestId: mine is operation")
    assert (await api.data("/operations"))["total"] == 1


@pytest.mark.parametrize(
    ("change", "brief", "words"),
    [
        ({"target": {}}, (400, 2002), "target: exactly one of nodeIds, labels and all"),
        ({"target": {"all": True, "nodeIds": [1]}}, (400, 2002), "target: exactly one"),
        ({"target": {"all": False}}, (400, 2003), "target.all: must be true"),
        ({"target": {"labels": {}}}, (400, 2003), "target.labels: at least one"),
        ({"target": {"labels": {"a b": "c"}}}, (400, 2002), "target.labels: key"),
        ({"target": {"labels": {"a": "b"}}}, (400, 2003), "target: no node is meant"),
        ({"target": {"nodeIds": []}}, (400, 2003), "target.nodeIds"),
        ({"target": {"nodeIds": [99]}}, (404, 3001), "target.nodeIds: node 99 not found"),
        ({"target": {"node": 1}}, (400, 2002), "target.node: unknown field"),
        ({"target": None}, (400, 2002), "target"),
        ({"type": "purge"}, (400, 2002), "type: must be one of"),
        ({"payload": {}}, (400, 2001), "payload.urls"),
        ({"maxConcurrency": 0}, (400, 2002), "maxConcurrency"),
        ({"maxFailures": "101%"}, (400, 2003), "maxFailures: at most 100%"),
        ({"maxFailures": 1.5}, (400, 2002), "maxFailures"),
        ({"requestId": "a b"}, (400, 2002), "requestId"),
        ({"nodeId": 1}, (400, 2002), "nodeId: unknown field"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(house, api, change, brief, words):
    """Nothing is stored."""
    await house.node()
    answer = await api.post(CREATE, {**to(), **change})
    assert answer.brief == brief, answer
    assert answer.message.startswith(words)
    assert (await api.data("/operations"))["list"] == []


async def test_people_pause_resume_cancel_and_retry(house, api):
    """Each answers with the operation as it is then; what its state does not allow is 409/3003."""
    await house.node()
    made = await api.data(CREATE, to())
    which = {"id": made["id"]}
    assert (await api.data("/operations/pause", which))["state"] == "paused"
    assert (await api.post("/operations/pause", which)).brief == (409, 3003)
    assert (await api.data("/operations/resume", which))["state"] == "running"
    assert (await api.post("/operations/retry-failed", which)).brief == (409, 3003)
    cancelled = await api.data("/operations/cancel", which)
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "cancelled by operator")
    assert cancelled["finishedAt"] is not None
    for verb in ("pause", "resume", "cancel", "retry-failed"):
        answer = await api.post(f"/operations/{verb}", which)
        assert answer.brief == (409, 3003), verb
        assert (await api.post(f"/operations/{verb}", {"id": 99})).brief == (404, 3001)


async def test_an_operation_that_is_not_there(api):
    """Nor are its tasks; a wrong method on a verb is told as such."""
    for path in ("/operations/9", "/operations/9/tasks"):
        answer = await api.get(path)
        assert (answer.brief, answer.message) == ((404, 3001), "operation 9 not found")
    assert (await api.get("/operations/x")).brief == (400, 2002)
    assert (await api.get("/operations/retry-failed")).brief == (405, 2003)
    assert (await api.get("/operations", state="gone")).brief == (400, 2002)


async def test_a_task_cannot_take_an_operations_request_id(house, api):
    """The fan-out would find it taken."""
    node = await house.node()
    body = {"nodeId": node, "type": "reload", "requestId": "op1-n1"}
    answer = await api.post("/agent-tasks/create", body)
    assert answer.brief == (400, 2002)
    assert answer.message.startswith("requestId: the form op<number>-n<number> is kept")


async def test_a_large_payload_is_left_out_of_lists(house, api):
    """Of operations and of their tasks; each one has its own."""
    await house.node()
    payload = {"urls": ["/" + "a" * 20_000]}
    made = await api.data(CREATE, to(payload=payload))
    await Stepper(house.database).all()
    assert (await api.data("/operations"))["list"][0]["payload"] is None
    (task,) = (await api.data(f"/operations/{made['id']}/tasks"))["list"]
    assert task["payload"] is None
    assert (await api.data(f"/agent-tasks/{task['id']}"))["payload"] == payload
    assert (await api.data(f"/operations/{made['id']}"))["payload"] == payload
