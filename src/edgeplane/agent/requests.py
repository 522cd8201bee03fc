"""Reading what the control plane says: what is taken, and what is refused.

Every transport reads requests here, so that a malformed one gets the same words whichever way it
came. A payload is checked, never rebuilt: what is executed is what was sent.
"""

from contextlib import suppress
from typing import Final

import msgspec
from msgspec import Raw, Struct

from edgeplane import jsonbody
from edgeplane.model.errors import Invalid, Missing
from edgeplane.model.tasks import check_kind, check_request_id
from edgeplane.wire import BatchRequest, CancelRequest, Envelope, ExecuteRequest, Told


class Reply(Struct, rename="camel"):
    """A ``SyncReply`` as an agent reads it: each task is read alone, and may be refused alone."""

    node_id: int
    tasks: list[Raw]
    cancels: list[Raw]
    acknowledged: list[Told]
    wait_seconds: float
    pause_seconds: float
    reconnect_seconds: float


class Name(Struct, rename="camel"):
    """Which run a malformed task is."""

    request_id: str
    attempt: int = 1


_MAX_WORDS: Final = 512

_decoder = msgspec.json.Decoder(ExecuteRequest)
_batch_decoder = msgspec.json.Decoder(BatchRequest)
_cancel_decoder = msgspec.json.Decoder(CancelRequest)
_envelope_decoder = msgspec.json.Decoder(Envelope)
_reply_decoder = msgspec.json.Decoder(Reply)
_name_decoder = msgspec.json.Decoder(Name)


def read_request(body: bytes) -> ExecuteRequest:
    """Return a well-formed request.

    Raises:
        Missing, NotAllowed, Invalid: naming the field and what is wrong with it.

    """
    request = jsonbody.decode(_decoder, body)
    _check(request)
    return request


def read_batch(body: bytes) -> list[ExecuteRequest]:
    """Return the well-formed requests of a batch; one that is malformed refuses all.

    Raises:
        Missing, NotAllowed, Invalid: naming the task, its field and what is wrong with it.

    """
    requests = jsonbody.decode(_batch_decoder, body).tasks
    for number, request in enumerate(requests):
        try:
            _check(request)
        except Invalid as error:
            raise type(error)(f"tasks[{number}].{error.message}") from None
    return requests


def read_cancel(body: bytes) -> CancelRequest:
    """Return a well-formed cancel.

    Raises:
        Missing, NotAllowed, Invalid: naming the field and what is wrong with it.

    """
    order = jsonbody.decode(_cancel_decoder, body)
    _check_id(order.request_id)
    return order


def read_name(body: bytes) -> Name | None:
    """Return which run a malformed task is, if that much of it can be understood."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        name = _name_decoder.decode(body)
        check_request_id(name.request_id)
        return name
    return None


def read_reply(body: bytes) -> Reply:
    """Return a control plane's reply to an exchange, its tasks and cancels unread.

    Raises:
        Invalid: it is none.

    """
    outer = jsonbody.decode(_envelope_decoder, body)
    if outer.code != 0:
        raise Invalid(f"code: {outer.code}: {outer.message}")
    return jsonbody.decode(_reply_decoder, bytes(outer.data))


def read_error(body: bytes) -> str:
    """Return the words of an error; of what is no envelope, as much as a log line may hold."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _envelope_decoder.decode(body).message[:_MAX_WORDS]
    return body[:_MAX_WORDS].decode("utf-8", "replace") or "no words"


def _check(request: ExecuteRequest) -> None:
    _check_id(request.request_id)
    if not request.type:
        raise Missing("type: is required")
    check_kind(request.type)
    jsonbody.check_object(bytes(request.payload), "payload")


def _check_id(request_id: str) -> None:
    if not request_id:
        raise Missing("requestId: is required")
    check_request_id(request_id)
