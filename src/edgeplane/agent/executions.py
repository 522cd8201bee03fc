"""The rules of execution: what is asked is done once, and told the same way every time.

A request is journaled before its effect and again before its answer. Asked for while it runs, it is
joined; asked for afterwards, it is answered from the journal; found begun by a process that died,
it is its executor that says whether the effect was made. What is cancelled before its effect is
journaled as failed, and so is a config that a later generation overtakes. How requests arrive is a
transport's business, not known here; a caller that goes away changes nothing.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from edgeplane.agent.executors.base import Executor, Outcome
from edgeplane.agent.journal import Journal
from edgeplane.agent.journal_file import Asked, Found, Standing
from edgeplane.agent.refusals import Outdated, different, outdated, stopping
from edgeplane.agent.workers import Stop, Workers
from edgeplane.model.errors import DomainError, TooMany, WrongState
from edgeplane.model.tasks import TaskKind, bounded_text
from edgeplane.observe.crashpoints import crash_point
from edgeplane.wire import (
    CANCELLED,
    CancelReply,
    CancelRequest,
    ExecuteReply,
    ExecuteRequest,
    payload_digest,
)

MAX_RUNNING: Final = 256
CANCEL_SECONDS: Final = 5.0  #: how long a cancel waits for what it stopped to be journaled

_log = logging.getLogger(__name__)
_Answer = tuple[ExecuteReply, bool]  #: and whether it came from the journal


@dataclass(slots=True, eq=False)
class _Run:
    """A request between its arrival and its answer."""

    request: ExecuteRequest
    digest: bytes
    attempt: int
    stop: Stop = field(default_factory=Stop)
    begun: bool = False  #: the journal has it as begun
    decided: bool = False  #: its outcome is known, and on its way into the journal
    task: asyncio.Task[_Answer] = field(init=False)


class Executions:
    """What runs now, and the way in."""

    def __init__(self, journal: Journal, executor: Executor, *, limit: int = MAX_RUNNING) -> None:
        """Start with nothing running; at most ``limit`` requests are taken at once."""
        self._journal = journal
        self._workers = Workers(executor)
        self._limit = limit
        self._epochs = journal.epochs.copy()
        self._runs: dict[str, _Run] = {}
        self._closing = False

    @property
    def running(self) -> list[str]:
        """The ids of what is being carried out."""
        return [request_id for request_id, run in self._runs.items() if run.begun]

    @property
    def stuck(self) -> bool:
        """Whether a thread is still inside the executor."""
        return bool(self._workers.jobs)

    async def execute(self, request: ExecuteRequest) -> ExecuteReply:
        """Carry a well-formed request out, or give the answer it has had.

        Raises:
            WrongState: its epoch is lower than one seen before for its node.
            Outdated: a later generation of its node's config has begun.
            AlreadyExists: its id belongs to another type or payload.
            TooMany: as many are running as may.
            DatabaseError: the journal cannot be written; nothing is known to have been done.
            Internal: the agent is stopping; or its time was up, something was short, or what became
                of it cannot be told: then it stays begun, and goes on when it is asked for again.

        """
        self._follow(request)
        digest = payload_digest(request.type, bytes(request.payload))
        try:
            joined = await self._same(request, digest)
            run = joined or self._start(request, digest)
        except DomainError:
            await self._keep_epoch(request)
            raise
        if joined:
            await self._keep_epoch(request)
        return await self._answer(run)

    async def cancel(self, order: CancelRequest) -> CancelReply:
        """Keep a request from its effect, if that is not under way, and say how it stands.

        What runs is stopped and journaled as failed. What does not run is entered as cancelled, so
        that it does nothing when it arrives after all, or is asked for again.

        Raises:
            WrongState: its epoch is lower than one seen before for its node.
            DatabaseError: the journal cannot be written; what ran may have been stopped all the
                same.

        """
        self._follow(order)
        while (run := self._runs.get(order.request_id)) is not None:
            if run.stop.stop(CANCELLED):
                run.decided = True  # a higher attempt is not meant, and does not join
                run.attempt = max(run.attempt, order.attempt or 0)
                await asyncio.wait((run.task,), timeout=CANCEL_SECONDS)
            elif run.task.done():
                await asyncio.wait((run.task,))  # for its place to be given back
            if not run.task.done():  # its effect, or a look for one, is under way
                await self._keep_epoch(order)
                return CancelReply(order.request_id, "running")
        crash_point("agent.before_cancel")
        state = await self._journal.cancel(order)
        crash_point("agent.after_cancel")
        _log.info("request %s was to be cancelled: %s", order.request_id, state)
        return CancelReply(order.request_id, state)

    async def close(self, grace: float) -> None:
        """Take nothing more, and let what runs finish within ``grace`` seconds.

        What does not finish stays in the journal as begun, to be recovered when asked for again.
        """
        self._closing = True
        tasks = [run.task for run in self._runs.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for run in list(self._runs.values()):
            run.stop.permit.revoke()
            run.task.cancel()
        self._workers.close()

    def _follow(self, request: ExecuteRequest | CancelRequest) -> None:
        """Refuse an epoch that is past for its node, and remember one that is new."""
        node_id = request.node_id or 0
        followed = self._epochs.of(node_id)
        if request.epoch is None:
            return
        if request.epoch < followed:
            raise WrongState(
                f"stale epoch {request.epoch} for node {node_id}: this agent follows {followed}"
            )
        self._epochs.raise_to(request.epoch, node_id)

    async def _keep_epoch(self, request: ExecuteRequest | CancelRequest) -> None:
        """Bring the epoch of a request to disk that is answered without a begin of its own.

        Otherwise whoever was followed before could act again after a restart.
        """
        node_id = request.node_id or 0
        if request.epoch is not None and request.epoch > self._journal.epochs.of(node_id):
            await self._journal.raise_epoch(request.epoch, node_id)

    async def _same(self, request: ExecuteRequest, digest: bytes) -> _Run | None:
        """Return the run that answers this request too, if there is one.

        A higher attempt joins only what is being carried out: what ends now, or is answered from
        the journal, is of an attempt before it.
        """
        while (run := self._runs.get(request.request_id)) is not None:
            same = run.digest == digest
            if same and (request.attempt <= run.attempt or (run.begun and not run.decided)):
                run.attempt = max(run.attempt, request.attempt)
                return run
            if run.begun and not same:
                raise different(request.request_id)
            await asyncio.wait((run.task,))  # what it leaves in the journal says how to go on
            self._follow(request)  # a newer owner may have come meanwhile
        return None

    def _start(self, request: ExecuteRequest, digest: bytes) -> _Run:
        if self._closing:
            raise stopping()
        if (
            max(len(self._runs), len(self._workers.jobs)) >= self._limit
        ):  # jobs: also those given up
            raise TooMany(f"{self._limit} tasks are running; ask again", retry_after=1)
        run = _Run(request, digest, request.attempt)
        self._runs[request.request_id] = run
        run.task = asyncio.create_task(self._carry_out(request, run), name=request.request_id)
        run.task.add_done_callback(lambda task: self._ended(request.request_id, task))
        return run

    def _ended(self, request_id: str, task: asyncio.Task[_Answer]) -> None:
        del self._runs[request_id]
        if not task.cancelled():
            task.exception()  # told to whoever waits; nobody may be left

    async def _answer(self, run: _Run) -> ExecuteReply:
        try:
            reply, cached = await asyncio.shield(run.task)
        except asyncio.CancelledError:
            if run.task.cancelled():
                raise stopping() from None
            raise
        if cached:
            _log.info(
                "[IDEMPOTENT] Request %s already processed, returning cached result",
                reply.request_id,
            )
        return reply

    async def _carry_out(self, request: ExecuteRequest, run: _Run) -> _Answer:
        """Journal, execute, journal: the life of one run."""
        crash_point("agent.before_begin")
        found = await self._journal.begin(
            Asked(
                request_id=request.request_id,
                kind=request.type,
                digest=run.digest,
                attempt=run.attempt,
                epoch=request.epoch,
                node_id=request.node_id or 0,
                generation=_generation(request),
            )
        )
        if found.standing is Standing.DIFFERENT:
            raise different(request.request_id)
        if found.standing is Standing.OUTDATED:
            raise _outdated(request, found)
        if found.standing is Standing.ANSWERED:
            return ExecuteReply(request.request_id, found.status, found.message), True
        run.begun = True
        crash_point("agent.after_begin")
        outcome = await self._outcome(run, found)
        message = bounded_text(outcome.message)
        run.decided = True
        crash_point("agent.before_done")
        await self._journal.finish(request.request_id, run.attempt, outcome.status, message)
        crash_point("agent.after_done")
        _tell(request, outcome.status, message)
        return ExecuteReply(request.request_id, outcome.status, message), False

    async def _outcome(self, run: _Run, found: Found) -> Outcome:
        """Do what is to be done, or what an interrupted run left undone."""
        if found.standing is not Standing.NEW:
            recovered = await self._workers.recovered(run.request)
            if recovered is not None:
                return recovered
        if found.standing is Standing.CALLED_OFF:
            if found.begun_generation:
                raise _outdated(run.request, found)
            return Outcome("failed", found.message)
        await self._overtake(run)
        return await self._workers.outcome(run.request, run.stop)

    async def _overtake(self, run: _Run) -> None:
        """Let no earlier generation take effect after this one: stop it, or let it finish first."""
        generation = _generation(run.request)
        if generation is None:
            return
        for other in list(self._runs.values()):
            earlier = _generation(other.request)
            if earlier is None or other.request.node_id != run.request.node_id:
                continue
            if earlier < generation and not other.stop.stop(_behind(other.request, generation)):
                await asyncio.wait(
                    (other.task, run.stop.asked), return_when=asyncio.FIRST_COMPLETED
                )


def _generation(request: ExecuteRequest) -> int | None:
    """Return the generation of its node's config that a request would make, if it makes one."""
    configures = request.type == TaskKind.APPLY_CONFIG and request.node_id is not None
    return request.generation if configures else None


def _behind(request: ExecuteRequest, begun: int) -> str:
    return outdated(request.generation or 0, begun, request.node_id or 0)


def _outdated(request: ExecuteRequest, found: Found) -> Outdated:
    return Outdated(request.generation or 0, found.begun_generation, request.node_id or 0)


def _tell(request: ExecuteRequest, status: str, message: str) -> None:
    if status == "success":
        _log.info("[SUCCESS] Task %s (%s) completed: %s", request.request_id, request.type, message)
    else:
        _log.error("[ERROR] Task %s (%s) failed: %s", request.request_id, request.type, message)
