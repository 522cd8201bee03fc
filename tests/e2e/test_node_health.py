"""What is observed of a node, with real processes: an agent that comes and goes, or is none."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

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


class Foreign(BaseHTTPRequestHandler):
    """A server of somebody else's."""

    def do_GET(self):
        """Answer like many do."""
        body = json.dumps({"error": "not found"}).encode()
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 (the name the server looks for)

    def log_message(self, *_):
        """Say nothing."""


def test_another_server_on_the_port_is_not_online_and_maintenance_is_kept(control):
    """Neither by a probe nor by what a delivery shows."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        node_id = control.add_node(server.server_address[1])
        words = "what answers is no Edgeplane agent: status 404"
        wait_for_error(control, node_id, words)
        task = control.data("POST", "/agent-tasks/create", {"nodeId": node_id, "type": "reload"})
        control.wait_for_task(task["id"], "failed")
        node = wait_for(control, node_id, "offline")
        assert (node["lastSeenAt"], node["lastHealthError"]) == (None, words)
        resting = {"id": node_id, "status": "maintenance"}
        control.data("POST", "/nodes/update", resting)
    finally:
        server.shutdown()
        server.server_close()
    node = wait_for_error(control, node_id, "connection refused")
    assert node["status"] == "maintenance"
