"""What the control plane and an agent say to each other: all that they share.

Bodies are JSON. A payload travels as the bytes the client sent: it is never parsed and printed
again on its way, so key order and large integers arrive unchanged.
"""

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

EXECUTE_PATH = "/agent/v1/tasks/execute"
HEALTH_PATH = "/agent/v1/health"

MAX_BODY_BYTES = (1 << 20) + (64 << 10)  #: a largest payload and what surrounds it
MAX_REPLY_BYTES = 256 << 10
MAX_NUMBER = 2**53


class ExecuteRequest(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Control plane to agent: carry this out, once.

    ``attempt`` is the number of the run: a request that failed runs again only under a higher one.
    ``epoch`` numbers the owner of the node ``node_id``: an agent follows the highest it has seen
    for that node, and refuses lower ones.
    """

    request_id: str
    type: str
    payload: Raw = Raw(b"{}")
    attempt: Annotated[int, Meta(ge=1, le=MAX_NUMBER)] = 1
    timeout_seconds: Annotated[int, Meta(ge=1, le=3600)] | None = None
    node_id: Annotated[int, Meta(ge=1, le=MAX_NUMBER)] | None = None
    epoch: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] | None = None


class ExecuteReply(Struct, rename="camel", omit_defaults=True):
    """Agent to control plane: what became of it; ``output`` is what the executor captured."""

    request_id: str
    status: Literal["success", "failed"]
    message: str
    output: str | None = None


class HealthReply(Struct, rename="camel"):
    """Agent to whoever asks: how it is."""

    version: str
    uptime_seconds: float
    journal_entries: int
    journal_bytes: int
    executor: str
    running: list[str]


class Envelope(Struct):
    """Every answer; ``code`` 0 is success."""

    code: int
    message: str
    data: Raw = Raw(b"null")


def payload_digest(kind: str, payload: bytes) -> bytes:
    """Return what a request id is bound to: a digest of the type and the payload.

    White space between the payload's tokens does not count; the order of its keys does.
    """
    compact = msgspec.json.format(payload, indent=-1)
    return hashlib.sha256(kind.encode() + b"\n" + compact).digest()


def envelope(data: object) -> bytes:
    """Render a success."""
    return b'{"code":0,"message":"success","data":' + msgspec.json.encode(data) + b"}"


def error_envelope(code: int, message: str) -> bytes:
    """Render an error."""
    return msgspec.json.encode({"code": code, "message": message, "data": None})
