"""The rules of execution: what is asked is done once, and told the same way every time.

A request is journaled before its effect and again before its answer. Asked for while it runs, it is
joined; asked for afterwards, it is answered from the journal; found begun by a process that died,
it is its executor that says whether the effect was made. How requests arrive is a transport's
business, not known here; a caller that goes away changes nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from edgeplane.agent.executors.base import Executor, NotNow, Outcome, Permit, Unclear
from edgeplane.agent.journal import Journal
from edgeplane.agent.journal_file import Asked, Standing
from edgeplane.model.errors import AlreadyExists, DomainError, Internal, TooMany, WrongState
from edgeplane.model.tasks import DEFAULT_TIMEOUT_SECONDS, bounded_text
from edgeplane.observe.crashpoints import crash_point
from edgeplane.wire import ExecuteReply, ExecuteRequest, payload_digest

MAX_RUNNING: Final = 256
WORKERS: Final = 16

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Answer = tuple[ExecuteReply, bool]  #: and whether it came from the journal


class _Unavailable(Internal):
    status = 503


@dataclass(slots=True, eq=False)
class _Run:
    """A request between its arrival and its answer."""

    digest: bytes
    attempt: int
    permit: Permit = field(default_factory=Permit)
    begun: bool = False  #: the journal has it as begun
    decided: bool = False  #: its outcome is known, and on its way into the journal
    task: asyncio.Task[_Answer] = field(init=False)


class Executions:
    """What runs now, and the way in."""

    def __init__(self, journal: Journal, executor: Executor, *, limit: int = MAX_RUNNING) -> None:
        """Start with nothing running; at most ``limit`` requests are taken at once."""
        self._journal = journal
        self._executor = executor
        self._limit = limit
        self._epochs = journal.epochs.copy()
        self._runs: dict[str, _Run] = {}
        self._jobs: set[asyncio.Future[Any]] = set()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="executor")
        self._closing = False

    @property
    def running(self) -> list[str]:
        """The ids of what is being carried out."""
        return [request_id for request_id, run in self._runs.items() if run.begun]

    @property
    def stuck(self) -> bool:
        """Whether a thread is still inside the executor."""
        return bool(self._jobs)

    async def execute(self, request: ExecuteRequest) -> ExecuteReply:
        """Carry a well-formed request out, or give the answer it has had.

        Raises:
            WrongState: its epoch is lower than one seen before for its node.
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

    async def close(self, grace: float) -> None:
        """Take nothing more, and let what runs finish within ``grace`` seconds.

        What does not finish stays in the journal as begun, to be recovered when asked for again.
        """
        self._closing = True
        tasks = [run.task for run in self._runs.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for run in list(self._runs.values()):
            run.permit.revoke()
            run.task.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _follow(self, request: ExecuteRequest) -> None:
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

    async def _keep_epoch(self, request: ExecuteRequest) -> None:
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
                raise _different(request.request_id)
            await asyncio.wait((run.task,))  # what it leaves in the journal says how to go on
            self._follow(request)  # a newer owner may have come meanwhile
        return None

    def _start(self, request: ExecuteRequest, digest: bytes) -> _Run:
        if self._closing:
            raise _stopping()
        if max(len(self._runs), len(self._jobs)) >= self._limit:  # jobs: also those given up
            raise TooMany(f"{self._limit} tasks are running; ask again", retry_after=1)
        run = _Run(digest, request.attempt)
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
                raise _stopping() from None
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
            )
        )
        if found.standing is Standing.DIFFERENT:
            raise _different(request.request_id)
        if found.standing is Standing.ANSWERED:
            return ExecuteReply(request.request_id, found.status, found.message), True
        run.begun = True
        crash_point("agent.after_begin")
        interrupted = found.standing is Standing.INTERRUPTED
        outcome = await self._outcome(request, run.permit, interrupted=interrupted)
        message = bounded_text(outcome.message)
        run.decided = True
        crash_point("agent.before_done")
        await self._journal.finish(request.request_id, run.attempt, outcome.status, message)
        crash_point("agent.after_done")
        _tell(request, outcome.status, message)
        return ExecuteReply(request.request_id, outcome.status, message), False

    async def _outcome(
        self, request: ExecuteRequest, permit: Permit, *, interrupted: bool
    ) -> Outcome:
        """Let the executor do what is to be done, or what an interrupted run left undone."""
        if interrupted and (recovered := await self._recovered(request)) is not None:
            return recovered
        try:
            return await self._within_time(request, permit)
        except (NotNow, Unclear) as error:
            _log.warning("task %s (%s) stays begun: %s", request.request_id, request.type, error)
            kind = _Unavailable if isinstance(error, NotNow) else Internal
            raise kind(bounded_text(str(error))) from error
        except Exception:  # noqa: BLE001  an executor's fault is an outcome
            _log.exception("executor %s broke on task %s", self._executor.name, request.request_id)
            return Outcome("failed", "the executor broke; the agent's log says how")

    async def _recovered(self, request: ExecuteRequest) -> Outcome | None:
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

    async def _within_time(self, request: ExecuteRequest, permit: Permit) -> Outcome:
        """Run the executor, at most as long as the request allows.

        A run that takes longer is given up while its effect can still be prevented; once the effect
        is under way it is waited for, because nothing else could be told truly.
        """
        limit = request.timeout_seconds or DEFAULT_TIMEOUT_SECONDS
        job = self._enter(lambda: self._executor.execute(request, permit))
        await asyncio.wait((job,), timeout=limit)
        if not job.done() and permit.revoke():
            raise NotNow(f"timed out after {limit} s")
        await asyncio.wait((job,))
        return job.result()

    def _enter(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Call the executor in a thread.

        To be awaited with ``asyncio.wait`` only, which leaves it alone when the waiting is
        cancelled: a thread inside the executor has to be known of.
        """
        job = asyncio.get_running_loop().run_in_executor(self._pool, work)
        self._jobs.add(job)
        job.add_done_callback(self._returned)
        return job

    def _returned(self, job: asyncio.Future[Any]) -> None:
        self._jobs.discard(job)
        if not job.cancelled():
            job.exception()


def _tell(request: ExecuteRequest, status: str, message: str) -> None:
    if status == "success":
        _log.info("[SUCCESS] Task %s (%s) completed: %s", request.request_id, request.type, message)
    else:
        _log.error("[ERROR] Task %s (%s) failed: %s", request.request_id, request.type, message)


def _different(request_id: str) -> AlreadyExists:
    return AlreadyExists(f"requestId: {request_id} was used for another type or payload")


def _stopping() -> Internal:
    return Internal("the agent is stopping; ask again with the same requestId")
