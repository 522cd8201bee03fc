"""A node without an open port, from the commands to the effect, with both sides killed."""

import http.client
import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kit.processes import ADMIN_PASSWORD, Agent, ControlPlane
from kit.waiting import until

PROGRAM = str(Path(sys.executable).with_name("edgeplane"))
KINDS = ("purge_cache", "reload")


@pytest.fixture
def control(tmp_path):
    """Start a control plane."""
    made = ControlPlane(tmp_path / "control").up()
    yield made
    made.kill()


@pytest.fixture
def agent(tmp_path, control):
    """Make an agent that connects out to it."""
    url = f"http://127.0.0.1:{control.sync_port}"
    made = Agent(tmp_path / "agent", {"EDGEPLANE_CONTROL": url, "EDGEPLANE_NODE": "edge-1"})
    yield made
    made.kill()


@pytest.fixture
def edgeplane(tmp_path, control):
    """Return a function that runs a command and returns the JSON it prints."""
    environ = {
        "EDGEPLANE_URL": f"http://127.0.0.1:{control.port}",
        "EDGEPLANE_USERNAME": "admin",
        "EDGEPLANE_PASSWORD": ADMIN_PASSWORD,
        "EDGEPLANE_CONFIG_DIR": str(tmp_path),
    }

    def run(*arguments):
        done = subprocess.run(
            [PROGRAM, *arguments, "--json"], env=environ, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    return run


def _ask(control, node_id, request_id, kind):
    """Create a task, as a client does that asks again until it is answered."""
    body = {"nodeId": node_id, "type": kind, "requestId": request_id}
    body["payload"] = {"urls": [f"/{request_id}"]} if kind == "purge_cache" else {}

    def answered():
        with suppress(OSError, http.client.HTTPException):
            return control.data("POST", "/agent-tasks/create", body)["id"]
        return None

    return until(answered, 40, f"{request_id} is taken")


def test_a_node_is_added_its_agent_comes_and_a_task_is_done(control, agent, edgeplane):
    """By the commands of the manual."""
    node = edgeplane("node", "add", "edge-1", "192.0.2.7", "--transport", "sync")
    agent.start()
    agent.wait_for(f"Agent running as node edge-1 (id {node['id']})")
    task = edgeplane("task", "create", "--node", "edge-1", "--type", "reload", "--wait")
    assert task["status"] == "success"
    assert [file.name for file in agent.work.iterdir()] == [f"cmdb_reload_{task['requestId']}.txt"]
    assert (agent.stop(), control.stop()) == (0, 0)


def test_both_sides_are_killed_and_every_task_has_one_effect(control, agent):
    """With kill -9, of the agent and of the control plane, in turn, while tasks come in."""
    node_id = control.add_node(name="edge-1", transport="sync", ip="192.0.2.7")
    agent.start()
    asked = {}
    for number in range(24):
        request_id = f"r{number}"
        asked[request_id] = _ask(control, node_id, request_id, KINDS[number % 2])
        if number % 8 == 3:
            agent.kill()
            agent.start()
        if number % 8 == 7:
            control.kill()
            control.up()
    for task_id in asked.values():
        control.wait_for_task(task_id, seconds=60)
    made = sorted(file.name.rpartition("_")[2].partition(".")[0] for file in agent.work.iterdir())
    assert made == sorted(asked)
    done = re.findall(r"\[SUCCESS\] Task (\S+)", agent.output)
    assert len(done) == len(set(done))  # what is done is told from the journal, not done again
    assert (agent.stop(), control.stop()) == (0, 0)
