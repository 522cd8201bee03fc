"""The REST client: what it sends, what it makes of answers, and what it does not do."""

import inspect
import json
import socket
import threading

import msgspec
import pytest

from edgeplane.client import connection, errors, records
from edgeplane.client.errors import ApiError, Unreachable
from edgeplane.client.records import NewNode, NewTask, NodeChanges, NodeFilter, SubIP, TaskFilter
from edgeplane.client.rest import Client
from unit.cli.fake_api import LOGIN, NODE, TASK, page


def test_the_public_names_are_pinned():
    """Whoever uses the client relies on these names: changing one is a decision."""
    methods = {name for name, _ in inspect.getmembers(Client) if not name.startswith("_")}
    assert methods == {
        *("base_url", "last_data", "login", "me", "ping", "close", "wait"),
        *("list_operations", "get_operation", "create_operation", "change_operation"),
        *("list_operation_tasks", "wait_operation"),
        *("list_nodes", "get_node", "find_node", "create_node", "update_node", "delete_nodes"),
        *("list_tasks", "get_task", "create_task", "retry_task", "cancel_task", "list_attempts"),
    }
    shapes = {
        name
        for name, value in vars(records).items()
        if inspect.isclass(value) and value.__module__ == records.__name__
    }
    assert shapes == {
        *("User", "Login", "SubIP", "Node", "NewNode", "NodeChanges", "NodeFilter", "Deleted"),
        *("Operation", "NewOperation", "OperationFilter", "Target"),
        *("Task", "NewTask", "TaskFilter", "Page", "PageWanted", "Attempt"),
    }
    assert {name for name in vars(errors) if name[0].isupper()} == {
        *("ClientError", "ApiError", "Unreachable"),
    }


def test_login_is_followed_by_the_token(api):
    """After login every call carries the token, and the token is in no repr."""
    api.answer("POST", "/api/v1/auth/login", LOGIN)
    api.answer("GET", "/api/v1/me", LOGIN["user"])
    client = Client(api.url + "/")
    login = client.login("admin", "secret-word")
    assert client.me().username == "admin"
    assert api.requests[0].json == {"username": "admin", "password": "secret-word"}
    assert "Authorization" not in api.requests[0].headers
    assert api.requests[1].headers["Authorization"] == "Bearer made-token"
    assert "made-token" not in repr(login)


def test_nodes_are_typed(api):
    """A node's keys arrive under Python's names, and leave under the API's."""
    api.answer("GET", "/api/v1/nodes/7", NODE)
    api.answer("POST", "/api/v1/nodes/create", NODE)
    api.answer("POST", "/api/v1/nodes/update", NODE)
    api.answer("POST", "/api/v1/nodes/delete", {"deletedCount": 2})
    client = Client(api.url, "t")
    node = client.get_node(7)
    assert (node.main_ip, node.agent_port, node.sub_ips) == (
        "192.0.2.7",
        9090,
        [SubIP("192.0.2.8", enabled=False)],
    )
    client.create_node(
        NewNode(name="n", main_ip="192.0.2.1", enabled=False, sub_ips=[SubIP("::1")])
    )
    client.update_node(7, NodeChanges(enabled=False, sub_ips=[]))
    assert client.delete_nodes([7, 8]) == 2
    sent = [request.json for request in api.requests[1:]]
    assert sent == [
        {
            "name": "n",
            "mainIP": "192.0.2.1",
            "enabled": False,
            "subIPs": [{"ip": "::1", "enabled": True}],
        },
        {"id": 7, "enabled": False, "subIPs": []},
        {"ids": [7, 8]},
    ]


def test_a_payload_travels_byte_for_byte(api):
    """Key order and integers beyond 2^53 leave as they were given and arrive as they were sent."""
    text = '{"z":1,"a":12345678901234567890123}'
    answer = json.dumps({"code": 0, "message": "success", "data": {**TASK, "payload": None}})
    api.raw(
        "POST",
        "/api/v1/agent-tasks/create",
        answer.replace('"payload": null', f'"payload": {text}').encode(),
    )
    client = Client(api.url, "t")
    task = client.create_task(NewTask(node_id=7, type="reload", payload=msgspec.Raw(text.encode())))
    assert text.encode() in api.requests[0].body
    assert bytes(task.payload).decode() == text
    assert text.encode() in client.last_data


def test_filters_become_a_query(api):
    """What is asked for becomes the query; what is not, is left out."""
    api.answer("GET", "/api/v1/agent-tasks", page(TASK))
    api.answer("GET", "/api/v1/nodes", page())
    client = Client(api.url, "t")
    found = client.list_tasks(TaskFilter(node_id=7, status="failed", cursor="b&1"))
    client.list_nodes(NodeFilter(enabled=False, name="ä b", page=1))
    client.list_nodes()
    assert found.list[0].id == 12
    assert [request.path.partition("?")[2] for request in api.requests] == [
        "cursor=b%261&nodeId=7&status=failed",
        "page=1&name=%C3%A4+b&enabled=false",
        "",
    ]


def test_a_node_is_found_by_its_whole_name(api):
    """The name filter may match more: only the very same name counts, on whatever page."""
    first = {**page({**NODE, "name": "edge-10"}), "total": 101, "pageSize": 100}
    second = {**page({**NODE, "name": "edge-1"}), "total": 101, "page": 2, "pageSize": 100}
    api.answer("GET", "/api/v1/nodes", first)
    api.answer("GET", "/api/v1/nodes", second)
    found = Client(api.url, "t").find_node("edge-1")
    assert found is not None
    assert found.name == "edge-1"
    assert Client(api.url, "t").find_node("edge-2") is None


def test_an_error_keeps_what_the_server_said(api):
    """Code, status, message, request id and Retry-After reach the caller."""
    headers = {"X-Request-Id": "q-1", "Retry-After": "7"}
    api.refuse("GET", "/api/v1/me", 429, 3004, "slow down", headers)
    with pytest.raises(ApiError) as caught:
        Client(api.url, "t").me()
    error = caught.value
    assert (error.code, error.status, error.message) == (3004, 429, "slow down")
    assert (error.request_id, error.retry_after) == ("q-1", 7)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello</html>"),
        (200, b"[]"),
        (200, b'{"message":"success"}'),
        (200, b'{"code":0,"message":"success","data":{"id":"x"}}'),
        (200, b'{"code":0,"message":"success","data":null}'),
        (200, b"\xff\xfe"),
        (200, b""),
        (502, b"<html>bad gateway</html>"),
        (500, b'{"code":0,"message":"success","data":null}'),
    ],
)
def test_an_answer_of_another_kind_is_no_success(api, status, body):
    """What is not the envelope, or not the shape, is an error that says so."""
    api.raw("GET", "/api/v1/me", body, status=status)
    with pytest.raises(ApiError) as caught:
        Client(api.url, "t").me()
    assert (caught.value.code, caught.value.status) == (5003, status)


def test_an_endless_answer_is_cut_off(api, monkeypatch):
    """An answer beyond the bound is not read to its end and is no success."""
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 1000)
    api.answer("GET", "/api/v1/ping", "x" * 2000)
    with pytest.raises(ApiError):
        Client(api.url).ping()


def test_redirects_are_not_followed(api):
    """A redirect is an answer of another kind: nothing is sent to where it points."""
    api.raw("GET", "/api/v1/me", b"", status=302, headers={"Location": f"{api.url}/api/v1/ping"})
    with pytest.raises(ApiError) as caught:
        Client(api.url, "t").me()
    assert caught.value.status == 302
    assert len(api.requests) == 1


def test_proxy_variables_are_not_read(api, nobody, monkeypatch):
    """With a proxy in the environment the request still goes to the address itself."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, nobody)
    api.answer("GET", "/api/v1/ping", "pong")
    Client(api.url).ping()
    assert len(api.requests) == 1


def test_nobody_there_is_unreachable(nobody):
    """A refused connection names the address and the reason, and was surely not carried out."""
    with pytest.raises(Unreachable) as caught:
        Client(nobody).login("a", "b")
    assert str(caught.value) == f"cannot reach {nobody}: connection refused"
    assert caught.value.sent is False


def test_a_lost_answer_is_not_asked_for_again(api):
    """A POST whose answer is lost may have been carried out: it is sent once, and that is said."""
    api.raw("POST", "/api/v1/agent-tasks/create", b"", status=0)
    with pytest.raises(Unreachable) as caught:
        Client(api.url, "t").create_task(NewTask(node_id=1, type="reload"))
    assert caught.value.sent is True
    assert len(api.requests) == 1


def test_a_silent_server_is_given_up(monkeypatch):
    """An address that accepts and never answers ends in a timeout."""
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable) as caught:
        Client(f"http://127.0.0.1:{silent.getsockname()[1]}").ping()
    assert "no answer within" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "127.0.0.1:8080",
            "ftp://x",
            "http://",
            "http://u:secret@h",
            "http://h?x",
            "http://h#x",
        ),
        *("http://h:0", "http://h:99999", "http://h\n", "http://[::1", "http://h h"),
    ],
)
def test_an_address_that_is_none_is_refused(url):
    """Only http and https addresses without credentials are taken; none is repeated."""
    with pytest.raises(ValueError, match="must look like") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: y", "ä"])
def test_a_token_that_is_none_is_refused(token):
    """No token can smuggle a header."""
    with pytest.raises(ValueError, match="token"):
        Client("http://127.0.0.1:1", token)


def test_waiting_tells_each_change_once(api):
    """The task is yielded at first and at each change, until it is final."""
    waits = {"status": "failed", "attempts": 1, "nextRetryAt": "2026-01-23T10:00:05.000Z"}
    for change in (
        {},
        {},
        {"status": "running", "attempts": 1},
        {**waits, "lastError": "connection refused"},
        {"status": "success", "attempts": 2},
    ):
        api.answer("GET", "/api/v1/agent-tasks/12", {**TASK, **change})
    seen = [(task.status, task.final) for task in Client(api.url, "t").wait(12)]
    assert seen == [("pending", False), ("running", False), ("failed", False), ("success", True)]
    assert len(looks(api)) == 5


def looks(api):
    """Return the requests for tasks: the control plane is asked for its event stream besides."""
    return [request for request in api.requests if "/agent-tasks/" in request.path]


def test_waiting_is_told_by_the_event_stream(api, monkeypatch):
    """It looks when the stream has said something, and does not sleep; one that ended is no end."""
    api.answer("GET", "/api/v1/agent-tasks/12", TASK)
    api.answer("GET", "/api/v1/agent-tasks/12", {**TASK, "status": "running", "attempts": 1})
    api.answer("GET", "/api/v1/agent-tasks/12", {**TASK, "status": "success", "attempts": 1})
    stream = {"Content-Type": "text/event-stream"}
    api.raw("GET", "/api/v1/events", b"retry: 2000\n\n", headers=stream)
    monkeypatch.setattr("edgeplane.client.news.time.sleep", lambda _: pytest.fail("it slept"))
    seen = [task.status for task in Client(api.url, "t").wait(12)]
    assert seen == ["pending", "running", "success"]
    (asked,) = [request for request in api.requests if "/events" in request.path]
    assert asked.path.endswith("?taskId=12")
    assert asked.headers["Authorization"] == "Bearer t"


BEGIN = b"retry: 2000\n\nid: 1\n\n"
LIFE = b": \nid: 1\n\n"
EVENT = b"id: 2\nevent: begun\ndata: {}\n\n"


def test_a_sign_of_life_is_no_news(api):
    """Nothing is asked for while nothing happens; an event is looked after, in pieces too."""
    stream = api.stream("/api/v1/events")
    stream.put(BEGIN)
    api.answer("GET", "/api/v1/agent-tasks/12", TASK)
    for _ in range(50):
        stream.put(LIFE)

    def end():
        api.answers.clear()
        api.answer("GET", "/api/v1/agent-tasks/12", {**TASK, "status": "success"})
        stream.put(EVENT[:9])
        stream.put(EVENT[9:])

    ending = threading.Timer(0.5, end)
    ending.start()
    assert [task.status for task in Client(api.url, "t").wait(12)] == ["pending", "success"]
    assert len(looks(api)) == 3
    ending.join()


def test_a_stream_that_says_nothing_is_left(api, monkeypatch):
    """A proxy that keeps back what it gets: the task is asked again at intervals."""
    monkeypatch.setattr("edgeplane.client.news._OPEN_SECONDS", 0.1)
    api.stream("/api/v1/events")
    api.answer("GET", "/api/v1/agent-tasks/12", TASK)
    api.answer("GET", "/api/v1/agent-tasks/12", {**TASK, "status": "success"})
    assert [task.status for task in Client(api.url, "t").wait(12)] == ["pending", "success"]


def test_a_stream_that_falls_silent_is_left(api, monkeypatch):
    """No sign of life for too long: it is looked at, and asked again at intervals."""
    monkeypatch.setattr("edgeplane.client.news.SILENCE_SECONDS", 0.1)
    api.stream("/api/v1/events").put(BEGIN)
    api.answer("GET", "/api/v1/agent-tasks/12", TASK)
    api.answer("GET", "/api/v1/agent-tasks/12", TASK)
    api.answer("GET", "/api/v1/agent-tasks/12", {**TASK, "status": "success"})
    assert [task.status for task in Client(api.url, "t").wait(12)] == ["pending", "success"]


def test_a_stream_is_hung_up_with_the_wait(api):
    """When time is up while it goes on: its thread ends too."""
    api.stream("/api/v1/events").put(BEGIN)
    api.answer("GET", "/api/v1/agent-tasks/12", TASK)
    before = set(threading.enumerate())
    list(Client(api.url, "t").wait(12, timeout=0.2))
    assert not [one for one in set(threading.enumerate()) - before if one.name == "news"]
    assert len(looks(api)) == 3


@pytest.mark.parametrize("status", [404, 429])
def test_waiting_goes_on_without_a_stream(api, status):
    """An older control plane has none, a busy one has no room: it is asked again at intervals."""
    api.answer("GET", "/api/v1/agent-tasks/12", TASK)
    api.answer("GET", "/api/v1/agent-tasks/12", {**TASK, "status": "success"})
    api.refuse("GET", "/api/v1/events", status, 3004, "no")
    assert [task.final for task in Client(api.url, "t").wait(12)] == [False, True]


def test_waiting_ends_with_a_final_failure(api):
    """A failure that will not be tried again is the end."""
    api.answer("GET", "/api/v1/agent-tasks/12", {**TASK, "status": "failed", "attempts": 1})
    assert [task.final for task in Client(api.url, "t").wait(12)] == [True]


def test_waiting_ends_when_time_is_up(api):
    """When the time has passed the generator ends, and the last task says it has not."""
    api.answer("GET", "/api/v1/agent-tasks/12", TASK)
    assert [task.final for task in Client(api.url, "t").wait(12, timeout=0.2)] == [False]
    assert 2 <= len(looks(api)) <= 5


def test_waiting_outlives_a_short_absence(api):
    """A control plane that restarts while somebody waits is asked again."""
    api.answer("GET", "/api/v1/agent-tasks/12", TASK)
    api.refuse("GET", "/api/v1/agent-tasks/12", 503, 5002, "the database cannot be reached")
    api.raw("GET", "/api/v1/agent-tasks/12", b"", status=0)
    api.answer("GET", "/api/v1/agent-tasks/12", {**TASK, "status": "success"})
    assert [task.status for task in Client(api.url, "t").wait(12)] == ["pending", "success"]


def test_waiting_does_not_outlast_its_patience(api):
    """An absence longer than the patience ends the wait with the reason."""
    api.raw("GET", "/api/v1/agent-tasks/12", b"", status=0)
    with pytest.raises(Unreachable):
        list(Client(api.url, "t").wait(12, patience=0.1))
    assert len(api.requests) >= 2


def test_waiting_ends_at_an_error_that_stays(api):
    """An error that cannot pass, such as an unknown task, ends the wait at once."""
    with pytest.raises(ApiError):
        list(Client(api.url, "t").wait(13))
    assert len(api.requests) == 1
