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
@click.option("--yes", is_flag=True, help="With --down: do not ask; what the tables held is gone.")
@json_option
@pass_wishes
def migrate(wishes: Wishes, check: bool, down: str | None, yes: bool) -> None:
    """Bring the tables up to date."""
    if check and down is not None:
        raise click.UsageError("--check and --down exclude each other")
    parts = server_parts.bootstrap()
    try:
        # What is said on the way is for people: with --json the outcome stays alone.
        with contextlib.redirect_stdout(sys.stderr if wishes.json else sys.stdout):
            if check:
                outcome = _check(parts)
            elif down is not None:
                outcome = _go_down(parts, down, sure=yes)
            else:
                outcome = {"tables": parts.migrate(server_parts.settings().database)}
    except parts.StartError as error:
        raise Stop(Exit.FAILED, str(error)) from error
    if wishes.json:
        output.print_json(msgspec.json.encode(outcome))


def _check(parts: Bootstrap) -> dict[str, object]:
    line = parts.check_schema(server_parts.database())
    if line is not None:
        raise Stop(Exit.FAILED, line)
    click.echo("the tables are up to date")
    return {"current": True}


def _go_down(parts: Bootstrap, revision: str, *, sure: bool) -> dict[str, object]:
    database = server_parts.database()
    if not sure:
        _ask(revision, str(database.path or "MYSQL_DSN"))
    parts.migrate_down(database, revision)
    click.echo(f"the tables are back at {revision}")
    return {"revision": revision}


def _ask(revision: str, place: str) -> None:
    question = f"Take the tables at {place} back to {revision}? What is lost by it is lost for good"
    if not sys.stdin.isatty():
        raise Stop(Exit.USAGE, "--down loses what the tables held: say --yes")
    click.confirm(question, abort=True, err=True)
