"""What commands print: aligned tables and fields for people, the API's own JSON for programs.

Whatever a node, an agent or a colleague wrote may stand in these texts: control characters, and
those that turn the direction of writing, are made visible, so that no text steers the terminal.
"""

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime

import click
import msgspec

from edgeplane.model.clock import rfc3339
from edgeplane.observe.logs import one_line

_UNSAFE_IN_JSON = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_CELL_WIDTH = 60


def visible(value: object) -> str:
    """Render a value on one line, ``-`` for nothing."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return rfc3339(value)
    return "".join(_safe(char) for char in one_line(str(value)))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under heads, in columns as wide as what they hold; long cells are cut."""
    cells = [[_cut(visible(value)) for value in row] for row in rows]
    table = [list(heads), *cells]
    widths = [max(_width(row[index]) for row in table) for index in range(len(heads))]
    for row in table:
        padded = (
            text + " " * (width - _width(text)) for text, width in zip(row, widths, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Print names and values, a line each."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        click.echo(f"{name:<{width}}  {visible(value)}")


def print_json(text: bytes) -> None:
    """Print JSON, indented; numbers, key order and values stay what they were."""
    shown = msgspec.json.format(text, indent=2).decode("utf-8")
    shown = _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", shown)
    click.echo(shown.encode("utf-8"))


def shortened(text: bytes) -> str:
    """Render JSON on one line, cut where it is long."""
    most = 200
    line = text.decode("utf-8", "replace")
    return line if len(line) <= most else f"{line[:most]}… ({len(text)} bytes; whole with --json)"


def tell(line: str) -> None:
    """Print a line about what goes on: standard error, so that the outcome stays alone."""
    click.echo("".join(_safe(char) for char in one_line(line)), err=True)


def tell_of_more(next_cursor: str | None) -> None:
    """Say how a list goes on behind the page that was printed, if it does."""
    if next_cursor:
        tell(f"more with --cursor {next_cursor}")


def _safe(char: str) -> str:
    if unicodedata.category(char) in {"Cf", "Cs", "Cc"}:
        return f"\\u{ord(char):04x}"
    return char


def _cut(text: str) -> str:
    return text if len(text) <= _CELL_WIDTH else text[: _CELL_WIDTH - 1] + "…"


def _width(text: str) -> int:
    """Return how many columns a terminal gives a text: wide characters take two."""
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )
