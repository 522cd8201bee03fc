"""The agent's settings: defaults, and one line for what cannot be used."""

import socket
from pathlib import Path

import pytest

from edgeplane.agent import settings
from edgeplane.agent.executors import registry
from edgeplane.environ import Environ, ListenAddress, SettingError
from edgeplane.observe import crashpoints


@pytest.fixture
def load(tmp_path):
    """Return a function that loads settings from a few names, with a state folder of its own."""

    def loaded(**values):
        return settings.load(
            Environ({"EDGEPLANE_AGENT_STATE_DIR": str(tmp_path / "state"), **values})
        )

    yield loaded
    crashpoints.arm(None)


def test_the_defaults_are_the_documented_ones(load, tmp_path):
    """Nothing needs to be set; the token is made and kept."""
    loaded = load()
    assert loaded.listen == ListenAddress("", 9090)
    assert (loaded.executor, loaded.simulated_dir) == ("simulated", Path("/tmp"))
    assert loaded.state_dir == tmp_path / "state"
    assert loaded.token.source == str(tmp_path / "state" / "agent_token")
    assert loaded.token.value == load().token.value
    assert loaded.control == ()


def test_an_agent_that_connects_out_is_told_where_and_for_whom(load):
    """Its token is the control plane's; its node has the machine's name unless another is set."""
    loaded = load(EDGEPLANE_CONTROL="http://a,https://b:1", AGENT_TOKEN="t" * 20)
    assert [str(url) for url in loaded.control] == ["http://a:8081", "https://b:1"]
    assert loaded.node == socket.gethostname()
    assert load(EDGEPLANE_NODE="edge 1").node == "edge 1"


def test_a_token_is_not_made_up_for_an_agent_that_connects_out(load, tmp_path):
    """One kept in the state folder is taken, and nothing is left there otherwise."""
    with pytest.raises(SettingError, match="^AGENT_TOKEN: must be the control plane's"):
        load(EDGEPLANE_CONTROL="http://a")
    kept = tmp_path / "state" / "agent_token"
    assert not kept.exists()
    kept.write_text("kept-from-the-control-plane\n")
    assert load(EDGEPLANE_CONTROL="http://a").token.value == "kept-from-the-control-plane"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AGENT_HTTP_ADDR", "9090"),
        ("AGENT_HTTP_ADDR", ":70000"),
        ("EDGEPLANE_CRASH_AT", "agent.nowhere"),
        ("EDGEPLANE_CRASH_AT", "agent.after_begin:x"),
        ("EDGEPLANE_CRASH_AT", "agent.after_begin:"),
        ("EDGEPLANE_CRASH_AT", "agent.after_begin:0"),
        ("EDGEPLANE_CRASH_AT", "agent.after_begin:\u0663"),
        ("EDGEPLANE_CRASH_AT", "agent.after_begin:" + "9" * 5000),
        ("EDGEPLANE_AGENT_STATE_DIR", "/proc/nowhere"),
        ("EDGEPLANE_CONTROL", "control:8081"),
        ("EDGEPLANE_NODE", "n" * 129),
        ("EDGEPLANE_NODE", "no\udcffUTF-8"),
        ("EDGEPLANE_NODE", "two\nlines"),
    ],
)
def test_a_malformed_setting_is_refused_by_name(load, name, value):
    """The line begins with the setting."""
    with pytest.raises(SettingError, match=f"^{name}: "):
        load(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("EDGEPLANE_AGENT_EXECUTOR", "magic"), ("EDGEPLANE_SIMULATED_DIR", "/nowhere/at/all")],
)
def test_an_executor_that_cannot_be_had_is_refused_by_name(load, name, value):
    """Unknown, or without its folder."""
    with pytest.raises(SettingError, match=f"^{name}: "):
        registry.build(load(**{name: value}))


def test_every_crash_point_of_the_agent_can_be_armed(load):
    """The setting takes each of their names."""
    for name in crashpoints.AGENT_POINTS:
        load(EDGEPLANE_CRASH_AT=f"{name}:1000000")
