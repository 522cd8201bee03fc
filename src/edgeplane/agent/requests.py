"""Reading what the control plane asks: what is taken, and what is refused.

Every transport reads requests here, so that a malformed one gets the same words whichever way it
came. A payload is checked, never rebuilt: what is executed is what was sent.
"""

import msgspec

from edgeplane import jsonbody
from edgeplane.model.errors import Invalid, Missing
from edgeplane.model.tasks import check_kind, check_request_id
from edgeplane.wire import BatchRequest, CancelRequest, ExecuteRequest

_decoder = msgspec.json.Decoder(ExecuteRequest)
_batch_decoder = msgspec.json.Decoder(BatchRequest)
_cancel_decoder = msgspec.json.Decoder(CancelRequest)


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
