"""Reading a request to execute: what is taken, and what is refused.

Every transport reads requests here, so that a malformed one gets the same words whichever way it
came. A payload is checked, never rebuilt: what is executed is what was sent.
"""

import msgspec

from edgeplane import jsonbody
from edgeplane.model.errors import Missing
from edgeplane.model.tasks import check_kind, check_request_id
from edgeplane.wire import ExecuteRequest

_decoder = msgspec.json.Decoder(ExecuteRequest)


def read_request(body: bytes) -> ExecuteRequest:
    """Return a well-formed request.

    Raises:
        Missing, NotAllowed, Invalid: naming the field and what is wrong with it.

    """
    request = jsonbody.decode(_decoder, body)
    if not request.request_id:
        raise Missing("requestId: is required")
    if not request.type:
        raise Missing("type: is required")
    check_request_id(request.request_id)
    check_kind(request.type)
    jsonbody.check_object(bytes(request.payload), "payload")
    return request
