"""An attempt as a person reads it: when, where to, by whom, how it ended, what was captured."""

import click

from edgeplane.cli import output
from edgeplane.client.records import Attempt


def show(attempt: Attempt) -> None:
    """Print an attempt: a headline, the words it ended with, and the output, line by line."""
    took = ""
    if attempt.ended_at is not None:
        took = f" after {(attempt.ended_at - attempt.begun_at).total_seconds():.3f} s"
    click.echo(f"attempt {attempt.number}: {output.visible(attempt.outcome or 'out now')}{took}")
    fields: list[tuple[str, object]] = [
        ("begun", attempt.begun_at),
        ("ended", attempt.ended_at),
        ("address", attempt.address),
        ("replica", attempt.replica),
        ("message", attempt.message),
    ]
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        click.echo(f"  {name:<{width}}  {output.visible(value)}")
    for line in (attempt.output or "").splitlines():
        click.echo(f"  | {output.visible(line) if line else ''}".rstrip())
