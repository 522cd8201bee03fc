"""JSON laid out for people, two spaces deep; how large that becomes is known before it is made."""

import re
from typing import Final

import msgspec

_INDENT: Final = 2
#: What is never broken up: strings, and what is empty.
_WHOLE: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|\{\}|\[\]')
_BREAKS: Final = re.compile(rb"[\[{]+|[\]}]+|,")


def laid_out(payload: bytes, limit: int) -> bytes | None:
    """Return well-formed JSON with its keys and numbers as they are; None if it exceeds a limit."""
    compact = msgspec.json.format(payload, indent=-1)
    if laid_out_size(compact) > limit:
        return None
    return msgspec.json.format(compact, indent=_INDENT)


def laid_out_size(compact: bytes) -> int:
    """Return how many bytes it takes, of JSON without white space."""
    bare = _WHOLE.sub(b"x", compact)
    size = len(compact) + bare.count(b":")
    depth = 0
    for found in _BREAKS.finditer(bare):
        signs = found.group()
        if signs == b",":
            size += 1 + _INDENT * depth
            continue
        step = 1 if signs[0] in b"[{" else -1
        for _ in signs:
            depth += step
            size += 1 + _INDENT * depth
    return size
