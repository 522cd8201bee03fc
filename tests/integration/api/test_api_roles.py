"""Who may call what: one line for each route there is."""

import re

import pytest

from edgeplane.model.users import Role
from kit.asgi import Caller, call_raw

ANYONE, ALL = "anyone", {Role.VIEWER, Role.OPERATOR, Role.ADMIN}
HANDS = {Role.OPERATOR, Role.ADMIN}

#: Every route of the application, and who may call it.
ALLOWED = {
    ("POST", "/auth/login"): ANYONE,
    ("GET", "/ping"): ANYONE,
    ("GET", "/me"): ALL,
    ("GET", "/nodes"): ALL,
    ("GET", "/nodes/{node_id}"): ALL,
    ("POST", "/nodes/create"): HANDS,
    ("POST", "/nodes/update"): HANDS,
    ("POST", "/nodes/delete"): HANDS,
    ("GET", "/agent-tasks"): ALL,
    ("GET", "/agent-tasks/{task_id}"): ALL,
    ("GET", "/agent-tasks/{task_id}/attempts"): ALL,
    ("GET", "/events"): ALL,
    ("POST", "/agent-tasks/create"): HANDS,
    ("POST", "/agent-tasks/retry"): HANDS,
    ("POST", "/agent-tasks/cancel"): HANDS,
    ("GET", "/operations"): ALL,
    ("GET", "/operations/{operation_id}"): ALL,
    ("GET", "/operations/{operation_id}/tasks"): ALL,
    ("POST", "/operations/create"): HANDS,
    ("POST", "/operations/pause"): HANDS,
    ("POST", "/operations/resume"): HANDS,
    ("POST", "/operations/cancel"): HANDS,
    ("POST", "/operations/retry-failed"): HANDS,
}


def query(path):
    """Return a query with which a call ends: a stream would go on."""
    return "lastEventId=none" if path == "/events" else ""


def route(table_line):
    """Return a method and a path that can be called."""
    method, path = table_line
    return method, re.sub(r"\{\w+\}", "1", path)


async def test_every_route_has_a_line(house):
    """A new route without a line in the table above fails here."""
    import json

    _, raw = await call_raw(house.app, "GET", "/api/v1/openapi.json")
    found = {
        (method.upper(), path.removeprefix("/api/v1")): operation["security"]
        for path, operations in json.loads(raw)["paths"].items()
        for method, operation in operations.items()
    }
    assert set(found) == set(ALLOWED)
    for line, security in found.items():
        assert security == ([] if ALLOWED[line] == ANYONE else [{"bearer": []}]), line


async def test_no_route_hides_from_the_document(house):
    """What the application serves and the document leaves out is the document itself."""

    def paths(router):
        for found in router.routes:
            inner = getattr(found, "original_router", None)
            if inner is not None:
                yield from paths(inner)
            elif not getattr(found, "include_in_schema", False):
                yield found.path

    hidden = set(paths(house.app._app))
    assert hidden == {"/api/v1/openapi.json"}


@pytest.mark.parametrize("line", ALLOWED, ids=" ".join)
async def test_each_role_may_what_the_table_says(house, line):
    """Who is not named gets 403/1004, who is named something else; nobody gets 401."""
    method, path = route(line)
    for role, caller in house.callers.items():
        answer = await caller.call(
            method, path, b"{}" if method == "POST" else b"", query=query(path)
        )
        if ALLOWED[line] == ANYONE or role in ALLOWED[line]:
            assert answer.status in {200, 400, 404}, (role, answer)
        else:
            assert answer.brief == (403, 1004), (role, answer)
            assert role.value in answer.message


@pytest.mark.parametrize("line", ALLOWED, ids=" ".join)
async def test_without_a_token_only_the_open_routes_answer(house, line):
    """401/1001 elsewhere, before the body is looked at."""
    method, path = route(line)
    answer = await Caller(house.app).call(method, path, b"?" if method == "POST" else b"")
    if ALLOWED[line] == ANYONE:
        assert answer.status in {200, 400}
    else:
        assert answer.brief == (401, 1001)


@pytest.mark.parametrize("line", [line for line in ALLOWED if ALLOWED[line] == HANDS], ids=" ".join)
async def test_a_viewer_changes_nothing(house, line):
    """A refused call leaves nodes and tasks as they were."""
    node, other = await house.node(), await house.node()
    task = await house.task(node)
    await house.fail(task)
    operation = {"type": "reload", "target": {"nodeIds": [node]}}
    of = (await house.callers[Role.ADMIN].data("/operations/create", operation))["id"]
    if line[1] == "/operations/resume":
        await house.callers[Role.ADMIN].data("/operations/pause", {"id": of})
    if line[1] == "/operations/retry-failed":
        await house.count(of, failed=1)
    bodies = {
        "/nodes/create": {"name": "n", "mainIP": "192.0.2.1"},
        "/nodes/update": {"id": node, "enabled": False},
        "/nodes/delete": {"ids": [node]},
        "/agent-tasks/create": {"nodeId": node, "type": "reload"},
        "/agent-tasks/retry": {"id": task.id},
        "/agent-tasks/cancel": {"id": (await house.task(other)).id},
        "/operations/create": operation,
        **{f"/operations/{verb}": {"id": of} for verb in ("pause", "resume", "cancel")},
        "/operations/retry-failed": {"id": of},
    }
    viewer = house.callers[Role.VIEWER]
    lists = ("/nodes", "/agent-tasks", "/operations")
    before = [await viewer.data(path) for path in lists]
    assert (await viewer.post(line[1], bodies[line[1]])).brief == (403, 1004)
    assert [await viewer.data(path) for path in lists] == before
    assert (await house.callers[Role.OPERATOR].post(line[1], bodies[line[1]])).brief == (200, 0)
