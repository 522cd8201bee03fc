"""Reading a task's payload as it is written: bounded, checked to be an object, never reprinted."""

import sys
from pathlib import Path

import click
import msgspec
from msgspec import Raw

from edgeplane.model.tasks import MAX_PAYLOAD_BYTES


def read(written: str | None, *, from_stdin: bool) -> Raw:
    """Return the payload: JSON text, ``@file``, standard input, or ``{}`` where none is given.

    Raises:
        click.UsageError: two sources, no readable file, too much of it, or no JSON object.

    """
    if written is not None and from_stdin:
        raise click.UsageError("--payload and --payload-stdin exclude each other")
    if from_stdin:
        text = sys.stdin.buffer.read(MAX_PAYLOAD_BYTES + 1)
    elif written is None:
        text = b"{}"
    elif written.startswith("@"):
        text = _read_file(Path(written[1:]))
    else:
        text = written.encode()
    if len(text) > MAX_PAYLOAD_BYTES:
        raise click.UsageError(f"the payload is larger than {MAX_PAYLOAD_BYTES} bytes")
    try:
        msgspec.json.decode(text, type=dict[str, Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise click.UsageError(f"the payload must be a JSON object: {error}") from None
    return Raw(text)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PAYLOAD_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"--payload: {path} cannot be read: {error.strerror}") from None
