"""The engine's one loop and one life cycle.

Each turn is a transaction; while it commits, results and hints gather for the next, so under load a
commit serves hundreds of tasks and an idle system answers at once. Deliveries run between the
turns, with no transaction open.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from edgeplane.dispatch import turns
from edgeplane.dispatch.deliveries import Deliveries
from edgeplane.dispatch.hints import Hints
from edgeplane.dispatch.holdings import Holdings, from_now
from edgeplane.dispatch.meters import Meters
from edgeplane.dispatch.sightings import Sightings
from edgeplane.dispatch.work import Request, Result, Rules, Turn
from edgeplane.model.errors import DatabaseAway
from edgeplane.observe.crashpoints import crash_point
from edgeplane.observe.metrics import Metrics
from edgeplane.store import mailboxes
from edgeplane.store.database import Database
from edgeplane.transport.base import AgentTransport

log = logging.getLogger(__name__)

MAX_CLAIM = 256  #: mailboxes taken in one turn
MAX_RESULTS = 500  #: results settled in one turn
DRAIN_SECONDS = 10.0  #: how long a stop waits for what is out
UNSETTLED_SECONDS = 5.0  #: until a task whose result cannot be settled is looked at again

_PAUSES = (0.4, 0.8, 1.6, 2.0)  #: seconds at most between turns that failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds and times, in seconds."""

    max_in_flight: int
    renew_seconds: float
    poll_seconds: float


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    turns: int = 0
    begun: int = 0
    settled: int = 0
    late: int = 0
    rescued: int = 0


class Engine:
    """Claims, delivers, settles; started and stopped once."""

    def __init__(
        self,
        database: Database,
        transport: AgentTransport,
        hints: Hints,
        rules: Rules,
        limits: Limits,
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._transport = transport
        self._hints = hints
        self._rules = rules
        self._limits = limits
        self._holdings = Holdings(rules.lease.seconds)
        self._results: list[Result] = []
        self._loop_task: asyncio.Task[None] | None = None
        self._stopping = False
        self._careful = False  #: the last turn failed unexpectedly: one result, and no claim
        self._renew_at = 0.0
        self._due_at: float | None = None  #: monotonic: when something that nobody holds is due
        self._jitter = Random()  # noqa: S311 (spreads polls, guards nothing)
        self.counters = Counters()
        self.sightings = Sightings()  #: what deliveries show of their nodes
        self._call = _nobody
        self._meters = Meters(metrics or Metrics())
        self._deliveries = Deliveries(
            transport, limits.max_in_flight, self._back, self._meters, self.sightings
        )
        self._meters.follow(self)

    @property
    def results_waiting(self) -> int:
        """How many results wait for a turn."""
        return len(self._results)

    @property
    def deliveries_out(self) -> int:
        """How many attempts are out."""
        return len(self._deliveries)

    @property
    def mailboxes_held(self) -> int:
        """How many mailboxes this engine holds."""
        return len(self._holdings)

    def on_call(self, call: Callable[[], None]) -> None:
        """Name who is told when an operation calls for a step."""
        self._call = call

    def start(self) -> None:
        """Start the loop; once."""
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._supervise(), name="engine")

    async def stop(self) -> None:
        """Take nothing new, let what is out come back, settle it, give the mailboxes back."""
        if self._loop_task is None or self._stopping:
            return
        self._stopping = True
        self._hints.tell()
        await asyncio.wait({self._loop_task}, timeout=DRAIN_SECONDS)
        left = [self._loop_task, *self._deliveries.tasks]
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        owner = self._rules.lease.owner
        with contextlib.suppress(DatabaseAway):
            await self._database.engine_write(lambda tx: mailboxes.release_all(tx, owner))
        await self._transport.close()

    async def _supervise(self) -> None:
        """Keep turning until all is drained; an error of one turn is told, and the next comes."""
        failures = 0
        while not self._stopping or self._deliveries or self._results:
            try:
                await self._hints.wait(self._idle_seconds())
                await self._turn()
                failures = 0
                continue
            except DatabaseAway:
                self._meters.failed("away")
            except Exception:
                log.exception("the engine's turn failed; going on")
                self._meters.failed("unexpected")
                self._careful = True
            longest = _PAUSES[min(failures, len(_PAUSES) - 1)]
            failures += 1
            await asyncio.sleep(self._jitter.uniform(0.1, longest))

    def _idle_seconds(self) -> float:
        """How long to wait when nothing is told: until something is due, or a jittered poll."""
        if self._results:
            return 0.0
        poll = self._limits.poll_seconds * self._jitter.uniform(0.8, 1.2)
        now = time.monotonic()
        dues = [self._due_at, self._renew_at if self._holdings else None]
        if not self._stopping:
            dues.append(self._holdings.next_look())
        return max(0.0, min([poll, *(due - now for due in dues if due is not None)]))

    async def _turn(self) -> None:
        news = self._hints.take()
        most = 1 if self._careful else MAX_RESULTS
        results, self._results = self._results[:most], self._results[most:]
        if self._results:
            self._hints.tell()
        started = time.monotonic()
        renew = bool(self._holdings) and started >= self._renew_at
        request = self._request(results, news | self._holdings.due(started), renew=renew)
        try:
            turn = await self._database.engine_write(
                lambda tx: turns.take(tx, request, self._rules)
            )
        except BaseException as error:
            self._hints.tell(news)
            if self._careful and results and not isinstance(error, DatabaseAway):
                # The rest must not wait for it for ever: its task is rescued, and asked for again.
                log.error("task %d: its result cannot be settled", results[0].task.id)  # noqa: TRY400
                self._holdings.land(results)
                self._holdings.leave_alone(results[0].task.node_id, UNSETTLED_SECONDS)
            else:
                # Whether it was committed may be unknown: settling twice is fenced: do it again.
                self._results[:0] = results
            raise
        self._careful = False
        if renew:
            self._renew_at = started + self._limits.renew_seconds
        took = time.monotonic() - started
        self._take_in(turn, results, started, renewed=renew)
        self._meters.turn(turn, len(results), took)

    def _request(self, results: list[Result], news: set[int], *, renew: bool) -> Request:
        room = self._deliveries.room()
        held = self._holdings.asked(None if renew else news, results)
        return Request(
            results=results,
            held=held,
            look_at=frozenset(news & held.keys()) if not self._stopping else frozenset(),
            renew=renew,
            claim=0 if self._stopping or self._careful else min(room.deliveries, MAX_CLAIM),
            room=room,
            draining=self._stopping,
        )

    def _take_in(self, turn: Turn, results: list[Result], started: float, *, renewed: bool) -> None:
        """Bring memory in line with what was committed, and send off what began."""
        self._holdings.land(results)
        self._deliveries.acknowledge(results)
        if not self._holdings:
            self._renew_at = started + self._limits.renew_seconds
        self._holdings.take_in(turn, started, renewed=renewed)
        self._note_due(turn)
        self._count(turn)
        if turn.settled:
            crash_point("settle.after_commit")
        if turn.begun:
            crash_point("claim.after_commit")
        self._deliveries.send(turn.begun, self._rules.max_batch, self._holdings.of)
        self._withdraw(turn)
        if turn.more:
            self._hints.tell()
        if turn.calls:
            self._call()

    def _withdraw(self, turn: Turn) -> None:
        """Have agents told once of what was cancelled while it was out."""
        by_fence = {(each.task.id, each.task.attempts): each for each in turn.withdrawn}
        pairs = [(each.task.node_id, fence) for fence, each in by_fence.items()]
        new = self._holdings.newly_withdrawn(pairs)
        self._deliveries.withdraw([by_fence[fence] for fence in sorted(new)])

    def _note_due(self, turn: Turn) -> None:
        now = time.monotonic()
        if self._due_at is not None and self._due_at <= now:
            self._due_at = None
        if turn.next_due is not None:
            due = from_now(turn.next_due, turn, now)
            self._due_at = min(self._due_at or due, due)

    def _count(self, turn: Turn) -> None:
        self.counters.turns += 1
        self.counters.begun += len(turn.begun)
        self.counters.settled += len(turn.settled)
        self.counters.late += turn.late
        self.counters.rescued += turn.rescued
        if turn.late or turn.rescued:
            log.info("late results dropped: %d, tasks rescued: %d", turn.late, turn.rescued)

    def _back(self, results: list[Result]) -> None:
        """Take what a request brought back."""
        self._results += results
        self._hints.tell()


def _nobody() -> None:
    """Tell nobody."""
