"""The agent's settings, read once at start."""

from dataclasses import dataclass
from pathlib import Path

from edgeplane.environ import (
    Environ,
    ListenAddress,
    Secret,
    SettingError,
    default_state_folder,
    keep_token,
)
from edgeplane.observe import crashpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Everything the agent can be told."""

    listen: ListenAddress
    """``AGENT_HTTP_ADDR``: where it listens; ``:9090`` unless set, port 0 for any free one."""

    token: Secret
    """``AGENT_TOKEN``: what the control plane shows as bearer; made and kept in the state folder
    where it is not set."""

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
    return AgentSettings(
        listen=environ.listen("AGENT_HTTP_ADDR", ":9090"),
        token=keep_token(environ, "AGENT_TOKEN", state_dir),
        state_dir=state_dir,
        executor=environ.text("EDGEPLANE_AGENT_EXECUTOR", "simulated"),
        simulated_dir=Path(environ.text("EDGEPLANE_SIMULATED_DIR", "/tmp")).absolute(),  # noqa: S108  the documented place
    )


def _arm(written: str) -> None:
    try:
        crashpoints.arm(written)
    except ValueError as error:
        raise SettingError(str(error)) from error
