"""The agent's settings, read once at start."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeplane.agent.control_urls import ControlUrl, read_control_urls
from edgeplane.environ import (
    Environ,
    ListenAddress,
    Secret,
    SettingError,
    default_state_folder,
    keep_token,
)
from edgeplane.observe import crashpoints

MAX_NODE_NAME: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Everything the agent can be told."""

    listen: ListenAddress
    """``AGENT_HTTP_ADDR``: where it listens; ``:9090`` unless set, port 0 for any free one."""

    control: tuple[ControlUrl, ...]
    """``EDGEPLANE_CONTROL``: the control planes it connects out to; none: it listens instead."""

    node: str
    """``EDGEPLANE_NODE``: the name of its node, where it connects out; the machine's unless set."""

    token: Secret
    """``AGENT_TOKEN``: what the control plane shows as bearer; made and kept in the state folder
    where it is not set, unless the agent connects out: then it has to be the control plane's."""

    state_dir: Path
    """``EDGEPLANE_AGENT_STATE_DIR``: journal, lock and kept token; one agent per folder."""

    executor: str
    """``EDGEPLANE_AGENT_EXECUTOR``: what carries tasks out; ``simulated`` unless set."""

    simulated_dir: Path
    """``EDGEPLANE_SIMULATED_DIR``: where the simulated executor writes; ``/tmp`` unless set."""


def state_folder(environ: Environ) -> Path:
    """Return the state folder, made where it is not there yet; raise SettingError if it cannot be.

    It is read apart from the rest because its lock comes first: a token is made by its holder only.
    """
    return environ.folder(
        "EDGEPLANE_AGENT_STATE_DIR", lambda: default_state_folder("edgeplane-agent")
    )


def load(environ: Environ) -> AgentSettings:
    """Read every setting, and arm the crash point that ``EDGEPLANE_CRASH_AT`` names.

    Raises:
        SettingError: one of them is malformed.

    """
    _arm(environ.text("EDGEPLANE_CRASH_AT"))
    state_dir = state_folder(environ)
    control = read_control_urls("EDGEPLANE_CONTROL", environ.text("EDGEPLANE_CONTROL"))
    if control:
        _expect_token(environ, state_dir)
    return AgentSettings(
        listen=environ.listen("AGENT_HTTP_ADDR", ":9090"),
        control=control,
        node=_node(environ),
        token=keep_token(environ, "AGENT_TOKEN", state_dir),
        state_dir=state_dir,
        executor=environ.text("EDGEPLANE_AGENT_EXECUTOR", "simulated"),
        simulated_dir=Path(environ.text("EDGEPLANE_SIMULATED_DIR", "/tmp")).absolute(),  # noqa: S108  the documented place
    )


def _node(environ: Environ) -> str:
    name = environ.text("EDGEPLANE_NODE") or socket.gethostname()
    if not 0 < len(name) <= MAX_NODE_NAME or not name.isprintable():
        raise SettingError(f"EDGEPLANE_NODE: must have 1 to {MAX_NODE_NAME} printable characters")
    return name


def _expect_token(environ: Environ, state_dir: Path) -> None:
    """Refuse to make up a token where only that of a control plane is of use."""
    kept = state_dir / "agent_token"
    if not environ.text("AGENT_TOKEN") and not kept.exists():
        raise SettingError(
            "AGENT_TOKEN: must be the control plane's where the agent connects out: it is in the "
            f"file agent_token of that one's state folder; set it, or copy the file to {kept}"
        )


def _arm(written: str) -> None:
    try:
        crashpoints.arm(written)
    except ValueError as error:
        raise SettingError(str(error)) from error
