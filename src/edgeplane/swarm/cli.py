"""The command ``edgeplane-swarm``."""

import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from edgeplane.client.errors import ClientError
from edgeplane.environ import ListenAddress, SettingError
from edgeplane.http1.bounds import Bounds
from edgeplane.listening import bind, within_files
from edgeplane.observe import logs
from edgeplane.observe.logs import one_line, say
from edgeplane.swarm import controls, push, registering, running
from edgeplane.swarm.addresses import MAX_AGENTS
from edgeplane.swarm.faults import Faults
from edgeplane.swarm.running import Plan, StartError

PORT = 9190

_COUNT = click.IntRange(1, MAX_AGENTS)
_CHANCE = click.FloatRange(0, 1)
_SECONDS = click.FloatRange(0, 86_400)
_PATH = click.Path(dir_okay=False, path_type=Path)


class _Main(click.Group):
    """``edgeplane-swarm 300`` is short for ``edgeplane-swarm run 300``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command that is meant where there is none."""
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Main)
def main() -> None:
    """Simulate a fleet of agents at 127.1.0.1, 127.1.0.2 and so on.

    `edgeplane-swarm N` runs N of them; with `--control` they connect out, and listen nowhere.
    """


@main.command()
@click.argument("agents", type=_COUNT)
@click.option("--port", type=click.IntRange(0, 65_535), help=f"Listen here.  [default: {PORT}]")
@click.option("--control", metavar="URL[,URL]", help="Listen nowhere: connect out, and sync.")
@click.option("--token", envvar="AGENT_TOKEN", required=True, help="[AGENT_TOKEN]")
@click.option("--journal", type=_PATH, default=Path("swarm.db"), show_default=True)
@click.option("--no-journal", is_flag=True, help="Keep nothing: to measure a transport.")
@click.option("--effects", type=_PATH, help="Append a line for each effect to this file.")
@click.option("--progress", is_flag=True, help="Tell once a second how it goes.")
@click.option("--latency", type=_SECONDS, default=0.0, help="Mean milliseconds of an execution.")
@click.option(
    "--jitter", type=click.Choice(["exponential", "uniform"]), default="exponential",
    show_default=True, help="How latencies spread around their mean.",
)  # fmt: skip
@click.option("--fail", type=_CHANCE, default=0.0, help="Chance to fail, with no effect.")
@click.option("--drop", type=_CHANCE, default=0.0, help="Chance to cut instead of answering.")
@click.option("--kill", type=_CHANCE, default=0.0, help="Chance to die somewhere in a request.")
@click.option("--down", type=_SECONDS, default=1.0, show_default=True, help="Seconds dead.")
@click.option("--zombie", type=_CHANCE, default=0.0, help="Chance to answer far too late.")
@click.option("--skew", type=_SECONDS, default=0.0, help="Most seconds a wall clock is off.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything by chance.")
def run(agents: int, port: int | None, control: str | None, token: str, **knobs: Any) -> None:
    """Run AGENTS agents until SIGTERM or SIGINT; then print what it came to, as JSON."""
    if control is not None and port is not None:
        raise click.UsageError("--port is for agents that listen, --control for those that do not")
    logs.set_up()
    bounds = within_files(Bounds(connections=push.MOST))
    uniform = knobs.pop("jitter") == "uniform"
    journal, effects = knobs.pop("journal"), knobs.pop("effects")
    plain, progress = knobs.pop("no_journal"), knobs.pop("progress")
    knobs["latency"] /= 1000
    try:
        plan = Plan(
            agents=agents,
            listener=_listener(PORT if port is None else port) if control is None else None,
            controls=controls.find("--control", control, token) if control is not None else (),
            connections=bounds.connections,
            token=token,
            faults=Faults(uniform=uniform, **knobs),
            journal=None if plain else journal,
            effects=effects,
            progress=progress,
        )
        running.run(plan)
    except (SettingError, StartError) as error:
        _give_up(str(error))


@main.command()
@click.argument("agents", type=_COUNT)
@click.option("--url", envvar="EDGEPLANE_URL", required=True, help="[EDGEPLANE_URL]")
@click.option("--token", envvar="EDGEPLANE_TOKEN", required=True, help="[EDGEPLANE_TOKEN]")
@click.option("--port", type=click.IntRange(1, 65_535), default=PORT, show_default=True)
@click.option(
    "--transport", type=click.Choice(["push", "sync"]), default="push", show_default=True,
    help="Sync: for agents that connect out.",
)  # fmt: skip
def register(agents: int, url: str, token: str, port: int, transport: str) -> None:
    """Create a node for each of AGENTS agents; those that are there stay as they are."""
    try:
        made = registering.register(agents, url, token, port, transport)
    except (ClientError, ValueError) as error:
        _give_up(str(error))
    say(f"registered {made} nodes, {agents - made} were there")


def _listener(port: int) -> socket.socket:
    return bind("--port", ListenAddress("0.0.0.0", port))  # noqa: S104  every 127.1.x.y


def _give_up(reason: str) -> NoReturn:
    sys.stderr.write(f"edgeplane-swarm: {one_line(reason)}\n")
    sys.exit(1)
