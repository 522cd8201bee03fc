"""Many requests in one: each is judged on its own, as if it had come alone.

All of them begin at once, so that they share commits and each has its whole time; how many run at
the same time is bounded where all that runs is bounded.
"""

import asyncio
import logging
from typing import Final

from edgeplane.agent.executions import Executions
from edgeplane.agent.refusals import Outdated
from edgeplane.model.errors import DomainError, Internal, TooMany
from edgeplane.model.tasks import DEFAULT_TIMEOUT_SECONDS
from edgeplane.wire import BatchRefusal, BatchReply, ExecuteReply, ExecuteRequest

MAX_BATCHES: Final = 16
#: What is past its time by more has its effect under way; the others' results wait no longer.
LATE_SECONDS: Final = 0.5

_log = logging.getLogger(__name__)
_Result = ExecuteReply | BatchRefusal


class Batches:
    """The way in for many requests at once; at most ``limit`` batches are taken at a time."""

    def __init__(self, executions: Executions, *, limit: int = MAX_BATCHES) -> None:
        self._executions = executions
        self._limit = limit
        self._under_way = 0

    async def execute(self, requests: list[ExecuteRequest]) -> BatchReply:
        """Carry well-formed requests out, and give each the answer it would have had alone.

        One whose effect is still under way when the longest limit of all is over has no result:
        whoever asks for it again joins it. A caller that goes away changes nothing.

        Raises:
            TooMany: as many batches are under way as may.

        """
        if self._under_way >= self._limit:
            raise TooMany(f"{self._limit} batches are under way; ask again", retry_after=1)
        self._under_way += 1
        answers = [asyncio.create_task(self._one(request)) for request in requests]
        try:
            limits = [request.timeout_seconds or DEFAULT_TIMEOUT_SECONDS for request in requests]
            await asyncio.wait(answers, timeout=max(limits) + LATE_SECONDS)
            return BatchReply([answer.result() for answer in answers if answer.done()])
        finally:
            for answer in answers:
                answer.cancel()
            self._under_way -= 1

    async def _one(self, request: ExecuteRequest) -> _Result:
        try:
            return await self._executions.execute(request)
        except DomainError as error:
            return _refusal(request.request_id, error)
        except Exception:  # noqa: BLE001  whatever it is, the others are answered
            _log.exception("request %s failed unexpectedly", request.request_id)
            words = "internal error; the agent's log has it under this requestId"
            return _refusal(request.request_id, Internal(words))


def _refusal(request_id: str, error: DomainError) -> BatchRefusal:
    return BatchRefusal(
        request_id,
        error.status,
        error.code,
        error.message,
        retry_after=error.retry_after if isinstance(error, TooMany) else None,
        data=error.data if isinstance(error, Outdated) else None,
    )
