"""Many requests in one: each is judged on its own, and answered together with the others."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from edgeplane.agent.refusals import refusal
from edgeplane.model.errors import DomainError
from edgeplane.model.tasks import DEFAULT_TIMEOUT_SECONDS
from edgeplane.swarm.agents import Agent
from edgeplane.swarm.fleet import Fleet
from edgeplane.wire import BatchRefusal, BatchReply, ExecuteReply, ExecuteRequest

#: What is past its time by more has its effect under way; the others' results wait no longer.
LATE_SECONDS: Final = 0.5


class Batch:
    """A batch under way; ``tell`` gets its answer, or None where the connection is to be cut."""

    def __init__(
        self, requests: list[ExecuteRequest], tell: Callable[[BatchReply | None], None]
    ) -> None:
        self._requests = requests
        self._tell = tell
        self._results: dict[int, ExecuteReply | BatchRefusal] = {}
        self._over = False
        limits = [request.timeout_seconds or DEFAULT_TIMEOUT_SECONDS for request in requests]
        seconds = max(limits) + LATE_SECONDS
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def execute(self, fleet: Fleet, agent: Agent) -> None:
        """Let an agent carry all of them out, or those there are before it is killed."""
        life = agent.life
        for number, request in enumerate(self._requests):
            if agent.life != life:
                return
            fleet.execute(agent, request, partial(self._told, number))

    def _told(self, number: int, reply: ExecuteReply | DomainError | None) -> None:
        if reply is None:
            self._end(cut=True)
            return
        self._results[number] = (
            refusal(self._requests[number].request_id, reply)
            if isinstance(reply, DomainError)
            else reply
        )
        if len(self._results) == len(self._requests):
            self._end()

    def _end(self, *, cut: bool = False) -> None:
        """Answer, once."""
        self._timer.cancel()
        if not self._over:
            self._over = True
            results = [result for _, result in sorted(self._results.items())]
            self._tell(None if cut else BatchReply(results))
