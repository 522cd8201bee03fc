"""The agent's settings: defaults, and one line for what cannot be used."""

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
