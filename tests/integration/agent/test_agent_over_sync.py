"""The real control plane and the real agent that connects out to it."""

import random
import socket
import struct
import threading
from contextlib import suppress

import pytest

from kit.processes import ControlPlane


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """Start a control plane for the whole module; each test has a node of its own."""
    running = ControlPlane(tmp_path_factory.mktemp("control")).up()
    yield running
    running.kill()


@pytest.fixture
def connect(launch, control):
    """Return a function that starts the agent of a node; the same node is the same folder."""

    def start(node, **environment):
        url = f"http://127.0.0.1:{control.sync_port}"
        return launch(**{"EDGEPLANE_CONTROL": url, "EDGEPLANE_NODE": node, **environment})

    return start


def _create(control, node_id, kind="purge_cache", payload=None):
    asked = {"nodeId": node_id, "type": kind, "payload": payload or {"urls": ["/a"]}}
    return control.data("POST", "/agent-tasks/create", asked)["id"]


def test_tasks_of_every_kind_arrive_and_are_told(connect, control):
    """Each makes its effect once; what the executor fails at is failed."""
    node_id = control.add_node(name="kinds", transport="sync")
    agent = connect("kinds")
    agent.logged("connected to control plane")
    asked = [_create(control, node_id, kind) for kind in ("apply_config", "reload", "purge_cache")]
    asked += [_create(control, node_id) for _ in range(150)]
    for task_id in asked:
        control.wait_for_task(task_id)
    agent.logged("[SUCCESS]")
    assert len(agent.effects()) == len(asked)
    assert f"Agent running as node kinds (id {node_id})\n" in agent.out
    assert agent.stop() == 0


def test_it_is_told_within_seconds_that_all_is_well(connect, control):
    """Though there is nothing to do, and its first exchange would be held."""
    node_id = control.add_node(name="idle", transport="sync")
    agent = connect("idle")
    agent.logged("connected to control plane")
    assert f"(id {node_id})" in agent.out


def test_what_was_asked_while_it_was_away_is_done_when_it_is_back(connect, control):
    """Also what it was killed at; nothing is done twice."""
    node_id = control.add_node(name="away", transport="sync")
    dying = connect("away", EDGEPLANE_CRASH_AT="agent.after_effect")
    first = _create(control, node_id, "reload")
    dying.exit_code()
    (made,) = dying.effects()
    seen = made.stat().st_mtime_ns
    second = _create(control, node_id)
    agent = connect("away")
    for task_id in (first, second):
        control.wait_for_task(task_id)
    assert made.stat().st_mtime_ns == seen
    assert len(agent.effects()) == 2


class Scissors:
    """A way to a control plane on which each connection is cut after some bytes, to or fro."""

    def __init__(self, to_port, seed):
        self._to_port = to_port
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0
        self._threads = []
        self._start(self._accept)

    def close(self):
        """End it; whoever talks through it has to be gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, work, *given):
        thread = threading.Thread(target=work, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to_port))
                left = [self._random.randint(1, 6_000)]
                self._start(self._pump, client, server, left)
                self._start(self._pump, server, client, left)

    def _pump(self, source, target, left):
        with suppress(OSError):
            while data := source.recv(min(65_536, max(1, left[0]))):
                target.sendall(data)
                left[0] -= len(data)
                if left[0] <= 0:
                    self.cuts += 1
                    target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        target.close()


@pytest.mark.parametrize("seed", range(2))
def test_connections_cut_anywhere_lose_nothing_and_repeat_nothing(connect, control, seed):
    """In the middle of requests and replies, again and again."""
    name = f"cut-{seed}"
    node_id = control.add_node(name=name, transport="sync")
    scissors = Scissors(control.sync_port, seed)
    agent = connect(
        name,
        EDGEPLANE_CONTROL=scissors.url,
        before="from edgeplane.agent import comeback\ncomeback.Comeback.seconds = lambda *_: 0.02",
    )
    asked = []
    for kind in ["purge_cache", "reload", "apply_config", "purge_cache"] * 10:
        asked.append(_create(control, node_id, kind))
        if len(asked) % 4 == 0:
            control.wait_for_task(asked[-1], seconds=45)
    for task_id in asked:
        if control.task(task_id)["status"] != "superseded":
            control.wait_for_task(task_id, seconds=45)
    assert scissors.cuts > 10
    made = agent.err.count("[SUCCESS]")
    assert made == len(agent.effects())
    assert "Traceback" not in agent.err
    assert agent.stop() == 0
    scissors.close()


def test_a_large_payload_arrives_unchanged(connect, control):
    """As large as may be, byte for byte."""
    node_id = control.add_node(name="large", transport="sync")
    agent = connect("large")
    text = "x" * 1_000_000
    task_id = _create(control, node_id, "apply_config", {"z": 2**63, "a": text})
    control.wait_for_task(task_id)
    (made,) = agent.effects()
    assert f'"z": {2**63}' in made.read_text()
    assert text in made.read_text()


@pytest.mark.parametrize(
    ("node", "token", "words"),
    [
        ("nobody", None, "refuses this agent (404): "),
        ("pushed", None, "refuses this agent (409): "),
        ("nobody", "t" * 30, "refuses this agent (401): unauthorized: AGENT_TOKEN is not"),
    ],
)
def test_a_refusal_is_told_in_the_control_planes_words(connect, control, node, token, words):
    """It goes on running: the fault may be mended at the other side."""
    if node == "pushed":
        control.add_node(name="pushed")
    agent = connect(node, **({"AGENT_TOKEN": token} if token else {}))
    agent.logged(words)
    assert "running as node" not in agent.out
    assert agent.stop() == 0


def test_it_comes_back_to_a_control_plane_that_was_killed(launch, tmp_path):
    """And to one that was stopped in order: within seconds, by itself."""
    control = ControlPlane(tmp_path / "control").up()
    node_id = control.add_node(name="edge-1", transport="sync")
    url = f"http://127.0.0.1:{control.sync_port}"
    try:
        agent = launch(EDGEPLANE_CONTROL=url, EDGEPLANE_NODE="edge-1")
        control.wait_for_task(_create(control, node_id), seconds=45)
        control.kill()
        agent.logged("lost: ")
        control.up()
        control.wait_for_task(_create(control, node_id), seconds=45)
        assert control.stop() == 0
        control.up()
        control.wait_for_task(_create(control, node_id), seconds=45)
        assert len(agent.effects()) == 3
        assert agent.stop() == 0
    finally:
        control.kill()
