"""One machine's state folder: what lies where in it, its secrets, and how its daemons start."""

import errno
import fcntl
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edgeplane.cli.exits import Exit, Stop
from edgeplane.cli.processes import Program
from edgeplane.environ import Environ, ListenAddress, keep_secret, keep_token, write_private
from edgeplane.model.clock import utc_now
from edgeplane.model.errors import NotAllowed
from edgeplane.model.users import check_password

CONTROL = "control"
AGENT = "agent"

_RUN_AGENT = "from edgeplane.agent.cli import main; main(prog_name='edgeplane-agent')"
#: What points elsewhere than at this machine; kept out of the children unless asked for.
_ELSEWHERE = ("MYSQL_DSN", "REDIS_ADDR", "REDIS_PASS", "REDIS_DB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A state folder and the two addresses.

    ``use_environment``: settings around it count. ``since``: when it was asked for.
    """

    state: Path
    control: ListenAddress
    agent: ListenAddress
    use_environment: bool
    since: datetime = field(default_factory=utc_now)

    @property
    def password_file(self) -> Path:
        """Where the first user's password is kept."""
        return self.state / "admin_password"

    @property
    def session_file(self) -> Path:
        """Where the command line finds a session while all is up."""
        return self.state / "session.json"

    @property
    def control_url(self) -> str:
        """The control plane, as seen from this machine."""
        return f"http://{_reachable(self.control)}"

    @property
    def agent_url(self) -> str:
        """The agent, as seen from this machine."""
        return f"http://{_reachable(self.agent)}"

    @property
    def agent_ip(self) -> str:
        """The address of the node that is this machine."""
        return _reachable(self.agent).host


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The two secrets both daemons are started with."""

    agent_token: str
    admin_password: str

    def __repr__(self) -> str:
        """Show nothing."""
        return "Keys()"


def prepare(place: Place) -> Keys:
    """Make the folders and the secrets that are missing, readable by this user alone."""
    try:
        for folder in (CONTROL, AGENT, f"{AGENT}/work"):
            (place.state / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        _keep_password(place.password_file)
    except OSError as error:
        raise Stop(
            Exit.FAILED, f"--state-dir: {place.state} cannot be used: {error.strerror}"
        ) from error
    around = Environ.load() if place.use_environment else Environ({})
    return Keys(
        agent_token=keep_token(around, "AGENT_TOKEN", place.state).value,
        admin_password=keep_secret(Environ({}), "ADMIN_PASSWORD", place.state).value,
    )


def _keep_password(file: Path) -> None:
    """Keep the first user's password, if one is given at the first start."""
    chosen = os.environ.get("ADMIN_PASSWORD")
    if not chosen or file.exists():
        return
    try:
        write_private(file, check_password(chosen) + "\n")
    except NotAllowed as error:
        raise Stop(Exit.USAGE, f"ADMIN_PASSWORD: {error.message}") from error


@contextmanager
def held(state: Path) -> Iterator[None]:
    """Hold the folder: one ``up`` at a time.

    Raises:
        Stop: another one holds it, or it cannot be made.

    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Stop(Exit.FAILED, f"--state-dir: {state} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            raise Stop(
                Exit.FAILED, f"{state}: an edgeplane up runs here already (pid {holder})"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def programs(place: Place, keys: Keys) -> tuple[Program, Program]:
    """Return how the control plane and the agent are started.

    They run in their own folders, so that a ``.env`` around here has no part in it, unless the
    environment is to be used.
    """
    env = dict(os.environ)
    if not place.use_environment:
        for name in _ELSEWHERE:
            env.pop(name, None)
        env["MIGRATE"] = "1"
    env |= {
        "PYTHONUNBUFFERED": "1",
        "AGENT_TOKEN": keys.agent_token,
        "EDGEPLANE_STATE_DIR": str(place.state / CONTROL),
        "EDGEPLANE_AGENT_STATE_DIR": str(place.state / AGENT),
        "EDGEPLANE_SIMULATED_DIR": str(place.state / AGENT / "work"),
        "HTTP_ADDR": str(place.control),
        "AGENT_HTTP_ADDR": str(place.agent),
    }
    python = [sys.executable, "-P"]  # nothing in the working folder passes for a module
    return (
        Program(
            name=CONTROL,
            arguments=[*python, "-m", "edgeplane", "serve"],
            env={**env, "ADMIN_PASSWORD": keys.admin_password},
            folder=None if place.use_environment else place.state / CONTROL,
        ),
        Program(
            name=AGENT,
            arguments=[*python, "-c", _RUN_AGENT, "run"],
            env={name: value for name, value in env.items() if name != "ADMIN_PASSWORD"},
            folder=None if place.use_environment else place.state / AGENT,
        ),
    )


def free_address(source: str, wanted: ListenAddress) -> ListenAddress:
    """Return an address that can be listened on now; port 0 becomes a free one.

    Raises:
        Stop: the port is taken, or the address is not this machine's.

    """
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wanted.host, wanted.port))
        except (UnicodeError, TypeError) as error:  # no name of a machine can be like that
            raise Stop(Exit.USAGE, f"{source}: {wanted} names no machine") from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            hint = f"choose another address with {source}"
            if error.errno == errno.EADDRINUSE:
                hint = f"stop what listens there, or choose another port with {source}"
            line = f"port {wanted.port} ({wanted}) cannot be used: {reason}; {hint}"
            raise Stop(Exit.FAILED, line) from error
        return ListenAddress(wanted.host, probe.getsockname()[1])


def check_apart(control: ListenAddress, agent: ListenAddress) -> None:
    """Raise Stop where the two cannot listen side by side."""
    everywhere = {"", "0.0.0.0", "::"}  # noqa: S104 - told apart
    meet = control.host == agent.host or everywhere & {control.host, agent.host}
    if control.port == agent.port and meet:
        raise Stop(
            Exit.USAGE,
            f"control plane ({control}) and agent ({agent}) need a port each: "
            "choose another with --listen or --agent-listen",
        )


def check_node_address(source: str, agent: ListenAddress) -> None:
    """Raise Stop for an agent's address that no node can have."""
    try:
        ipaddress.ip_address(_reachable(agent).host)
    except ValueError:
        line = f"{source}: the agent needs an IP address, like 127.0.0.1:9090, not {agent}"
        raise Stop(Exit.USAGE, line) from None


def _reachable(listen: ListenAddress) -> ListenAddress:
    """Return where to call what listens there: every interface includes this machine's own."""
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - told apart
    return ListenAddress(everywhere.get(listen.host, listen.host), listen.port)
