"""Reading JSON a client sent: into a declared shape, or into an error that names the field."""

import re
from typing import TypeVar

import msgspec

from edgeplane.model.errors import Invalid, Missing, NotAllowed

T = TypeVar("T")

_AT = re.compile(r" - at `(?:key in )?\$\.?(?P<path>.*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_BOUND = re.compile(r"Expected `\w+` (?P<bound>[<>]=?|of length|matching|that's)")
_MAX_ECHO = 80


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Decode a body.

    Raises:
        Missing: a required field is not there.
        NotAllowed: a value is out of its bounds.
        Invalid: not JSON, an unknown field, or a value of the wrong type.

    """
    if not body:
        raise Invalid("body: a JSON object is required")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _named(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"body: not valid JSON: {_short(str(error))}") from None
    except RecursionError:
        raise Invalid("body: nested too deeply") from None


def read_object(raw: bytes, field: str) -> dict[str, object]:
    """Read an object whose bytes are kept as they are; raise Invalid for anything else."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{field}: not valid JSON: {_short(str(error))}") from None
    except RecursionError:
        raise Invalid(f"{field}: nested too deeply") from None
    if not isinstance(value, dict):
        raise Invalid(f"{field}: must be an object")
    return value


def _named(message: str) -> Invalid:
    """Turn the decoder's message into ``field: what is wrong with it``."""
    at = _AT.search(message)
    path = at["path"] if at else ""
    words = _AT.sub("", message)
    if missing := _MISSING.match(words):
        return Missing(f"{_join(path, missing['field'])}: is required")
    if unknown := _UNKNOWN.match(words):
        return Invalid(f"{_join(path, unknown['field'])}: unknown field")
    plain = words.replace("`", "").replace("Expected", "expected", 1)
    if _BOUND.match(words):
        return NotAllowed(f"{path or 'body'}: {_short(plain)}")
    return Invalid(f"{path or 'body'}: {_short(plain)}")


def _join(path: str, field: str) -> str:
    return f"{path}.{_short(field)}" if path else _short(field)


def _short(text: str) -> str:
    return text if len(text) <= _MAX_ECHO else f"{text[:_MAX_ECHO]}…"
