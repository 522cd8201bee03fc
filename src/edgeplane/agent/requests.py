"""Reading a request to execute: what is taken, and what a refusal says.

Every transport reads requests here, so that a malformed one gets the same words whichever way it
came. A payload is checked, never rebuilt: what is executed is what was sent.
"""

import re
from typing import Final

import msgspec

from edgeplane.model.errors import Invalid, Missing, NotAllowed
from edgeplane.model.tasks import check_kind, check_request_id
from edgeplane.wire import ExecuteRequest

#: Deeper payloads are refused: laid out with two spaces per level they would grow without measure.
MAX_DEPTH: Final = 64

_DECODER = msgspec.json.Decoder(ExecuteRequest)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_BOUND = re.compile(r"Expected `int` ([<>])= (\d+) - at `\$\.(\w+)`")
_RANGE = re.compile(r"Integer value out of range - at `\$\.(\w+)`")
_TYPE = re.compile(r"Expected `(\w+)`, got `(\w+)` - at `\$\.(\w+)`")
_WORDS = {"str": "a string", "int": "a whole number"}
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def read_request(body: bytes) -> ExecuteRequest:
    """Return a well-formed request.

    Raises:
        Missing, NotAllowed, Invalid: naming the field and what is wrong with it.

    """
    request = _decode(body)
    if not request.request_id:
        raise Missing("requestId: is required")
    if not request.type:
        raise Missing("type: is required")
    check_request_id(request.request_id)
    check_kind(request.type)
    _check_payload(bytes(request.payload))
    return request


def _decode(body: bytes) -> ExecuteRequest:
    try:
        # The decoder checks a payload's grammar while it skips over it, but not its encoding.
        str(body, "utf-8")
        return _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None
    except RecursionError:
        raise Invalid(f"payload: nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise Invalid(f"body: not UTF-8 (byte {error.start})") from None
    except msgspec.DecodeError as error:
        raise Invalid(f"body: not valid JSON: {error}") from None


def _explained(said: str) -> Invalid:
    """Turn the decoder's words into the contract's."""
    if found := _MISSING.match(said):
        return Missing(f"{found[1]}: is required")
    if found := _BOUND.match(said):
        side = "least" if found[1] == ">" else "most"
        return NotAllowed(f"{found[3]}: must be at {side} {found[2]}")
    if found := _RANGE.match(said):
        return NotAllowed(f"{found[1]}: is out of range")
    if found := _TYPE.match(said):
        return Invalid(f"{found[3]}: must be {_WORDS.get(found[1], found[1])}, not {found[2]}")
    if found := _UNKNOWN.match(said):
        return Invalid(f"{found[1][:64]}: unknown key")
    return Invalid("body: must be an object")


def _check_payload(payload: bytes) -> None:
    if payload[:1] != b"{":
        raise Invalid("payload: must be an object")
    if payload.count(b"{") + payload.count(b"[") <= MAX_DEPTH:
        return
    brackets = _STRINGS.sub(b"", payload).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):  # each turn takes the innermost level away
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise Invalid(f"payload: nested deeper than {MAX_DEPTH} levels")
