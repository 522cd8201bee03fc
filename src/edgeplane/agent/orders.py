"""What replies of a control plane ask for: each run is carried out once, and its end is kept."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import Raw

from edgeplane.agent.executions import Executions
from edgeplane.agent.outbox import MAX_KEPT, Outbox, Run
from edgeplane.agent.refusals import refusal
from edgeplane.agent.requests import read_cancel, read_name, read_request
from edgeplane.agent.results import result_of
from edgeplane.model.errors import DomainError
from edgeplane.wire import CancelRequest, ExecuteRequest

MAX_CANCELLING: Final = 512  #: cancels under way at once

_log = logging.getLogger(__name__)
_Job = asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Carried:
    """A run on its way to its end; ``epoch`` is that of whoever asked for it."""

    epoch: int | None
    job: _Job


class Orders:
    """Tasks and cancels under way; how they end goes into the outbox.

    A run is known by its request id and attempt. What is asked for again while it is carried out,
    or while its result waits to be acknowledged, begins nothing twice. Only an ask under another
    epoch is judged anew, because what one owner was refused another may be allowed; then the
    answer to the newer ask counts.
    """

    def __init__(self, executions: Executions, outbox: Outbox) -> None:
        self._executions = executions
        self._outbox = outbox
        self._carried: dict[Run, _Carried] = {}
        self._cancelling: set[bytes] = set()  #: cancels as they came
        self._jobs: set[_Job] = set()
        self._closed = False

    def take(self, tasks: Sequence[Raw], cancels: Sequence[Raw]) -> list[_Job]:
        """Begin what a reply asks for; return what has begun."""
        if self._closed:  # it is asked for again
            return []
        begun = [self._take_task(bytes(raw)) for raw in tasks]
        begun += [self._take_cancel(bytes(raw)) for raw in cancels]
        return [job for job in begun if job is not None]

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True

    async def ended(self, seconds: float) -> None:
        """Wait until the ends of all that was taken are in the outbox."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=seconds)

    def _take_task(self, raw: bytes) -> _Job | None:
        try:
            request = read_request(raw)
        except DomainError as error:
            self._refuse(raw, error)
            return None
        run = (request.request_id, request.attempt)
        known = self._carried.get(run)
        if known is not None and known.epoch == request.epoch:
            return None
        if known is None and self._outbox.tell_again(run, request.epoch):
            return None
        if len(self._jobs) + len(self._outbox) >= MAX_KEPT:
            _log.warning("task %s is left alone: %d wait to be told", run[0], len(self._outbox))
            return None
        job = self._begin(asyncio.create_task(self._carry_out(run, request), name=run[0]))
        self._carried[run] = _Carried(request.epoch, job)
        return job

    async def _carry_out(self, run: Run, request: ExecuteRequest) -> None:
        result = await result_of(self._executions, request)
        carried = self._carried.get(run)
        if carried is not None and carried.job is asyncio.current_task():
            del self._carried[run]
            self._outbox.put(run, request.epoch, result)

    def _refuse(self, raw: bytes, error: DomainError) -> None:
        """Answer a malformed task with its refusal, if it says whose it is."""
        name = read_name(raw)
        if name is None:
            _log.warning("a task without a requestId is not answered: %s", error.message)
        elif len(self._outbox) < MAX_KEPT:
            self._outbox.put((name.request_id, name.attempt), None, refusal(name.request_id, error))

    def _take_cancel(self, raw: bytes) -> _Job | None:
        try:
            order = read_cancel(raw)
        except DomainError as error:
            _log.warning("a cancel is not answered: %s", error.message)
            return None
        if raw in self._cancelling or len(self._cancelling) >= MAX_CANCELLING:
            return None
        self._cancelling.add(raw)
        return self._begin(asyncio.create_task(self._cancel(raw, order), name=order.request_id))

    async def _cancel(self, raw: bytes, order: CancelRequest) -> None:
        """Cancel, and keep the answer; one that is refused has none, and is asked for again."""
        try:
            self._outbox.put_cancel(await self._executions.cancel(order))
        except DomainError as error:
            _log.warning("request %s is not cancelled: %s", order.request_id, error.message)
        except Exception:  # noqa: BLE001  whatever it is, the others are answered
            _log.exception("the cancel of %s failed unexpectedly", order.request_id)
        finally:
            self._cancelling.discard(raw)

    def _begin(self, job: _Job) -> _Job:
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job
