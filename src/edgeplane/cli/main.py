"""The root command, and the one place where an error becomes a line and an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from edgeplane import __version__
from edgeplane.cli import login, nodes, output, serve, tasks, up, users
from edgeplane.cli.exits import Exit, Stop, stop_for
from edgeplane.cli.options import Wishes, api_options, json_option, pass_wishes
from edgeplane.wire import error_envelope

_EXIT_CODES = "\n".join(f"  {code.value:<4} {code.meaning}" for code in Exit)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"\b\nExit codes:\n{_EXIT_CODES}",
)
@click.version_option(__version__, prog_name="edgeplane", message="%(prog)s %(version)s")
@api_options
def root() -> None:
    """Edgeplane: a control plane for fleets of nginx edge nodes.

    Start with "edgeplane up": control plane and agent on this machine.
    """


@root.command()
@json_option
@pass_wishes
def version(wishes: Wishes) -> None:
    """Print the version."""
    if wishes.json:
        output.print_json(f'{{"version":"{__version__}"}}'.encode())
    else:
        click.echo(f"edgeplane {__version__}")


for _command in (
    *(up.up, serve.serve, serve.migrate),
    *(users.user, nodes.node, tasks.task, login.login),
):
    root.add_command(_command)


def main() -> NoReturn:
    """Run the command line and end the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command; return its exit code. Whatever happens, no traceback is shown."""
    try:
        _check_text(arguments)
        code = root.main(list(arguments), prog_name="edgeplane", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort: one line instead of a traceback
        return _report(error, as_json="--json" in arguments)
    return code if isinstance(code, int) else Exit.DONE


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if not argument.isascii() and argument != argument.encode("utf-8", "replace").decode():
            raise Stop(Exit.USAGE, "an argument is not valid UTF-8 text")


def _report(error: Exception, *, as_json: bool) -> int:
    if os.environ.get("EDGEPLANE_DEBUG") == "1":
        traceback.print_exception(error)
    stop = stop_for(error)
    if stop is None:
        facts = f"{type(error).__name__}: {error}"
        stop = Stop(Exit.BUG, f"unexpected error: {facts} (EDGEPLANE_DEBUG=1 shows where)")
    output.tell(f"edgeplane: {stop.message}")
    if as_json:
        output.print_json(error_envelope(stop.code, stop.message))
    return stop.status
