"""Reading what a control plane replies to an exchange."""

from typing import Final

import msgspec
from msgspec import Struct

from edgeplane import jsonbody
from edgeplane.model.errors import DomainError
from edgeplane.model.tasks import check_kind, check_request_id
from edgeplane.wire import ExecuteRequest, SyncReply


class _Envelope(Struct):
    code: int
    data: SyncReply | None = None


_decoder: Final = msgspec.json.Decoder(_Envelope)


def read(body: bytes) -> SyncReply | None:
    """Return a reply; None where it is none."""
    try:
        return _decoder.decode(body).data
    except msgspec.MsgspecError:
        return None


def malformed(task: ExecuteRequest) -> DomainError | None:
    """Return why a task cannot be carried out, where its own words show that."""
    try:
        check_request_id(task.request_id)
        check_kind(task.type)
        jsonbody.check_object(bytes(task.payload), "payload")
    except DomainError as error:
        return error
    return None
