"""The engine's one loop and one life cycle.

Each turn is a transaction; while it commits, results and hints gather for the next, so under load a
commit serves hundreds of tasks and an idle system answers at once. Deliveries run between the
turns, with no transaction open.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from edgeplane.dispatch import runner, turns
from edgeplane.dispatch.hints import Hints
from edgeplane.dispatch.work import Delivery, Held, Request, Result, Rules, Turn
from edgeplane.model.errors import DatabaseAway
from edgeplane.model.tasks import Outcome, Report, Task
from edgeplane.observe.crashpoints import crash_point
from edgeplane.store import mailboxes
from edgeplane.store.database import Database
from edgeplane.store.mailboxes import Mailbox
from edgeplane.transport.base import AgentTransport

log = logging.getLogger(__name__)

MAX_CLAIM = 256  #: mailboxes taken in one turn
MAX_RESULTS = 500  #: results settled in one turn
DRAIN_SECONDS = 10.0  #: how long a stop waits for what is out


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


@dataclass(slots=True)
class _Holding:
    """A mailbox this process holds."""

    epoch: int
    work_seq: int
    trusted_until: float  #: monotonic; past it, somebody else may act for the node
    in_flight: set[tuple[int, int]] = field(default_factory=set)  #: attempts: task and number
    look_at: float | None = None  #: monotonic: when time makes something due here


class Engine:
    """Claims, delivers, settles; started and stopped once."""

    def __init__(
        self,
        database: Database,
        transport: AgentTransport,
        hints: Hints,
        rules: Rules,
        limits: Limits,
    ) -> None:
        self._database = database
        self._transport = transport
        self._hints = hints
        self._rules = rules
        self._limits = limits
        self._holdings: dict[int, _Holding] = {}
        self._results: list[Result] = []
        self._deliveries: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None
        self._stopping = False
        self._renew_at = 0.0
        self._due_at = 0.0
        self._jitter = Random()  # noqa: S311 (spreads polls, guards nothing)
        self.counters = Counters()

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
        left = [self._loop_task, *self._deliveries]
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
            except DatabaseAway:
                failures += 1
                await asyncio.sleep(self._jitter.uniform(0.1, min(2.0, 0.2 * 2**failures)))
            except Exception:
                failures += 1
                log.exception("the engine's turn failed; going on")
                await asyncio.sleep(self._jitter.uniform(0.1, min(5.0, 0.2 * 2**failures)))

    def _idle_seconds(self) -> float:
        """How long to wait when nothing is told: until something is due, or a jittered poll."""
        if self._results:
            return 0.0
        poll = self._limits.poll_seconds * self._jitter.uniform(0.8, 1.2)
        now = time.monotonic()
        dues = [due for due in (self._due_at, self._renew_at if self._holdings else 0.0) if due]
        if not self._stopping:
            dues += [held.look_at for held in self._holdings.values() if held.look_at is not None]
        return max(0.0, min([poll, *(due - now for due in dues)]))

    async def _turn(self) -> None:
        news = self._hints.take()
        results, self._results = self._results[:MAX_RESULTS], self._results[MAX_RESULTS:]
        if self._results:
            self._hints.tell()
        started = time.monotonic()
        renew = bool(self._holdings) and started >= self._renew_at
        request = self._request(results, news | self._due_nodes(started), renew=renew)
        try:
            turn = await self._database.engine_write(
                lambda tx: turns.take(tx, request, self._rules)
            )
        except BaseException:
            # Whether it was committed may be unknown: settling twice is fenced, so do it again.
            self._results[:0] = results
            raise
        if renew:
            self._renew_at = started + self._limits.renew_seconds
        self._take_in(turn, results, started, renewed=renew)

    def _due_nodes(self, now: float) -> set[int]:
        """Return the nodes held at which time made something due."""
        return {
            node_id
            for node_id, holding in self._holdings.items()
            if holding.look_at is not None and holding.look_at <= now
        }

    def _request(self, results: list[Result], news: set[int], *, renew: bool) -> Request:
        free = max(0, self._limits.max_in_flight - len(self._deliveries))
        back: dict[int, set[tuple[int, int]]] = {}
        for result in results:
            back.setdefault(result.task.node_id, set()).add(result.fence)
        held = {
            node_id: Held(
                holding.epoch,
                holding.work_seq,
                frozenset(holding.in_flight - back.get(node_id, set())),
            )
            for node_id, holding in self._holdings.items()
            if renew or node_id in news or node_id in back
        }
        return Request(
            results=results,
            held=held,
            look_at=frozenset(news & held.keys()) if not self._stopping else frozenset(),
            renew=renew,
            claim=0 if self._stopping else min(free, MAX_CLAIM),
            room=free,
            draining=self._stopping,
        )

    def _take_in(self, turn: Turn, results: list[Result], started: float, *, renewed: bool) -> None:
        """Bring memory in line with what was committed, and send off what began."""
        self._land(results)
        for node_id in turn.gone:
            self._holdings.pop(node_id, None)
        for node_id, box in turn.held.items():
            self._hold(node_id, box, started, renewed=renewed)
        self._note_due(turn)
        self._count(turn)
        if turn.settled:
            crash_point("settle.after_commit")
        if turn.begun:
            crash_point("claim.after_commit")
        for delivery in turn.begun:
            self._send_off(delivery)
        if turn.more:
            self._hints.tell()

    def _land(self, results: list[Result]) -> None:
        for result in results:
            if holding := self._holdings.get(result.task.node_id):
                holding.in_flight.discard(result.fence)

    def _hold(self, node_id: int, box: Mailbox, started: float, *, renewed: bool) -> None:
        holding = self._holdings.get(node_id)
        trusted = started + self._rules.lease.seconds
        if holding is None or holding.epoch != box.epoch:
            if not self._holdings:
                self._renew_at = started + self._limits.renew_seconds
            self._holdings[node_id] = _Holding(box.epoch, box.work_seq, trusted)
            return
        holding.work_seq = box.work_seq
        if renewed:
            holding.trusted_until = trusted

    def _note_due(self, turn: Turn) -> None:
        now = time.monotonic()
        if self._due_at <= now:
            self._due_at = 0.0
        if turn.next_due is not None:
            due = _from_now(turn.next_due, turn, now)
            self._due_at = min(self._due_at or due, due)
        for node_id, next_due in turn.look_again.items():
            if holding := self._holdings.get(node_id):
                holding.look_at = None if next_due is None else _from_now(next_due, turn, now)

    def _count(self, turn: Turn) -> None:
        self.counters.turns += 1
        self.counters.begun += len(turn.begun)
        self.counters.settled += len(turn.settled)
        self.counters.late += turn.late
        self.counters.rescued += turn.rescued
        if turn.late or turn.rescued:
            log.info("late results dropped: %d, tasks rescued: %d", turn.late, turn.rescued)

    def _send_off(self, delivery: Delivery) -> None:
        holding = self._holdings[delivery.task.node_id]
        holding.in_flight.add((delivery.task.id, delivery.task.attempts))
        running = asyncio.create_task(self._deliver(delivery, holding))
        self._deliveries.add(running)
        running.add_done_callback(self._deliveries.discard)

    async def _deliver(self, delivery: Delivery, holding: _Holding) -> None:
        task = delivery.task
        try:
            if time.monotonic() < holding.trusted_until:
                report = await runner.deliver(self._transport, delivery)
            else:
                why = "the lease lapsed before the task was sent"
                report = Report(outcome=Outcome.LOST, message=why)
        except Exception as error:
            log.exception("delivery of task %d failed", task.id)
            report = Report(
                outcome=Outcome.UNANSWERED,
                message=f"delivery failed inside the control plane: {type(error).__name__}",
            )
        _tell(task, report)
        self._results.append(Result(delivery, report))
        self._hints.tell()


def _from_now(due: datetime, turn: Turn, now: float) -> float:
    """Turn a time of the database's clock into one of this machine's monotonic clock."""
    return now + max(0.0, (due - turn.now).total_seconds())


def _tell(task: Task, report: Report) -> None:
    if report.outcome is Outcome.SUCCEEDED:
        log.debug("Task %d dispatched successfully: %s", task.id, report.message)
    else:
        log.warning(
            "task %d (%s) at node %d, attempt %d %s: %s",
            task.id,
            task.kind.value,
            task.node_id,
            task.attempts,
            report.outcome.value,
            report.message,
        )
