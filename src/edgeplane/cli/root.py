"""The root command, and the one place where an error becomes a line and an exit code."""

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from edgeplane import __version__
from edgeplane.cli import output
from edgeplane.cli.exits import Exit, Stop, stop_for
from edgeplane.cli.lazy import Entry, LazyGroup
from edgeplane.cli.options import api_options
from edgeplane.wire import error_envelope

_COMMANDS = {
    "up": Entry("edgeplane.cli.up", "up", "Run control plane and agent on this machine."),
    "serve": Entry(
        "edgeplane.cli.serve", "serve", "Run the control plane until it is told to stop."
    ),
    "migrate": Entry("edgeplane.cli.serve", "migrate", "Bring the tables up to date."),
    "login": Entry("edgeplane.cli.login", "login", "Keep a token for the commands that follow."),
    "node": Entry("edgeplane.cli.nodes", "node", "List and change nodes."),
    "task": Entry("edgeplane.cli.tasks", "task", "Create, watch, retry and cancel tasks."),
    "op": Entry(
        "edgeplane.cli.operations", "op", "Work on many nodes: watch, pause, cancel, retry."
    ),
    "purge": Entry("edgeplane.cli.operations", "purge", "Purge URLs on many nodes."),
    "user": Entry("edgeplane.cli.users", "user", "Add and change users, on the server's own host."),
    "version": Entry("edgeplane.cli.version", "version", "Print the version."),
}
_EXIT_CODES = "\n".join(f"  {code.value:<4} {code.meaning}" for code in Exit)


@click.group(
    cls=LazyGroup,
    entries=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"\b\nExit codes:\n{_EXIT_CODES}",
)
@click.version_option(__version__, prog_name="edgeplane", message="%(prog)s %(version)s")
@api_options
def root() -> None:
    """Edgeplane: a control plane for fleets of nginx edge nodes.

    Start with "edgeplane up": control plane and agent on this machine.
    """


def run_process(arguments: Sequence[str]) -> int:
    """Run a command as the whole of this process; return its exit code."""
    code = run(arguments)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # It has been told; the interpreter must not try once more, and tell it with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or Exit.FAILED
    return code


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
        with contextlib.suppress(OSError):  # it is what could not be written, as a rule
            output.print_json(error_envelope(stop.code, stop.message))
    return stop.status
