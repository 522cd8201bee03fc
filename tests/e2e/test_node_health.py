"""What is observed of a node, with real processes: an agent that comes and goes, or is none."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest

from kit.ports import free_port
from kit.processes import Agent, ControlPlane
from kit.waiting import until

#: A failing node is asked again ten to twelve seconds after its first failure.
PATIENCE = 40.0


@pytest.fixture
def control(tmp_path):
    """Run a control plane that asks nodes every second."""
    plane = ControlPlane(tmp_path / "control", {"EDGEPLANE_PROBE_SECONDS": "1"}).up()
    yield plane
    plane.kill()


@pytest.fixture
def agent(tmp_path):
    """Run an agent."""
    running = Agent(tmp_path / "agent").up()
    yield running
    running.kill()


def wait_for(control, node_id, status, seconds=PATIENCE):
    """Wait until a node has this status; return it."""

    def there():
        node = control.data("GET", f"/nodes/{node_id}")
        return node if node["status"] == status else None

    return until(there, seconds, f"node {node_id} is {status}")


def wait_for_error(control, node_id, words):
    """Wait until a node's health error holds these words; return the node."""

    def there():
        node = control.data("GET", f"/nodes/{node_id}")
        return node if words in (node["lastHealthError"] or "") else None

    return until(there, PATIENCE, words)


def test_a_node_is_online_while_its_agent_answers_and_gets_its_tasks_when_it_is_back(
    control, agent
):
    """Without any task at first: asked, seen, gone, and back with what waited."""
    node_id = control.add_node(agent.port)
    node = wait_for(control, node_id, "online")
    assert node["lastSeenAt"] is not None
    assert node["lastHealthError"] is None
    assert [n["id"] for n in control.data("GET", "/nodes?status=online")["list"]] == [node_id]
    agent.kill()
    node = wait_for(control, node_id, "offline")
    assert "connection refused" in node["lastHealthError"]
    assert control.data("GET", "/nodes?status=online")["list"] == []
    tasks = [
        control.data("POST", "/agent-tasks/create", {"nodeId": node_id, "type": "reload"})["id"]
        for _ in range(3)
    ]
    for task_id in tasks:
        control.wait_for_task(task_id, "failed")
    agent.up()
    for task_id in tasks:
        control.wait_for_task(task_id, seconds=PATIENCE)
    seen = node["lastSeenAt"]
    node = wait_for(control, node_id, "online")
    assert node["lastHealthError"] is None
    assert node["lastSeenAt"] > seen


def test_an_agent_with_another_token_is_not_online(control, tmp_path):
    """It answers, and refuses: that is told in plain words."""
    other = Agent(tmp_path / "other", {"AGENT_TOKEN": "another-token-for-the-tests"}).up()
    try:
        node = {"name": "n", "mainIP": "127.0.0.1", "agentPort": other.port, "status": "online"}
        node_id = control.data("POST", "/nodes/create", node)["id"]
        node = wait_for(control, node_id, "offline")
        assert node["lastHealthError"] == "agent answers 401: AGENT_TOKEN differs"
        assert node["lastSeenAt"] is None
    finally:
        other.kill()


class Answering(BaseHTTPRequestHandler):
    """Answers every request alike, and notes when which address was asked."""

    protocol_version = "HTTP/1.1"
    status, body = 404, json.dumps({"error": "not found"}).encode()
    asked: "defaultdict[str, list[float]]"

    def do_GET(self):
        """Answer."""
        self.asked[self.connection.getsockname()[0]].append(time.monotonic())
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815 (the name the server looks for)

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def answering(**told) -> Iterator[tuple[int, dict[str, list[float]]]]:
    """Serve on every address of this machine; hand out the port, and when each was asked."""
    asked: defaultdict[str, list[float]] = defaultdict(list)
    server = ThreadingHTTPServer(
        ("0.0.0.0", 0), type("_Handler", (Answering,), {"asked": asked, **told})
    )
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()


def test_another_server_on_the_port_is_not_online_and_maintenance_is_kept(control):
    """Neither by a probe nor by what a delivery shows."""
    words = "what answers is no Edgeplane agent: status 404"
    with answering() as (port, _):
        node_id = control.add_node(port)
        wait_for_error(control, node_id, words)
        task = control.data("POST", "/agent-tasks/create", {"nodeId": node_id, "type": "reload"})
        control.wait_for_task(task["id"], "failed")
        node = wait_for(control, node_id, "offline")
        assert (node["lastSeenAt"], node["lastHealthError"]) == (None, words)
        control.data("POST", "/nodes/update", {"id": node_id, "status": "maintenance"})
        control.data("POST", "/nodes/update", {"id": node_id, "agentPort": free_port()})
    node = wait_for_error(control, node_id, "connection refused")
    assert node["status"] == "maintenance"


def test_two_replicas_ask_a_node_once_an_interval(tmp_path, mysql_dsn):
    """They share a MariaDB: a listener sees each node asked as by one of them."""
    settings = {"MYSQL_DSN": mysql_dsn, "EDGEPLANE_PROBE_SECONDS": "4"}
    well = {"code": 0, "message": "success", "data": {"version": "1.0"}}
    replicas = [ControlPlane(tmp_path / f"control-{number}", settings) for number in range(2)]
    ips = [f"127.0.0.{number}" for number in range(2, 14)]
    with answering(status=200, body=json.dumps(well).encode()) as (port, asked):
        try:
            first, _ = [plane.up() for plane in replicas]
            ids = [first.add_node(port, ip, ip) for ip in ips]
            until(lambda: min(len(asked[ip]) for ip in ips) >= 4, 60, "each is asked four times")
            assert {first.data("GET", f"/nodes/{node}")["status"] for node in ids} == {"online"}
        finally:
            for plane in replicas:
                plane.kill()
    # At least 3.2 s lie between two claims; a probe may be held up on its way.
    gaps = [later - sooner for ip in ips for sooner, later in pairwise(asked[ip])]
    assert min(gaps) > 1.0, sorted(gaps)[:5]
