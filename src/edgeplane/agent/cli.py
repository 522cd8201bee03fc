"""The command ``edgeplane-agent``."""

import os
import sys
from typing import NoReturn

import click

from edgeplane.agent import exclusive, server, settings
from edgeplane.agent.exclusive import StateFolderError
from edgeplane.agent.executors import registry
from edgeplane.agent.journal_opening import JournalError, open_journal
from edgeplane.agent.server import Parts
from edgeplane.agent.settings import AgentSettings
from edgeplane.environ import Environ, SettingError
from edgeplane.listening import bind
from edgeplane.observe import logs
from edgeplane.observe.logs import one_line, say


@click.group()
def main() -> None:
    """Carry out, once, what the control plane asks of this edge node."""


@main.command()
@click.option("--listen", metavar="ADDRESS", help="Where to listen; overrides AGENT_HTTP_ADDR.")
@click.option(
    "--state-dir", metavar="FOLDER", help="Journal and token; overrides EDGEPLANE_AGENT_STATE_DIR."
)
@click.option(
    "--control",
    metavar="URL[,URL]",
    help="Connect out to these control planes instead of listening; overrides EDGEPLANE_CONTROL.",
)
@click.option(
    "--node",
    metavar="NAME",
    help="The name of this node, where it connects out; overrides EDGEPLANE_NODE.",
)
@click.option(
    "--executor", metavar="NAME", help="What carries tasks out; overrides EDGEPLANE_AGENT_EXECUTOR."
)
def run(
    listen: str | None,
    state_dir: str | None,
    control: str | None,
    node: str | None,
    executor: str | None,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    given = {
        "AGENT_HTTP_ADDR": listen,
        "EDGEPLANE_AGENT_STATE_DIR": state_dir,
        "EDGEPLANE_CONTROL": control,
        "EDGEPLANE_NODE": node,
        "EDGEPLANE_AGENT_EXECUTOR": executor,
    }
    os.environ.update({name: value for name, value in given.items() if value})
    logs.set_up()
    try:
        environ = Environ.load()
        if listen and environ.text("EDGEPLANE_CONTROL"):
            raise click.UsageError(
                "--listen and --control (EDGEPLANE_CONTROL): it listens or connects out, not both"
            )
        parts = _prepare(environ)
    except SettingError as error:
        _give_up(str(error), code=2)
    except (StateFolderError, JournalError) as error:
        _give_up(str(error), code=1)
    if not server.run(parts):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # a thread that hangs in executor or journal would keep the process for ever


def _prepare(environ: Environ) -> Parts:
    """Take everything the agent needs: folder, settings, executor, journal, port."""
    # Held until the process ends; before anything is made in the folder.
    exclusive.hold(settings.state_folder(environ))
    loaded = settings.load(environ)
    executor = registry.build(loaded)
    say("Starting agent server...")
    if loaded.token.source != "AGENT_TOKEN":
        say(f"Agent token: kept in {loaded.token.source}")
    _warn_of_weakness(loaded)
    if loaded.control:
        for url in loaded.control:
            say(f"Control plane: {url}, node {loaded.node}")
    else:
        say(f"HTTP address: {loaded.listen}")
    journal = open_journal(loaded.state_dir / "journal.db")
    try:
        listener = None if loaded.control else bind("AGENT_HTTP_ADDR", loaded.listen)
    except SettingError as error:
        journal.close()
        _give_up(str(error), code=1)
    return Parts(settings=loaded, listener=listener, journal=journal, executor=executor)


def _warn_of_weakness(loaded: AgentSettings) -> None:
    weakness = loaded.token.weakness
    if weakness is None:
        return
    consequence = (
        "Whoever knows it can speak for this node. Set a strong one, here and at the control plane."
        if loaded.control
        else "Whoever knows it and reaches this port can run tasks on this machine.\n"
        "** Unset AGENT_TOKEN to have a strong one made, and give it to the control plane."
    )
    lines = ("*" * 78, f"** WARNING: {weakness}", f"** {consequence}", "*" * 78)
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def _give_up(reason: str, *, code: int) -> NoReturn:
    sys.stderr.write(f"edgeplane-agent: {one_line(reason)}\n")
    sys.exit(code)
