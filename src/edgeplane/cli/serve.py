"""``edgeplane serve`` and ``edgeplane migrate``: the control plane itself, on its own host."""

import contextlib
import dataclasses
import sys

import click
import msgspec

from edgeplane.cli import output, server_parts
from edgeplane.cli.exits import Exit, Stop
from edgeplane.cli.options import Wishes, json_option, pass_wishes
from edgeplane.cli.server_parts import Bootstrap
from edgeplane.settings import Settings


@click.command()
@click.option("--migrate/--no-migrate", default=None, help="Bring the tables up to date first.")
@click.pass_context
def serve(context: click.Context, migrate: bool | None) -> None:
    """Run the control plane until it is told to stop.

    Settings come from the environment and from .env in the working folder.
    """
    parts = server_parts.bootstrap()
    settings = server_parts.settings()
    if migrate is not None:
        settings = dataclasses.replace(settings, migrate=migrate)
    try:
        context.exit(parts.serve(settings))
    except parts.StartError as error:
        raise Stop(Exit.FAILED, str(error)) from error


@click.command()
@click.option("--check", is_flag=True, help="Only say whether the tables are up to date.")
@click.option("--down", metavar="REVISION", help="Take the tables back to a revision, or to base.")
@json_option
@pass_wishes
def migrate(wishes: Wishes, check: bool, down: str | None) -> None:
    """Bring the tables up to date."""
    if check and down is not None:
        raise click.UsageError("--check and --down exclude each other")
    parts = server_parts.bootstrap()
    settings = server_parts.settings()
    try:
        # What is said on the way is for people: with --json the outcome stays alone.
        with contextlib.redirect_stdout(sys.stderr if wishes.json else sys.stdout):
            outcome = _migrate(parts, settings, check, down)
    except parts.StartError as error:
        raise Stop(Exit.FAILED, str(error)) from error
    if wishes.json:
        output.print_json(msgspec.json.encode(outcome))


def _migrate(
    parts: Bootstrap, settings: Settings, check: bool, down: str | None
) -> dict[str, object]:
    if check:
        line = parts.check_schema(settings)
        if line is not None:
            raise Stop(Exit.FAILED, line)
        click.echo("the tables are up to date")
        return {"current": True}
    if down is not None:
        parts.migrate_down(settings, down)
        click.echo(f"the tables are back at {down}")
        return {"revision": down}
    return {"tables": parts.migrate(settings)}
