"""Options that many commands share, and where their values are kept until the command asks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from edgeplane.model.errors import Invalid
from edgeplane.model.labels import read_label
from edgeplane.model.paging import MAX_PAGE_SIZE

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Wishes:
    """What was asked for apart from the command itself."""

    url: str | None = None
    json: bool = False
    wait: bool = False
    wait_timeout: float | None = None  #: seconds; None: as long as it takes


pass_wishes = click.make_pass_decorator(Wishes, ensure=True)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep a value that was given; what the root command was given stands otherwise."""
    if value is not None and value is not False:  # 0 is an answer
        setattr(context.ensure_object(Wishes), str(parameter.name), value)


def json_option(command: F) -> F:
    """Add ``--json``."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_keep,
        help="Print JSON, and only that.",
    )(command)


def url_option(command: F) -> F:
    """Add ``--url``."""
    return click.option(
        "--url",
        expose_value=False,
        callback=_keep,
        metavar="URL",
        help="The control plane. [EDGEPLANE_URL, else that of the saved session]",
    )(command)


def api_options(command: F) -> F:
    """Add what every command has that calls the API."""
    return url_option(json_option(command))


def list_options(command: F) -> F:
    """Add what every list has that is walked by page or by cursor."""
    page = click.option("--page", type=click.IntRange(min=1), help="Which page, from 1.")
    return page(cursor_options(command))


def cursor_options(command: F) -> F:
    """Add ``--page-size`` and ``--cursor``."""
    size = click.option(
        "--page-size",
        type=click.IntRange(1, MAX_PAGE_SIZE),
        help="How many on a page; 20 if not given.",
    )
    cursor = click.option("--cursor", help="Go on after the page that named this cursor.")
    return size(cursor(command))


def labels_option(command: F) -> F:
    """Add ``--label KEY=VALUE``, which may be repeated; its values are one mapping."""
    return click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_read_labels,
        help="A label; repeat for more.",
    )(command)


def _read_labels(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    try:
        return dict(read_label(written, "label") for written in values)
    except Invalid as error:
        raise click.BadParameter(error.message) from None


UNTIL_ENDED = "Stay until it has ended; the exit code tells how."


def wait_options(help_text: str = UNTIL_ENDED) -> Callable[[F], F]:
    """Add ``--wait``, which says what is waited for, and ``--wait-timeout``."""
    wait = click.option("--wait", is_flag=True, expose_value=False, callback=_keep, help=help_text)

    def add(command: F) -> F:
        return wait(wait_timeout_option(command))

    return add


def wait_timeout_option(command: F) -> F:
    """Add ``--wait-timeout``."""
    return click.option(
        "--wait-timeout",
        type=click.FloatRange(min=0, max=10 * 86_400),
        expose_value=False,
        callback=_keep,
        metavar="SECONDS",
        help="Wait no longer than this (and wait).",
    )(command)
