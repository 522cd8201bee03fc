"""Whatever is asked, the answer is the envelope (``kit.asgi`` checks each one's form)."""

import asyncio
import json
import logging

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from edgeplane.api import door
from edgeplane.model.errors import DatabaseAway
from edgeplane.wire import MAX_BODY_BYTES
from kit.asgi import call_raw

POSTS = (
    "/auth/login",
    "/nodes/create",
    "/nodes/update",
    "/nodes/delete",
    "/agent-tasks/create",
    "/agent-tasks/retry",
)
GETS = ("/me", "/ping", "/nodes", "/nodes/1", "/agent-tasks", "/agent-tasks/1")


@pytest.mark.parametrize(
    "path",
    ["/nope", "/nodes/1/2", "/nodes/1/", "/agent-tasks/", "/", "/auth", "nope", "/api/v2/ping"],
)
async def test_an_unknown_path_is_not_found(api, path):
    """A path nobody serves is 404/3001, with or without a final slash."""
    assert (await api.get(path)).brief == (404, 3001)


async def test_an_unknown_path_is_echoed_with_a_bound(api):
    """A path of any length is named by its beginning only."""
    answer = await api.get("/" + "x" * 5000)
    assert answer.brief == (404, 3001)
    assert len(answer.message) < 300


@pytest.mark.parametrize("path", [*POSTS, *GETS])
async def test_each_path_has_its_method(api, path):
    """Any other on it is 405/2003 and says which one is allowed."""
    allowed = "POST" if path in POSTS else "GET"
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"} - {allowed}:
        answer = await api.call(method, path)
        assert answer.brief == (405, 2003), method
        assert answer.headers["allow"] == allowed, method


NO_OBJECTS = [
    b"",
    b" ",
    b"{",
    b"not json",
    b"[]",
    b"null",
    b'"text"',
    b"1",
    b"\xff\xfe",
    b'{"a":"\xff"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":1}{"b":2}',
    b"\x00",
    b"a=1&b=2",
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


@pytest.mark.parametrize("path", POSTS)
async def test_a_body_that_is_no_json_object_is_malformed(api, path):
    """Empty, broken, of another type, badly encoded or endlessly nested: 400/2002."""
    for body in NO_OBJECTS:
        assert (await api.post(path, body)).brief == (400, 2002), body[:20]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/auth/login", {"username": "a", "password": "b"}),
        ("/nodes/create", {"name": "n", "mainIP": "192.0.2.1"}),
        ("/nodes/create", {"name": "n", "mainIP": "192.0.2.1", "subIPs": [{"ip": "192.0.2.2"}]}),
        ("/nodes/update", {"id": 1}),
        ("/nodes/delete", {"ids": [1]}),
        ("/agent-tasks/create", {"nodeId": 1, "type": "reload"}),
        ("/agent-tasks/retry", {"id": 1}),
    ],
)
async def test_an_unknown_key_is_refused(api, path, body):
    """A key nobody reads is named in a 400/2002, also inside a sub-IP."""
    inner = body["subIPs"][0] if "subIPs" in body else body
    inner["priorty"] = 1
    answer = await api.post(path, body)
    assert answer.brief == (400, 2002)
    assert "priorty: unknown field" in answer.message


@pytest.mark.parametrize("path", [*GETS, *POSTS])
async def test_an_unknown_query_parameter_is_refused(api, path):
    """A misspelt filter is named in a 400/2002, on every route."""
    answer = await api.call("POST" if path in POSTS else "GET", path, b"{}", query="stauts=failed")
    assert answer.brief == (400, 2002)
    if path != "/agent-tasks/create":
        assert "stauts: unknown query parameter" in answer.message


async def test_a_query_parameter_given_twice_is_refused(api):
    """Of two filters of one name, none is silently passed over."""
    answer = await api.call("GET", "/agent-tasks", query="status=failed&status=pending")
    assert answer.brief == (400, 2002)
    assert answer.message == "status: given more than once"


@pytest.mark.parametrize("path", [*POSTS, "/nodes"])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_above_the_bound_is_refused(api, path, declared):
    """One byte too many is 413/2003, told by the header or by counting."""
    headers = {"content-length": str(MAX_BODY_BYTES + 1)} if declared else {}
    body = b"" if declared else b" " * (MAX_BODY_BYTES + 1)
    answer = await api.call("POST", path, body, headers=headers)
    assert answer.brief == (413, 2003)
    assert str(MAX_BODY_BYTES) in answer.message


async def test_a_body_at_the_bound_is_read(api):
    """The bound itself is allowed: what is wrong then is the JSON."""
    answer = await api.call("POST", "/nodes/create", b" " * MAX_BODY_BYTES)
    assert answer.brief == (400, 2002)


async def test_a_body_that_does_not_come_is_given_up(api, monkeypatch):
    """A body that stops half-way is 408/2003, not a request that hangs."""
    monkeypatch.setattr(door, "BODY_SECONDS", 0.01)
    sent = []

    async def receive(first=[True]):  # noqa: B006 (its memory)
        if first.pop() if first else False:
            return {"type": "http.request", "body": b"{", "more_body": True}
        return await asyncio.get_running_loop().create_future()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/v1/nodes/create", "headers": []}
    await api.app(scope, receive, send)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["code"] == 2003


async def test_a_client_that_goes_away_gets_no_answer(api):
    """A disconnect while the body is read ends the request quietly."""

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/api/v1/nodes/create", "headers": []}
    await api.app(scope, receive, send)


CALLS = [
    ("read", "GET", "/nodes", b""),
    ("read", "GET", "/nodes/1", b""),
    ("read", "GET", "/agent-tasks", b""),
    ("read", "GET", "/agent-tasks/1", b""),
    ("read", "POST", "/auth/login", {"username": "a", "password": "b"}),
    ("write", "POST", "/nodes/create", {"name": "n", "mainIP": "192.0.2.1"}),
    ("write", "POST", "/nodes/update", {"id": 1}),
    ("write", "POST", "/nodes/delete", {"ids": [1]}),
    ("write", "POST", "/agent-tasks/retry", {"id": 1}),
    ("create", "POST", "/agent-tasks/create", {"nodeId": 1, "type": "reload"}),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[2])
async def test_an_unexpected_error_tells_only_a_request_id(house, api, monkeypatch, caplog, call):
    """500/5001: the client can quote an id, the log has the cause under it, nobody else sees it."""
    part, *asked = call
    await api.get("/me")  # who calls is known before the store fails

    async def fail(_work):
        raise RuntimeError("secret internals")

    monkeypatch.setattr(house.database, part, fail)
    with caplog.at_level(logging.ERROR):
        answer = await api.call(*asked)
    assert answer.brief == (500, 5001)
    quoted = answer.headers["x-request-id"]
    assert answer.message == f"internal error: quote request id {quoted}"
    assert "secret" not in answer.raw.decode()
    (record,) = [record for record in caplog.records if record.name == "edgeplane.api.errors"]
    assert quoted in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[2])
async def test_a_database_that_is_away_is_told_as_passing(house, api, monkeypatch, call):
    """503/5002 where the same request may be sent again."""
    part, *asked = call
    await api.get("/me")

    async def fail(_work):
        raise DatabaseAway("database is not available just now")

    monkeypatch.setattr(house.database, part, fail)
    assert (await api.call(*asked)).brief == (503, 5002)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/agent-tasks/create", {"nodeId": 1, "type": "reload", "requestId": "only-once"}),
        ("/agent-tasks/retry", {"id": 1}),
        ("/nodes/create", {"name": "other", "mainIP": "192.0.2.1"}),
        ("/nodes/update", {"id": 1, "name": "other"}),
        ("/nodes/delete", {"ids": [2]}),
    ],
)
async def test_a_commit_that_fails_is_never_a_success(house, api, caplog, path, body):
    """What was not committed is 500/5002, and nothing of it is there."""
    node = await house.node(name="first")
    await house.node(name="second")
    await house.fail(await house.task(node))
    before = await api.data("/agent-tasks"), await api.data("/nodes")

    def full(_connection):
        raise OperationalError("COMMIT", {}, Exception("database or disk is full"))

    event.listen(house.database.engine, "commit", full)
    try:
        answer = await api.post(path, body)
    finally:
        event.remove(house.database.engine, "commit", full)
    assert answer.brief == (500, 5002)
    assert answer.message == "database error"
    assert "disk is full" in caplog.text
    assert (await api.data("/agent-tasks"), await api.data("/nodes")) == before
    assert (await api.post(path, body)).brief == (200, 0)


async def test_every_answer_has_its_own_request_id(api):
    """No two answers share an id."""
    ids = {(await api.get("/ping")).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


async def test_what_is_not_http_is_passed_on(house):
    """A scope of another kind goes to the framework: the door only knows requests."""
    sent: list[str] = []

    async def receive():
        return {"type": "lifespan.startup" if not sent else "lifespan.shutdown"}

    async def send(message):
        sent.append(message["type"])

    await house.app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_the_document_is_served_to_anyone(house):
    """The OpenAPI document is there without a token, and every name it refers to is in it."""
    start, raw = await call_raw(house.app, "GET", "/api/v1/openapi.json")
    assert start["status"] == 200
    document = json.loads(raw)
    known = set(document["components"]["schemas"])
    named = {part.split('"')[0] for part in raw.decode().split('"$ref":"#/components/schemas/')[1:]}
    assert named <= known
    assert "HTTPValidationError" not in known
