"""``edgeplane version``."""

import click

from edgeplane import __version__
from edgeplane.cli import output
from edgeplane.cli.options import Wishes, json_option, pass_wishes


@click.command()
@json_option
@pass_wishes
def version(wishes: Wishes) -> None:
    """Print the version."""
    if wishes.json:
        output.print_json(f'{{"version":"{__version__}"}}'.encode())
    else:
        click.echo(f"edgeplane {__version__}")
