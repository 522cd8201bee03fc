"""The REST door behind its real HTTP server: what only a socket can show."""

import http.client
import json
import socket

import pytest

from edgeplane.wire import MAX_BODY_BYTES
from kit.processes import ADMIN_PASSWORD, ControlPlane


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """Run a control plane for the module."""
    running = ControlPlane(tmp_path_factory.mktemp("plane")).up()
    yield running
    running.stop()


@pytest.fixture
def connection(plane):
    """Open a connection to it."""
    opened = http.client.HTTPConnection("127.0.0.1", plane.port, timeout=20)
    yield opened
    opened.close()


def ask(connection, plane, method, path, body=None, **headers):
    """Ask on a kept connection; return the answer and its body."""
    headers = {"Authorization": f"Bearer {plane.token}", **headers}
    connection.request(method, f"/api/v1{path}", body, headers)
    answer = connection.getresponse()
    return answer, answer.read()


def envelope(raw, code):
    """Check that a body is an envelope with a code; return its message."""
    found = json.loads(raw)
    assert list(found) == ["code", "message", "data"]
    assert found["code"] == code
    return found["message"]


def raw_exchange(plane, *parts):
    """Send bytes on a socket of our own; return all that comes until the server hangs up."""
    with socket.create_connection(("127.0.0.1", plane.port), timeout=20) as talk:
        for part in parts:
            talk.sendall(part)
        talk.shutdown(socket.SHUT_WR)
        got = b""
        while part := talk.recv(65536):
            got += part
        return got


def test_a_connection_serves_many_requests(plane, connection):
    """Kept alive through successes, refusals and unknown paths."""
    seen = set()
    for path, status in (("/ping", 200), ("/nope", 404), ("/nodes/x", 400), ("/me", 200)) * 5:
        answer, _ = ask(connection, plane, "GET", path)
        assert answer.status == status
        seen.add(connection.sock.getsockname())
    assert len(seen) == 1


@pytest.mark.parametrize("path", ["/nodes/create", "/agent-tasks/create", "/auth/login"])
def test_a_body_too_large_is_told_so(plane, connection, path):
    """413/2003 reaches a client that sends it all, declared or in chunks; the next call is fine."""
    answer, raw = ask(connection, plane, "POST", path, b" " * (MAX_BODY_BYTES + 1))
    assert answer.status == 413
    assert str(MAX_BODY_BYTES) in envelope(raw, 2003)
    connection.close()
    chunks = (b" " * 65536 for _ in range(MAX_BODY_BYTES // 65536 + 2))
    answer, raw = ask(connection, plane, "POST", path, chunks)
    assert answer.status == 413
    envelope(raw, 2003)
    connection.close()
    assert ask(connection, plane, "GET", "/ping")[0].status == 200


def test_a_body_too_large_is_refused_before_it_is_sent(plane):
    """Who asks first (``Expect: 100-continue``) is told without sending anything."""
    head = (
        f"POST /api/v1/nodes/create HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n"
        "Expect: 100-continue\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", plane.port), timeout=20) as talk:
        talk.sendall(head)
        assert talk.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_head_has_no_body(plane, connection):
    """HEAD is 405 like any method that is not GET, and leaves the connection usable."""
    answer, raw = ask(connection, plane, "HEAD", "/ping")
    assert (answer.status, raw, answer.headers["allow"]) == (405, b"", "GET")
    assert ask(connection, plane, "GET", "/ping")[0].status == 200


def test_options_is_an_envelope(plane, connection):
    """OPTIONS is 405 and names what is allowed."""
    answer, raw = ask(connection, plane, "OPTIONS", "/agent-tasks/create")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    envelope(raw, 2003)


def test_what_is_no_http_gets_an_envelope(plane):
    """Even a request nobody can read is answered in our own form, and the connection ends."""
    for nonsense in (b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n"):
        head, _, body = raw_exchange(plane, nonsense).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        envelope(body, 2002)


def test_a_client_that_hangs_up_half_way_leaves_nothing(plane):
    """Half a body and gone: nothing is stored, and nothing is complained of."""
    head = (
        f"POST /api/v1/nodes/create HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {plane.token}\r\n"
        'Content-Length: 100\r\n\r\n{"name":"half","mainIP":"192.0.2.1"'
    ).encode()
    assert raw_exchange(plane, head) == b""
    assert plane.data("GET", "/nodes?name=half")["total"] == 0
    assert "Traceback" not in plane.output


def test_pipelined_requests_are_answered_in_order(plane):
    """Two requests in one packet get two answers, in order."""
    ping = b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n"
    nope = b"GET /api/v1/nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    got = raw_exchange(plane, ping + nope)
    assert got.index(b"HTTP/1.1 200 OK") < got.index(b"HTTP/1.1 404 Not Found")


def test_the_server_says_nothing_of_itself(plane, connection):
    """No ``Server`` header names a program or its version."""
    answer, _ = ask(connection, plane, "GET", "/ping")
    assert answer.headers["server"] is None
    assert answer.headers["x-request-id"]


def test_the_seeds_curl_lines_work_without_a_content_type(plane, connection):
    """A body is JSON whatever its content type says: curl's ``-d`` default is a form's."""
    login = json.dumps({"username": "admin", "password": ADMIN_PASSWORD})
    kinds = ("application/json", "application/x-www-form-urlencoded", "text/plain")
    for kind in kinds:
        answer, raw = ask(connection, plane, "POST", "/auth/login", login, **{"Content-Type": kind})
        assert answer.status == 200
        envelope(raw, 0)
    node = b'{"name":"form","mainIP":"192.0.2.1","enabled":false}'
    answer, _ = ask(connection, plane, "POST", "/nodes/create", node, **{"Content-Type": kinds[1]})
    assert answer.status == 200


def test_nothing_secret_is_printed(plane):
    """No token and no password is in what the process has said so far."""
    for secret in (plane.token, ADMIN_PASSWORD):
        assert secret not in plane.output
