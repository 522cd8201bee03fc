"""``edgeplane up``: control plane and agent on this machine, kept running until told to stop."""

import contextlib
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import click
from click.core import ParameterSource

from edgeplane.cli import first_steps, local, output, processes, sessions
from edgeplane.cli.exits import Exit, Stop
from edgeplane.cli.local import Keys, Place
from edgeplane.cli.processes import Child
from edgeplane.client.errors import ClientError
from edgeplane.client.records import Login
from edgeplane.environ import ListenAddress, read_listen_address
from edgeplane.model.clock import utc_now

READY_SECONDS = 60.0

_TICK_SECONDS = 0.2
_LOGIN_AGAIN_SECONDS = 30.0


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".state"),
    show_default=True,
    help="Everything it keeps lies below this folder.",
)
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    envvar="HTTP_ADDR",
    show_default=True,
    show_envvar=True,
    help="The control plane.",
)
@click.option(
    "--agent-listen",
    default="127.0.0.1:9090",
    envvar="AGENT_HTTP_ADDR",
    show_default=True,
    show_envvar=True,
    help="The agent.",
)
@click.option(
    "--use-environment",
    is_flag=True,
    help="Let MYSQL_DSN, REDIS_ADDR, AGENT_TOKEN and .env count; without it, SQLite is used.",
)
@click.pass_context
def up(
    context: click.Context, state_dir: Path, listen: str, agent_listen: str, use_environment: bool
) -> None:
    """Run control plane and agent on this machine.

    Ports given as 0 are chosen. Ctrl-C stops both.
    """
    state = state_dir.expanduser().absolute()
    with local.held(state), _stop_signals() as stopped:
        control, agent = _addresses(context, listen, agent_listen)
        place = Place(state=state, control=control, agent=agent, use_environment=use_environment)
        keys = local.prepare(place)
        children = [Child(program) for program in local.programs(place, keys)]
        try:
            _run(place, keys, children, stopped)
        finally:
            with contextlib.suppress(OSError):
                place.session_file.unlink()
            processes.stop_all(children)


def _addresses(
    context: click.Context, listen: str, agent_listen: str
) -> tuple[ListenAddress, ListenAddress]:
    """Return two addresses that can be listened on; whoever chose a wrong one is named."""

    def source(option: str, variable: str) -> str:
        name = option.removeprefix("--").replace("-", "_")
        chosen = context.get_parameter_source(name)
        return variable if chosen is ParameterSource.ENVIRONMENT else option

    of_control = source("--listen", "HTTP_ADDR")
    of_agent = source("--agent-listen", "AGENT_HTTP_ADDR")
    wanted = read_listen_address(of_control, listen)
    wanted_agent = read_listen_address(of_agent, agent_listen)
    local.check_node_address(of_agent, wanted_agent)
    control = local.free_address(of_control, wanted)
    agent = local.free_address(of_agent, wanted_agent)
    local.check_apart(control, agent)
    return control, agent


def _run(place: Place, keys: Keys, children: list[Child], stopped: threading.Event) -> None:
    for child in children:
        child.start()
    if not _become_ready(place, keys, children, stopped):
        return
    login = first_steps.log_in(place, keys)
    if login is not None:
        first_steps.register(place, login.token)
    _announce(place, logged_in=login is not None)
    refresh = _Refresh(place, keys, login)
    while not stopped.wait(_TICK_SECONDS):
        for child in children:
            child.tend()
        refresh.tend()
    output.tell("stopping")


def _become_ready(
    place: Place, keys: Keys, children: list[Child], stopped: threading.Event
) -> bool:
    """Wait until both answer; return False where the wish to stop came first."""
    checks: list[Callable[[], bool]] = [
        lambda: first_steps.control_is_ready(place),
        lambda: first_steps.agent_is_ready(place, keys),
    ]
    end = time.monotonic() + READY_SECONDS
    while checks:
        for child in children:
            code = child.ended
            if code is not None and not stopped.is_set():
                how = processes.describe_end(code)
                line = f"{child.program.name} did not start ({how}); its own lines say why"
                raise Stop(Exit.FAILED, line)
        checks = [check for check in checks if not check()]
        if time.monotonic() > end:
            raise Stop(Exit.FAILED, f"not ready after {READY_SECONDS:g} s")
        if checks and stopped.wait(_TICK_SECONDS / 2):
            return False
    return not stopped.is_set()


class _Refresh:
    """Renews the saved session at half of its token's life."""

    def __init__(self, place: Place, keys: Keys, login: Login | None) -> None:
        self._place = place
        self._keys = keys
        self._due = _half_life(login)

    def tend(self) -> None:
        """Log in again when it is time; what fails is tried again later."""
        if time.monotonic() < self._due:
            return
        try:
            login = first_steps.log_in(self._place, self._keys)
        except (ClientError, Stop) as error:
            output.tell(f"the saved session could not be renewed: {error}")
            self._due = time.monotonic() + _LOGIN_AGAIN_SECONDS
        else:
            self._due = _half_life(login)
            if login is None:
                _advise(self._place)


def _half_life(login: Login | None) -> float:
    """Return when to renew, on the monotonic clock; never where nobody is logged in."""
    if login is None:
        return float("inf")
    left = (login.expire_at - utc_now()) / timedelta(seconds=1)
    return time.monotonic() + max(left / 2, 1.0)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into an event."""
    stopped = threading.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # what nohup asks for
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, lambda *_: stopped.set()) for number in numbers]
    try:
        yield stopped
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _announce(place: Place, *, logged_in: bool) -> None:
    click.echo("\nEdgeplane is up.\n")
    facts = [
        ("control plane", f"{place.control_url}/"),
        ("user", f"{first_steps.ADMIN}, password in {place.password_file}"),
        ("node", f"{first_steps.NODE_NAME}, agent at {place.agent_url}/"),
        ("state, secrets", f"{place.state}, readable by you alone"),
    ]
    output.print_fields(facts)
    if logged_in:
        task = f"task create --node {first_steps.NODE_NAME} --type reload --wait"
        click.echo("\nA first task, in another terminal in this folder:\n")
        click.echo(f"  {_command(place)} {task}\n")
    else:
        _advise(place)
    click.echo("Ctrl-C stops it.")


def _advise(place: Place) -> None:
    """Say what to do where the kept password opens nothing: changed, or its user disabled."""
    admin = first_steps.ADMIN
    folder = shlex.quote(str(place.state / local.CONTROL))
    users = f"EDGEPLANE_STATE_DIR={folder} {_program()} user"
    output.tell(
        f"{admin} cannot log in with the password in {place.password_file}: no session is kept"
    )
    output.tell(f"  to go on as another user: {_program()} login --username NAME")
    output.tell(f"  if {admin} has another password now: write it there, and start again")
    output.tell(f"  if {admin} is disabled: {users} enable {admin}")
    output.tell(f"  if the password is forgotten: {users} passwd {admin}")


def _command(place: Place) -> str:
    """Return how to call the command line from a terminal in this folder."""
    if place.session_file != sessions.LOCAL_FILE.absolute():
        return f"EDGEPLANE_CONFIG_DIR={shlex.quote(str(place.state))} {_program()}"
    return _program()


def _program() -> str:
    """Return what starts the command line, whatever the PATH is."""
    beside = Path(sys.executable).with_name("edgeplane")
    found = shutil.which("edgeplane")
    if found and Path(found).resolve() == beside.resolve():
        return "edgeplane"
    return shlex.quote(str(beside)) if beside.exists() else f"{sys.executable} -m edgeplane"
