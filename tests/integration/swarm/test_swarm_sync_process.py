"""A swarm whose agents connect out, and a real control plane they connect to."""

import signal
from urllib.request import urlopen

import pytest

from edgeplane.swarm.addresses import address_of, name_of
from kit.history import Effect, History
from kit.processes import ControlPlane
from kit.swarm import Swarm, SwarmEffects
from kit.waiting import until

AGENTS = 20
_PURGE = {"type": "purge_cache", "payload": {"urls": ["/*"]}, "target": {"all": True}}


class Scene:
    """A control plane with a sync listener, and the swarm that is to connect to it."""

    def __init__(self, folder, options):
        self.control = ControlPlane(folder / "control")
        url = f"http://127.0.0.1:{self.control.sync_port}"
        self.swarm = Swarm(folder / "swarm", AGENTS, options, control=url)
        self.ids = {}

    def up(self):
        """Start both; the control plane knows of all agents before they come."""
        self.control.up()
        self.ids = self.swarm.register(self.control)
        self.swarm.up()
        return self

    def fan_out(self):
        """Ask for a purge of every node."""
        return self.control.data("POST", "/operations/create", _PURGE)["id"]

    def wait_for(self, operation, seconds=60.0):
        """Wait until an operation has succeeded everywhere."""

        def done():
            counts = self.control.data("GET", f"/operations/{operation}")["counts"]
            return counts["success"] == AGENTS

        until(done, seconds, f"operation {operation} has succeeded everywhere")

    def effects(self):
        """Return the agent and request of each effect, sorted."""
        history = History()
        SwarmEffects(self.swarm.effects, history).flush()
        return sorted(event.file for event in history.events if isinstance(event, Effect))

    def wanted(self, *operations):
        """Return what the effects of operations are: one at each agent."""
        return sorted(
            f"{address}/op{operation}-n{node}"
            for operation in operations
            for address, node in self.ids.items()
        )

    def metric(self, name):
        """Return what a metric of the control plane shows."""
        with urlopen(f"http://127.0.0.1:{self.control.port}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def kill(self):
        """End both."""
        self.swarm.kill()
        self.control.kill()


@pytest.fixture
def scene(tmp_path):
    """Return a function that starts a scene, with options of the swarm."""
    made = []

    def start(*options):
        made.append(Scene(tmp_path, options))
        return made[-1].up()

    yield start
    for one in made:
        one.kill()


def test_every_agent_is_asked_over_its_own_connection(scene):
    """One effect each, and nothing was lost or turned away."""
    here = scene()
    operation = here.fan_out()
    here.wait_for(operation)
    assert here.effects() == here.wanted(operation)
    node = here.control.data("GET", f"/nodes/{here.ids[address_of(1)]}")
    assert (node["name"], node["transport"]) == (name_of(1), "sync")
    assert here.swarm.stop() == 0
    told = here.swarm.summary()
    assert (told["requests"], told["effects"]) == (AGENTS, AGENTS)
    assert (told["lost_exchanges"], told["turned_away"], told["put_off"]) == (0, {}, 0)
    assert 3 * AGENTS <= told["exchanges"] <= 4 * AGENTS


def test_whatever_befalls_them_each_has_one_effect(scene):
    """Agents are killed and connections cut, while executions take their time."""
    options = ("--latency", "20", "--drop", "0.2", "--kill", "0.2", "--down", "0.1", "--seed", "5")
    here = scene(*options)
    operations = [here.fan_out() for _ in range(3)]
    for operation in operations:
        here.wait_for(operation)
    assert here.effects() == here.wanted(*operations)
    here.swarm.stop()
    told = here.swarm.summary()
    assert told["drops"] > 0
    assert told["kills"] > 0


def test_a_control_plane_that_was_killed_has_them_back(scene):
    """They find it by themselves, and what it asked for before is done once."""
    here = scene("--latency", "300")
    operation = here.fan_out()
    until(here.effects, what="one of them has begun")
    here.control.send(signal.SIGKILL)
    here.control.wait()
    here.control.up()
    here.wait_for(operation)
    assert here.effects() == here.wanted(operation)
    assert here.swarm.stop() == 0
    assert here.swarm.summary()["lost_exchanges"] >= AGENTS


def test_a_swarm_that_was_killed_comes_back_as_others(scene):
    """With sessions of their own: what was asked and not told is asked again, and done once."""
    here = scene("--latency", "300")
    operation = here.fan_out()
    until(here.effects, what="one of them has begun")
    here.swarm.kill()
    here.swarm.up()
    here.wait_for(operation)
    assert here.effects() == here.wanted(operation)


def test_agents_nobody_knows_are_counted(tmp_path):
    """None is connected; each has been told why."""
    here = Scene(tmp_path, ())
    try:
        here.control.up()
        here.swarm.up()
        until(lambda: here.metric("edgeplane_exchanges_total") >= AGENTS, what="all have come")
        assert here.metric("edgeplane_agents_connected") == 0
        assert here.swarm.stop() == 0
        assert here.swarm.summary()["turned_away"]["404"] >= AGENTS
    finally:
        here.kill()
