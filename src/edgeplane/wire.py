"""What the control plane and an agent say to each other: all that they share.

Bodies are JSON. A payload travels as the bytes the client sent: it is never parsed and printed
again on its way, so key order and large integers arrive unchanged.
"""

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

EXECUTE_PATH = "/agent/v1/tasks/execute"
BATCH_PATH = "/agent/v1/tasks/execute-batch"
CANCEL_PATH = "/agent/v1/tasks/cancel"
HEALTH_PATH = "/agent/v1/health"
SYNC_PATH = "/agent/v1/sync"  #: at the control plane

MAX_BODY_BYTES = (1 << 20) + (64 << 10)  #: a largest payload and what surrounds it
MAX_REPLY_BYTES = 256 << 10
MAX_BATCH = 100  #: tasks in one batch; all of them together keep to MAX_BODY_BYTES
MAX_RESULT_BYTES = 64 << 10  #: one result of a batch, with every byte of its words escaped
MAX_TOLD = 512  #: results in one exchange of the sync transport
MAX_NUMBER = 2**53


class ExecuteRequest(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Control plane to agent: carry this out, once.

    ``attempt`` is the number of the run: a request that failed runs again only under a higher one.
    ``epoch`` numbers the owner of the node ``node_id``: an agent follows the highest it has seen
    for that node, and refuses lower ones. ``generation`` numbers the node's wanted config: once an
    agent has begun one, it begins no lower one for that node.
    """

    request_id: str
    type: str
    payload: Raw = Raw(b"{}")
    attempt: Annotated[int, Meta(ge=1, le=MAX_NUMBER)] = 1
    timeout_seconds: Annotated[int, Meta(ge=1, le=3600)] | None = None
    node_id: Annotated[int, Meta(ge=1, le=MAX_NUMBER)] | None = None
    epoch: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] | None = None
    generation: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] | None = None


class BatchRequest(Struct, forbid_unknown_fields=True):
    """Control plane to agent: carry these out, each as if it had been sent alone."""

    tasks: Annotated[list[ExecuteRequest], Meta(min_length=1, max_length=MAX_BATCH)]


class CancelRequest(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Control plane to agent: let this have no effect, if it has none yet.

    ``attempt`` is the highest that is meant. Without it, what runs now is meant; or, where nothing
    is known of the request, every attempt of it that may still arrive.
    """

    request_id: str
    node_id: Annotated[int, Meta(ge=1, le=MAX_NUMBER)] | None = None
    epoch: Annotated[int, Meta(ge=0, le=MAX_NUMBER)] | None = None
    attempt: Annotated[int, Meta(ge=1, le=MAX_NUMBER)] | None = None


CancelState = Literal["cancelled", "done", "running", "unknown"]


class CancelReply(Struct, rename="camel"):
    """Agent to control plane: how the request stands, now that nothing of it will begin.

    ``cancelled``: it took no effect, and takes none. ``done``: it had ended before. ``running``:
    its effect is under way. ``unknown``: the agent does not know it, or cannot tell what an
    interrupted run of it did; it begins no effect of it from now on.
    """

    request_id: str
    state: CancelState


#: How a request ends (failed, in these words) that was cancelled in time.
CANCELLED = "cancelled before it took effect"


class ExecuteReply(Struct, rename="camel", omit_defaults=True):
    """Agent to control plane: what became of it; ``output`` is what the executor captured."""

    request_id: str
    status: Literal["success", "failed"]
    message: str
    output: str | None = None


class RefusalData(Struct, rename="camel"):
    """What an error says beside its words: the generation that stands before an outdated one."""

    begun_generation: int


class BatchRefusal(Struct, rename="camel", omit_defaults=True):
    """One task of a batch that was refused; ``http_status`` as if it had been sent alone."""

    request_id: str
    http_status: int
    code: int
    error: str
    retry_after: int | None = None  #: seconds
    data: RefusalData | None = None


class BatchReply(Struct):
    """Agent to control plane: one result for each task, in the order asked.

    Only what is still under way when the batch's time is up has none.
    """

    results: list[ExecuteReply | BatchRefusal]


class Told(Struct, rename="camel"):
    """Which run of which request a result is of; ``attempt`` as it was asked."""

    request_id: str
    attempt: int


class SyncResult(Struct):
    """Agent to control plane: how a run ended; ``result`` is as one of a batch."""

    attempt: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    result: Raw  #: an ExecuteReply or a BatchRefusal


class SyncRequest(Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Agent to control plane: this has ended, and what is there to do now.

    ``session`` is made anew with each start of the agent. ``exchange`` grows within it: what comes
    with a lower one than the last is past. ``again``: a reply was lost with its connection: what is
    still waited for is to be sent again.
    """

    node: Annotated[str, Meta(min_length=1, max_length=128)]  #: the name of the agent's node
    session: Annotated[str, Meta(min_length=8, max_length=64)]
    exchange: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    again: bool = False
    version: Annotated[str, Meta(max_length=64)] = ""
    results: Annotated[list[SyncResult], Meta(max_length=MAX_TOLD)] = []
    cancels: Annotated[list[CancelReply], Meta(max_length=MAX_TOLD)] = []


class SyncReply(Struct, rename="camel"):
    """Control plane to agent: do this; come again so.

    All times are in seconds, and all are jittered by whoever assigns them.
    """

    node_id: int
    tasks: list[ExecuteRequest]
    cancels: list[CancelRequest]
    acknowledged: list[Told]  #: results that are committed, or of no use: tell them no more
    wait_seconds: float  #: for so long the next exchange may be without a reply
    pause_seconds: float  #: before the next exchange
    reconnect_seconds: float  #: after a lost connection: come back within this, at a random time


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


def error_envelope(code: int, message: str, data: RefusalData | None = None) -> bytes:
    """Render an error."""
    return msgspec.json.encode({"code": code, "message": message, "data": data})
