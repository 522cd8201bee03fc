"""Reading JSON a client sent: into a declared shape, or into an error that names the field."""

import re
from typing import Final, TypeVar

import msgspec

from edgeplane.model.errors import Invalid, Missing, NotAllowed

T = TypeVar("T")

#: Objects whose bytes are kept may not be nested deeper: laid out, they would grow without measure.
MAX_DEPTH: Final = 64

_AT = re.compile(r" - at `(?:key in )?\$\.?(?P<path>.*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_BOUND = re.compile(r"Expected `\w+` (?P<length>of length )?(?P<side>[<>])= (?P<bound>\d+)$")
_OTHER_BOUND = re.compile(r"Expected `\w+` (?:[<>]=?|of length|matching|that's)")
_RANGE = re.compile(r"Integer value out of range$")
_TYPE = re.compile(r"Expected `(?P<wanted>[\w| ]+)`, got `(?P<got>\w+)`$")
_WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
_MAX_ECHO = 80

_TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels"
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Decode a body.

    Raises:
        Missing: a required field is not there.
        NotAllowed: a value is out of its bounds.
        Invalid: not JSON, not UTF-8, an unknown field, or a value of the wrong type.

    """
    if not body:
        raise Invalid("body: a JSON object is required")
    try:
        # The decoder checks the grammar of what it keeps as bytes, but not its encoding.
        str(body, "utf-8")
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _named(str(error)) from None
    except UnicodeDecodeError as error:
        raise Invalid(f"body: not valid JSON: not UTF-8 (byte {error.start})") from None
    except msgspec.DecodeError as error:
        raise Invalid(f"body: not valid JSON: {_short(str(error))}") from None
    except RecursionError:
        raise Invalid(f"body: {_TOO_DEEP}") from None


def check_object(raw: bytes, field: str) -> None:
    """Refuse what a decoder kept as bytes, unless it is an object of at most MAX_DEPTH levels.

    Raises:
        Invalid: it is something else, or nested deeper.

    """
    if raw[:1] != b"{":
        raise Invalid(f"{field}: must be an object")
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return
    brackets = _STRINGS.sub(b"", raw).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):  # each turn takes the innermost level away
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise Invalid(f"{field}: {_TOO_DEEP}")


def read_object(raw: bytes, field: str) -> dict[str, object]:
    """Read an object whose bytes are kept as they are; raise Invalid for anything else."""
    check_object(raw, field)
    try:
        value: dict[str, object] = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{field}: not valid JSON: {_short(str(error))}") from None
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
    path = path or "body"
    if wrong := _TYPE.match(words):
        return Invalid(f"{path}: must be {_in_words(wrong['wanted'])}, not {wrong['got']}")
    if told := _out_of_bounds(words):
        return NotAllowed(f"{path}: {told}")
    return Invalid(f"{path}: {_plain(words)}")


def _out_of_bounds(words: str) -> str | None:
    """Say which bound was left, if that is what the decoder complains about."""
    if bound := _BOUND.match(words):
        side = "least" if bound["side"] == ">" else "most"
        start = "must have a length of" if bound["length"] else "must be"
        return f"{start} at {side} {bound['bound']}"
    if _RANGE.match(words):
        return "is out of range"
    return _plain(words) if _OTHER_BOUND.match(words) else None


def _in_words(types: str) -> str:
    return " or ".join(_WORDS.get(name, name) for name in types.split(" | "))


def _plain(words: str) -> str:
    return _short(words.replace("`", "").replace("Expected", "expected", 1))


def _join(path: str, field: str) -> str:
    return f"{path}.{_short(field)}" if path else _short(field)


def _short(text: str) -> str:
    return text if len(text) <= _MAX_ECHO else f"{text[:_MAX_ECHO]}…"
