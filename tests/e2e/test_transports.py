"""What a client is promised, step by step, over both transports.

A real control plane, and a real agent that listens or connects out.
"""

import re
import signal
import time

import pytest

from kit.processes import Agent, ControlPlane
from kit.waiting import until

#: Why a task waits for an agent that is not there, and how its node is, as a client reads it.
UNREACHABLE = {
    "push": r"agent unreachable: connect to 127\.0\.0\.1:\d+: connection refused",
    "sync": r"agent unreachable: (it is not connected|not sent to 127\.0\.0\.1:\d+: .+ went away)",
}
PATIENCE = 40.0
CONFIG = '{"z":18446744073709551617,"a":{"y":-9007199254740993,"b":[1,2]},"k":"é"}'
MADE = (
    '{\n  "z": 18446744073709551617,\n  "a": {\n    "y": -9007199254740993,\n'
    '    "b": [\n      1,\n      2\n    ]\n  },\n  "k": "é"\n}'
)


class Scene:
    """A control plane, an agent, and its node over one of the transports.

    The node is asked how it is once an hour: what goes on by itself does not wait for that.
    """

    def __init__(self, folder, transport):
        self.transport = transport
        self.control = ControlPlane(folder / "control", {"EDGEPLANE_PROBE_SECONDS": "3600"}).up()
        self.agent = Agent(folder / "agent", self._place())
        self.node_id = self.control.add_node(
            self.agent.port, name="edge-1", ip="127.0.0.1", transport=transport
        )
        self.call, self.data = self.control.call, self.control.data

    def up(self):
        """Start the agent, unless it runs, and wait until it can be asked."""
        if not self.agent.running:
            self.agent.start()
        listens = "Agent server running on"
        self.agent.wait_for(listens if self.transport == "push" else "Agent running as node")

    def ask(self, request_id, kind="reload", payload="{}", **more):
        """Create a task of JSON text that travels as it is; return the envelope."""
        fields = {"nodeId": self.node_id, "type": kind, "requestId": request_id, **more}
        inner = ",".join(f'"{name}":{_text(value)}' for name, value in fields.items())
        body = f'{{{inner},"payload":{payload}}}'.encode()
        return self.call("POST", "/agent-tasks/create", body)

    def made(self, request_id):
        """Return the file of a reload."""
        return self.agent.work / f"cmdb_reload_{request_id}.txt"

    def wait_for_node(self, status):
        """Wait until the node is seen to be so; return it."""

        def there():
            node = self.data("GET", f"/nodes/{self.node_id}")
            return node if node["status"] == status else None

        return until(there, PATIENCE, f"the node is {status}")

    def wait_for_task(self, asked, status="success"):
        """Wait until a task that was created is so; return it."""
        assert asked["code"] == 0, asked
        return self.control.wait_for_task(asked["data"]["id"], status, PATIENCE)

    def close(self):
        """End both."""
        self.agent.kill()
        self.control.kill()

    def _place(self):
        if self.transport == "push":
            return {}
        url = f"http://127.0.0.1:{self.control.sync_port}"
        return {"EDGEPLANE_CONTROL": url, "EDGEPLANE_NODE": "edge-1"}


def _text(value):
    return str(value) if isinstance(value, int) else f'"{value}"'


@pytest.fixture(scope="module", params=UNREACHABLE)
def started(request, tmp_path_factory):
    """Start a scene for the whole module; tests tell their tasks apart by id."""
    made = Scene(tmp_path_factory.mktemp(request.param), request.param)
    yield made
    made.close()


@pytest.fixture
def scene(started):
    """Return the scene with its agent running."""
    started.up()
    return started


def test_a_task_succeeds_with_the_seeds_file_and_words(scene):
    """It is answered at once as pending; its one attempt is on record, with the agent's address."""
    asked = scene.ask("plain")
    assert (asked["status"], asked["message"]) == (200, "success")
    assert [asked["data"][key] for key in ("status", "attempts")] == ["pending", 0]
    task = scene.wait_for_task(asked)
    words = f"Reload completed and logged to {scene.made('plain')}"
    assert [task[key] for key in ("requestId", "result", "lastError", "attempts")] == [
        *("plain", words, None, 1)
    ]
    assert scene.made("plain").is_file()
    (attempt,) = scene.data("GET", f"/agent-tasks/{task['id']}/attempts")["list"]
    assert (attempt["number"], attempt["outcome"]) == (1, "succeeded")
    if scene.transport == "push":
        assert attempt["address"] == f"127.0.0.1:{scene.agent.port}"
    else:
        assert attempt["address"].startswith("sync from 127.0.0.1:")


def test_a_payload_arrives_byte_for_byte(scene):
    """With its large integers and the order of its keys."""
    scene.wait_for_task(scene.ask("bytes", "apply_config", CONFIG))
    assert (scene.agent.work / "cmdb_apply_config_bytes.json").read_text() == MADE


def test_a_request_id_is_one_task(scene):
    """Asked for again it is the same task; with anything else it is refused."""
    first = scene.ask("twice")
    done = scene.wait_for_task(first)
    again = scene.ask("twice")
    assert (again["data"]["id"], again["data"]["status"]) == (done["id"], "success")
    other = scene.ask("twice", payload='{"other":1}')
    assert (other["status"], other["code"], other["data"]) == (409, 3002, None)
    assert scene.data("GET", f"/agent-tasks/{done['id']}/attempts")["total"] == 1


def test_what_the_agent_failed_at_is_final_until_it_is_retried(scene):
    """In the agent's words; the retry keeps the request id, and counts on."""
    obstacle = scene.made("stuck")
    obstacle.mkdir()
    task = scene.wait_for_task(scene.ask("stuck"), "failed")
    words = f"failed to write file: {obstacle}: Is a directory"
    assert (task["lastError"], task["nextRetryAt"], task["attempts"]) == (words, None, 1)
    obstacle.rmdir()
    retried = scene.call("POST", "/agent-tasks/retry", {"id": task["id"]})
    done = scene.wait_for_task(retried)
    assert (done["requestId"], done["attempts"]) == ("stuck", 2)
    assert obstacle.is_file()
    refused = scene.call("POST", "/agent-tasks/retry", {"id": task["id"]})
    assert (refused["status"], refused["code"]) == (409, 3003)


def test_an_agent_killed_after_its_effect_makes_no_second(scene):
    """It dies before it has told; back again, it answers from its journal and what it finds."""
    scene.agent.kill()
    scene.agent.start(EDGEPLANE_CRASH_AT="agent.after_effect")
    asked = scene.ask("killed")
    assert scene.agent.wait() == -signal.SIGKILL
    made = scene.made("killed").stat()
    scene.up()
    task = scene.wait_for_task(asked)
    after = scene.made("killed").stat()
    assert (after.st_ino, after.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert scene.agent.output.count("[SUCCESS] Task killed ") == 1
    assert task["result"] == f"Reload completed and logged to {scene.made('killed')}"


def test_what_waits_for_an_agent_is_told_can_be_cancelled_and_succeeds_by_itself(scene):
    """An agent that was stopped and is started again; nobody does anything else.

    The node is seen to go and to come back.
    """
    seen = scene.wait_for_node("online")
    assert seen["lastHealthError"] is None
    assert scene.agent.stop() == 0
    waiting = scene.ask("waiting")
    task = scene.wait_for_task(waiting, "failed")
    assert re.match(UNREACHABLE[scene.transport], task["lastError"])
    assert task["nextRetryAt"] is not None
    unwanted = scene.wait_for_task(scene.ask("unwanted"), "failed")
    scene.data("POST", "/agent-tasks/cancel", {"id": unwanted["id"]})
    cancelled = scene.control.task(unwanted["id"])
    assert (cancelled["status"], cancelled["nextRetryAt"]) == ("cancelled", None)
    gone = scene.data("GET", f"/nodes/{scene.node_id}")
    if scene.transport == "push":  # one that connects out may be away for a minute
        gone = scene.wait_for_node("offline")
        assert re.match(UNREACHABLE["push"], gone["lastHealthError"])
    assert gone["lastSeenAt"] >= seen["lastSeenAt"]

    scene.up()
    back = time.monotonic()
    task = scene.wait_for_task(waiting)
    print(f"{scene.transport}: done {time.monotonic() - back:.1f} s after its agent was back")
    assert (task["requestId"], task["nextRetryAt"]) == ("waiting", None)
    node = scene.wait_for_node("online")
    assert node["lastHealthError"] is None
    assert node["lastSeenAt"] >= gone["lastSeenAt"]
    assert scene.control.task(unwanted["id"])["status"] == "cancelled"
    assert not scene.made("unwanted").exists()
