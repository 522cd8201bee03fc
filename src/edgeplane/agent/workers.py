"""The executor's threads: what is called in them, for how long, and how a run is given up."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from edgeplane.agent.executors.base import Executor, NotNow, Outcome, Permit, Unclear
from edgeplane.agent.refusals import Unavailable
from edgeplane.model.errors import Internal
from edgeplane.model.tasks import DEFAULT_TIMEOUT_SECONDS, bounded_text
from edgeplane.wire import ExecuteRequest

WORKERS: Final = 16

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Stop:
    """The way to keep one run from its effect, for whoever has a reason to."""

    def __init__(self) -> None:
        self.permit = Permit()
        self.reason: str | None = None  #: why it was stopped; then it makes no effect any more
        self.asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self, reason: str) -> bool:
        """Stop the run, if its effect is not under way yet; the first reason counts."""
        if not self.permit.revoke():
            return False
        self.reason = self.reason or reason
        if not self.asked.done():
            self.asked.set_result(None)
        return True


class Workers:
    """The threads of one executor."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="executor")
        self.jobs: set[asyncio.Future[Any]] = set()
        """The calls that have not come back, also those nobody waits for any more."""

    def close(self) -> None:
        """Begin no more calls; those that are under way go on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def recovered(self, request: ExecuteRequest) -> Outcome | None:
        """Return the outcome of an effect that an interrupted run completed.

        Under no time limit, and never guessed: a failure told here might be told of an effect that
        is there.
        """
        job = self._enter(lambda: self._executor.recover(request))
        await asyncio.wait((job,))
        try:
            return job.result()
        except Exception as error:
            _log.exception("what became of task %s cannot be told", request.request_id)
            raise Internal(
                "what an interrupted run did cannot be told; the agent's log says why"
            ) from error

    async def outcome(self, request: ExecuteRequest, stop: Stop) -> Outcome:
        """Let the executor do what is to be done.

        Raises:
            Internal: it was not done for now, or it is not known whether it was.

        """
        try:
            return await self._within_time(request, stop)
        except (NotNow, Unclear) as error:
            _log.warning("task %s (%s) stays begun: %s", request.request_id, request.type, error)
            kind = Unavailable if isinstance(error, NotNow) else Internal
            raise kind(bounded_text(str(error))) from error
        except Exception as error:  # whether it had its effect is found out when it is asked again
            _log.exception("executor %s broke on task %s", self._executor.name, request.request_id)
            raise Internal("the executor broke; the agent's log says how") from error

    async def _within_time(self, request: ExecuteRequest, stop: Stop) -> Outcome:
        """Run the executor, at most as long as the request allows, and until it is stopped.

        A run that takes longer is given up while its effect can still be prevented; once the effect
        is under way it is waited for, because nothing else could be told truly.
        """
        if stop.reason is not None:
            return Outcome("failed", stop.reason)
        limit = request.timeout_seconds or DEFAULT_TIMEOUT_SECONDS
        job = self._enter(lambda: self._executor.execute(request, stop.permit))
        await asyncio.wait((job, stop.asked), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if stop.reason is not None:  # whatever the executor says of it: it had no permit
            return Outcome("failed", stop.reason)
        if not job.done() and stop.permit.revoke():
            raise NotNow(f"timed out after {limit} s")
        await asyncio.wait((job,))
        return job.result()

    def _enter(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Call the executor in a thread.

        To be awaited with ``asyncio.wait`` only, which leaves it alone when the waiting is
        cancelled: a thread inside the executor has to be known of.
        """
        job = asyncio.get_running_loop().run_in_executor(self._pool, work)
        self.jobs.add(job)
        job.add_done_callback(self._returned)
        return job

    def _returned(self, job: asyncio.Future[Any]) -> None:
        self.jobs.discard(job)
        if not job.cancelled():
            job.exception()
