"""What becomes of one request among many: a reply, or a refusal in its place; never an error."""

import logging

from edgeplane.agent.executions import Executions
from edgeplane.agent.refusals import refusal
from edgeplane.model.errors import DomainError, Internal
from edgeplane.wire import BatchRefusal, ExecuteReply, ExecuteRequest

Result = ExecuteReply | BatchRefusal

_log = logging.getLogger(__name__)


async def result_of(executions: Executions, request: ExecuteRequest) -> Result:
    """Carry a well-formed request out, and say what it would have been answered alone."""
    try:
        return await executions.execute(request)
    except DomainError as error:
        return refusal(request.request_id, error)
    except Exception:  # noqa: BLE001  whatever it is, the others are answered
        _log.exception("request %s failed unexpectedly", request.request_id)
        words = "internal error; the agent's log has it under this requestId"
        return refusal(request.request_id, Internal(words))
