"""An agent behind a NAT: it has a private address, and nobody can call it.

The control plane has a host of its own, from which there is no way to the agent.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.nets import Net
from kit.processes import Agent, ControlPlane

PATIENCE = 60.0
#: The kernel finds a cut link within about 12 s; then the agent comes back within seconds.
BOUND_SECONDS = 30.0
LISTENS = "0A"
CALL = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
except OSError as error:
    print(error.strerror)
"""


class Scene:
    """A control plane, a router, and an agent behind it that connects out."""

    def __init__(self, folder, net):
        self.side = net.add_host("control")
        self.router = net.add_router("router")
        self.edge = net.add_private_host("edge", self.router)
        address = self.side.address
        self.control = ControlPlane(folder / "control", host=address, inside=self.side.inside)
        url = f"http://{address}:{self.control.sync_port}"
        self.agent = Agent(folder / "agent", {"EDGEPLANE_CONTROL": url})
        self.agent.command[:0] = self.edge.inside

    def up(self):
        """Start both; the agent's node has the name of its host."""
        self.control.up()
        self.node_id = self.control.add_node(
            self.agent.port, name="edge", ip=self.edge.address, transport="sync"
        )
        self.agent.start()
        self.agent.wait_for(f"Agent running as node edge (id {self.node_id})")

    def ask(self):
        """Create a task; return its id."""
        asked = {"nodeId": self.node_id, "type": "purge_cache", "payload": {"urls": ["/a"]}}
        return self.control.data("POST", "/agent-tasks/create", asked)["id"]

    def caller(self, task_id):
        """Return where the last attempt of a task was sent to, without its port."""
        attempts = self.control.data("GET", f"/agent-tasks/{task_id}/attempts")["list"]
        return attempts[0]["address"].rpartition(":")[0]

    def call_from_control(self, address, port):
        """Try to connect to something from the control plane's host; return why it fails."""
        command = [*self.side.inside, sys.executable, "-c", CALL, address, str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def close(self):
        """End both."""
        self.agent.kill()
        self.control.kill()


@pytest.fixture
def net():
    """Make a network; it is gone at the end."""
    made = Net()
    yield made
    made.close()


@pytest.fixture
def scene(tmp_path, net):
    """Start a scene."""
    made = Scene(tmp_path, net)
    try:
        made.up()
        yield made
    finally:
        made.close()


def _sockets(pid, state):
    """Return the TCP sockets in this state in a process's namespace."""
    lines = []
    for table in ("tcp", "tcp6"):
        lines += Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[3] == state]


def test_nobody_can_call_the_agent_and_its_task_is_done(scene):
    """There is no way to its host, no port on it, none on the router; its own call is enough."""
    assert _sockets(scene.agent.pid, LISTENS) == []
    assert _sockets(scene.agent.pid, "01") != []  # it is connected: that is read where it should be
    assert _sockets(scene.control.pid, LISTENS) != []
    port = scene.agent.port
    assert scene.call_from_control(scene.edge.address, port) == "Network is unreachable"
    assert scene.call_from_control(scene.router.address, port) == "Connection refused"
    task_id = scene.ask()
    scene.control.wait_for_task(task_id, seconds=PATIENCE)
    assert scene.caller(task_id) == f"sync from {scene.router.address}"
    assert len(list(scene.agent.work.iterdir())) == 1


def _redial(scene):
    """Lose every mapping: what is on its way is nobody's."""
    scene.router.redial()


def _unplug(scene):
    """Pull the router's cable until the agent has seen it, and get another address meanwhile."""
    scene.router.host.cut()
    scene.router.redial()
    scene.agent.wait_for(" lost: ", PATIENCE)
    scene.router.host.mend()


@pytest.mark.parametrize("lose", [_redial, _unplug], ids=["redialled", "unplugged"])
def test_the_agent_comes_back_by_itself_when_the_mapping_is_lost(scene, lose):
    """Nobody is told; the next tasks are done all the same, each once, from the new address."""
    first = scene.ask()
    scene.control.wait_for_task(first, seconds=PATIENCE)
    before = scene.router.address
    lose(scene)
    back = time.monotonic()
    second = scene.ask()
    scene.control.wait_for_task(second, seconds=PATIENCE)
    seconds = time.monotonic() - back
    print(f"{lose.__name__}: the next task was done {seconds:.1f} s later")
    assert seconds < BOUND_SECONDS
    assert scene.caller(first) == f"sync from {before}"
    third = scene.ask()  # the second was sent to where the agent had been, and then again
    scene.control.wait_for_task(third, seconds=PATIENCE)
    assert scene.caller(third) == f"sync from {scene.router.address}"
    assert scene.router.address != before
    assert len(list(scene.agent.work.iterdir())) == 3
    assert scene.agent.output.count("[SUCCESS]") == 3
