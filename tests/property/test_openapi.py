"""Whatever is sent, the answer is an envelope that the OpenAPI document knows, and never a 5xx."""

import asyncio
import json
from types import SimpleNamespace
from urllib.parse import unquote, urlencode

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from edgeplane.auth import passwords
from edgeplane.model.users import Role
from kit import factories
from kit.asgi import Caller, call_raw
from kit.houses import CHEAP_HASH, build

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OPERATIONS = [
    ("POST", "/auth/login"),
    ("GET", "/ping"),
    ("GET", "/me"),
    ("GET", "/nodes"),
    ("GET", "/nodes/{node_id}"),
    ("POST", "/nodes/create"),
    ("POST", "/nodes/update"),
    ("POST", "/nodes/delete"),
    ("GET", "/agent-tasks"),
    ("GET", "/agent-tasks/{task_id}"),
    ("GET", "/agent-tasks/{task_id}/attempts"),
    ("POST", "/agent-tasks/create"),
    ("POST", "/agent-tasks/retry"),
    ("POST", "/agent-tasks/cancel"),
    ("GET", "/operations"),
    ("GET", "/operations/{operation_id}"),
    ("GET", "/operations/{operation_id}/tasks"),
    ("POST", "/operations/create"),
    ("POST", "/operations/pause"),
    ("POST", "/operations/resume"),
    ("POST", "/operations/cancel"),
    ("POST", "/operations/retry-failed"),
]
ENDLESS = {("GET", "/events")}  #: a stream, followed in tests of its own
POSTS = [path for method, path in OPERATIONS if method == "POST"]

few = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
some = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """Run a control plane on a loop of its own, with a few nodes and tasks, and its document."""
    folder = tmp_path_factory.mktemp("plane")
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_NOBODY", CHEAP_HASH)
        house = runner.run(build(factories.SqliteTemplate.make(folder).copy(folder)))
        for _ in range(3):
            node = runner.run(house.node())
            runner.run(house.fail(runner.run(house.task(node))))
        _, raw = runner.run(call_raw(house.app, "GET", "/api/v1/openapi.json"))
        yield SimpleNamespace(
            run=runner.run,
            app=house.app,
            caller=house.callers[Role.OPERATOR],
            schema=schemathesis.openapi.from_dict(json.loads(raw)),
        )
        runner.run(house.database.close())


def send(plane, case):
    """Send a generated request to the application; return the answer as the checks want it."""
    asked = case.as_transport_kwargs(base_url="http://control.test")
    prepared = requests.Request(**asked).prepare()
    path, _, query = prepared.path_url.partition("?")
    method, body = str(prepared.method), prepared.body or b""
    assert isinstance(body, bytes | str)
    token = {"authorization": f"Bearer {plane.caller.token}"}
    start, raw = plane.run(
        call_raw(
            plane.app,
            method,
            unquote(path),
            body if isinstance(body, bytes) else body.encode(),
            query,
            token,
        )
    )
    headers: dict[str, list[str]] = {}
    for name, value in start["headers"]:
        headers.setdefault(name.decode(), []).append(value.decode("latin-1"))
    return Response(start["status"], headers, raw, prepared, elapsed=0.0, verify=False)


@pytest.mark.parametrize("line", OPERATIONS, ids=" ".join)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)
def test_every_operation_answers_as_documented(plane, line, mode):
    """Requests that fit the document and requests that do not: status and shape are in it."""
    method, path = line
    operation = plane.schema[f"/api/v1{path}"][method]
    if mode is GenerationMode.NEGATIVE and path in {"/ping", "/me"}:
        mode = GenerationMode.POSITIVE  # they take nothing that could be wrong

    @few
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        answer = send(plane, case)
        assert list(json.loads(answer.content)) == ["code", "message", "data"]
        case.validate_response(answer, checks=CHECKS)

    check()


def test_the_document_lists_what_is_tested(plane):
    """A new operation without a line above fails here."""
    found = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path in plane.schema
        for method in plane.schema[path]
    }
    assert found == set(OPERATIONS) | ENDLESS


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
flat = st.lists(scalars, max_size=4) | st.dictionaries(st.text(), scalars, max_size=4)
json_values = scalars | flat | st.lists(flat, max_size=3)
known_keys = st.sampled_from(
    [
        *("id", "ids", "name", "mainIP", "subIPs", "nodeId", "type", "payload", "requestId"),
        *("username", "labels", "target", "maxConcurrency", "maxFailures"),
    ]
)
objects = st.dictionaries(known_keys | st.text(max_size=5), json_values, max_size=6)


@pytest.mark.parametrize("path", POSTS)
@some
@given(body=st.binary(max_size=200) | objects.map(lambda found: json.dumps(found).encode()))
def test_any_bytes_as_a_body_get_an_envelope(plane, path, body):
    """Bytes of any kind and objects of any shape: refused in our own words, and never a 5xx."""
    answer = plane.run(plane.caller.call("POST", path, body))
    assert answer.status < 500, answer
    if answer.status == 200:
        assert answer.code == 0
        assert path in {
            "/nodes/update",
            "/nodes/delete",
            "/agent-tasks/retry",
            "/agent-tasks/cancel",
            "/nodes/create",
        }


@pytest.mark.parametrize("noun", ["nodes", "agent-tasks", "operations"])
@some
@given(written=st.text(max_size=30) | st.integers().map(str))
def test_any_text_as_an_id_gets_an_envelope(plane, noun, written):
    """No text in a path is more than a malformed or an unknown id."""
    path = f"/{noun}/{written}".encode("utf-8", "replace").decode()
    answer = plane.run(plane.caller.call("GET", path))
    assert answer.status in {200, 400, 404, 405}, answer
    if answer.status == 200:
        assert answer.data["id"] == int(written)


@pytest.mark.parametrize("noun", ["nodes", "agent-tasks", "operations"])
@some
@given(
    query=st.dictionaries(
        st.sampled_from(
            [
                "page",
                "pageSize",
                "cursor",
                "name",
                "ip",
                "status",
                "nodeId",
                "type",
                "state",
                "label",
            ]
        )
        | st.text(max_size=5),
        st.text(max_size=20) | st.integers().map(str),
        max_size=3,
    )
)
def test_any_text_as_a_filter_gets_an_envelope(plane, noun, query):
    """A list, or a 400 that says what is wrong: never an error of ours."""
    sent = urlencode(query, errors="replace")
    answer = plane.run(plane.caller.call("GET", f"/{noun}", query=sent))
    assert answer.status in {200, 400}, answer


@some
@given(header=st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_text_as_a_token_is_nobody(plane, header):
    """No header of this kind opens the door."""
    caller = Caller(plane.app)
    for given_header in (header, f"Bearer {header}"):
        answer = plane.run(caller.call("GET", "/me", headers={"authorization": given_header}))
        assert answer.status == 401, answer


@some
@given(username=st.text(max_size=70), password=st.text(max_size=20))
def test_any_text_as_a_login_is_refused(plane, username, password):
    """Names and passwords of any text, lone surrogates included: 400, 401 or 429."""
    body = json.dumps({"username": username, "password": password}).encode()
    address = f"192.0.2.{hash(username) % 250}"
    answer = plane.run(Caller(plane.app, address=address).call("POST", "/auth/login", body))
    assert answer.status in {400, 401, 429}, answer
