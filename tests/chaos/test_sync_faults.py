"""What befalls agents that connect out does so: each fault of theirs is seen at the other end."""

import pytest

from chaos.cast import Cast
from chaos.schedules import Fault
from kit.claimant import claim
from kit.history import History, Killed, Restarted
from kit.processes import ConnectingAgent, ControlPlane
from kit.relay import Relay
from kit.waiting import until


@pytest.fixture
def control(tmp_path):
    """Start a control plane with a node."""
    made = ControlPlane(tmp_path / "control").up()
    made.add_node(name="n0", transport="sync")
    yield made
    made.kill()


def test_a_claimant_speaks_for_a_node_and_its_own_agent_is_told(tmp_path, control):
    """The agent is refused for as long as the other is there; what that took is not done."""
    agent = ConnectingAgent(tmp_path / "agent", "n0", [f"http://127.0.0.1:{control.sync_port}"])
    try:
        agent.start()
        agent.wait_for("connected to control plane")
        assert claim([control.sync_port], "n0", 1.0) > 0
        agent.wait_for("another agent speaks for n0")
        assert "its agent has started anew" in control.output
    finally:
        agent.kill()


def test_a_claimant_of_nothing_is_not_heard(control):
    """No node has the name: nobody takes it for an agent."""
    assert claim([control.sync_port], "nobody", 0.3) == 0


def test_a_cut_ends_the_connections_and_the_agent_comes_back(tmp_path, control):
    """Over the same relay, told by nobody."""
    history = History()
    cast = Cast(history, None, stand_ins=False)
    relay = Relay(control.sync_port)
    agent = ConnectingAgent(tmp_path / "agent", "n0", [f"http://127.0.0.1:{relay.port}"])
    cast.relayed("agent0", [relay])
    cast.add("agent0", agent, None)
    try:
        agent.wait_for("connected to control plane")
        cast.befall(Fault(0.0, "cut", "agent0"))
        agent.wait_for("lost: ")
        until(lambda: agent.output.count("connected to control plane") == 2, 20, "it is back")
        assert history.events == []
        assert control.output.count("agent connected from") + control.output.count("anew") == 1
    finally:
        cast.close()


def test_a_claim_is_a_fault_of_the_nodes_own_agent(tmp_path):
    """The checker allows for it, from its begin to its end."""
    history = History()
    cast = Cast(history, None, stand_ins=False)
    control = ControlPlane(tmp_path / "control")
    cast.add("control0", control, None)
    try:
        control.add_node(name="n0", transport="sync")
        cast.claimable(0, "n0", "agent0")
        cast.befall(Fault(0.0, "claim", "agent0", seconds=0.5, node=0))
        until(lambda: len(history.events) == 2, 20, "it is over")
        assert [type(event) for event in history.events] == [Killed, Restarted]
        assert "version claimant" in control.output
        assert cast.errors == []
    finally:
        cast.close()
