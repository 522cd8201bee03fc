"""Many requests in one: each is judged on its own, as if it had come alone.

All of them begin at once, so that they share commits and each has its whole time; how many run at
the same time is bounded where all that runs is bounded.
"""

import asyncio
from typing import Final

from edgeplane.agent.executions import Executions
from edgeplane.agent.results import result_of
from edgeplane.model.errors import TooMany
from edgeplane.model.tasks import DEFAULT_TIMEOUT_SECONDS
from edgeplane.wire import BatchReply, ExecuteRequest

MAX_BATCHES: Final = 128
#: What is past its time by more has its effect under way; the others' results wait no longer.
LATE_SECONDS: Final = 0.5


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
        answers = [
            asyncio.create_task(result_of(self._executions, request)) for request in requests
        ]
        try:
            limits = [request.timeout_seconds or DEFAULT_TIMEOUT_SECONDS for request in requests]
            await asyncio.wait(answers, timeout=max(limits) + LATE_SECONDS)
            return BatchReply([answer.result() for answer in answers if answer.done()])
        finally:
            for answer in answers:
                answer.cancel()
            self._under_way -= 1
