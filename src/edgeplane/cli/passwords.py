"""Where a command gets a password from: never from an argument, which every process list shows."""

import secrets
import sys

import click

from edgeplane.cli.exits import Exit, Stop

_MAX_LENGTH = 4096


def ask(*, from_stdin: bool, confirm: bool) -> str:
    """Read a password: the first line of standard input if that was asked for, else a prompt.

    Raises:
        Stop: there is neither a line nor a terminal.

    """
    if from_stdin:
        line = sys.stdin.readline(_MAX_LENGTH).rstrip("\r\n")
        if not line:
            raise Stop(Exit.USAGE, "--password-stdin: standard input holds no password")
        return line
    if not sys.stdin.isatty():
        raise Stop(Exit.USAGE, "no terminal to ask for the password: use --password-stdin")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True))


def make() -> str:
    """Make a password nobody has to think of."""
    return secrets.token_urlsafe(18)
