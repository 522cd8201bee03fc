"""Engines and their turns, driven by hand: a scripted transport, a watched database, a clock."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from random import Random
from typing import Any, TypeVar

from edgeplane.dispatch import turns
from edgeplane.dispatch.engine import Engine, Limits
from edgeplane.dispatch.hints import Hints
from edgeplane.dispatch.work import Delivery, Held, Request, Result, Rules, Turn
from edgeplane.model.errors import DatabaseAway
from edgeplane.model.retry import RetryPolicy
from edgeplane.model.tasks import Outcome, Report
from edgeplane.observe.metrics import Metrics
from edgeplane.services.intake import Intake
from edgeplane.store.database import Database
from edgeplane.store.mailboxes import Lease
from edgeplane.store.workers import Tx
from edgeplane.transport.base import Ending, Place, TransportError
from edgeplane.wire import CancelState, ExecuteReply, ExecuteRequest

T = TypeVar("T")
PATIENCE = 15.0


@dataclass(slots=True)
class Call:
    """A delivery that reached the transport and waits for its answer."""

    address: Place
    request: ExecuteRequest
    answer: "asyncio.Future[ExecuteReply]"

    def succeed(self, message: str = "done") -> None:
        """Let the agent succeed."""
        if not self.answer.done():
            self.answer.set_result(ExecuteReply(self.request.request_id, "success", message))

    def fail(self, message: str = "no") -> None:
        """Let the agent report a failure."""
        self.answer.set_result(ExecuteReply(self.request.request_id, "failed", message))

    def break_with(self, error: Exception) -> None:
        """Let the delivery bring no result."""
        self.answer.set_exception(error)


class ScriptedTransport:
    """An ``AgentTransport`` whose answers the test gives, one by one or by a rule."""

    def __init__(self, at_once: Callable[[Call], None] | None = None) -> None:
        self.at_once = at_once
        self.calls: list[Call] = []
        self.batches: list[tuple[list[str], float]] = []  #: request ids, and seconds
        self.cancels: list[tuple[Any, ...]] = []  #: request id, node, epoch, attempt
        self.cancelled = asyncio.Event()
        self.out: Counter[int | None] = Counter()  #: by node
        self.most_out = 0
        self.most_at_a_node = 0
        self.closed = 0
        self._arrived: asyncio.Queue[Call] = asyncio.Queue()

    def shown(self, address: Place) -> str:
        """Show it as it is."""
        return str(address)

    def committed(self, address: Place, request_id: str, attempt: int) -> None:
        """Nobody asks for it here."""

    async def deliver(
        self, address: Place, request: ExecuteRequest, seconds: float
    ) -> ExecuteReply:
        """Note the call and wait for its answer."""
        call = Call(address, request, asyncio.get_running_loop().create_future())
        self.calls.append(call)
        self.out[request.node_id] += 1
        self.most_out = max(self.most_out, self.out.total())
        self.most_at_a_node = max(self.most_at_a_node, self.out[request.node_id])
        self._arrived.put_nowait(call)
        if self.at_once is not None:
            asyncio.get_running_loop().call_soon(self.at_once, call)
        try:
            return await call.answer
        finally:
            self.out[request.node_id] -= 1

    async def deliver_many(
        self, address: Place, requests: Sequence[ExecuteRequest], seconds: float
    ) -> list[Ending]:
        """Note a call for each, and wait for all."""
        self.batches.append(([request.request_id for request in requests], seconds))
        found = await asyncio.gather(
            *(self.deliver(address, request, seconds) for request in requests),
            return_exceptions=True,
        )
        for one in found:
            if not isinstance(one, ExecuteReply | TransportError):
                raise one
        return [one for one in found if isinstance(one, ExecuteReply | TransportError)]

    async def cancel(
        self,
        address: Place,
        request_id: str,
        node_id: int | None,
        epoch: int | None,
        seconds: float,
        *,
        attempt: int | None = None,
    ) -> CancelState:
        """Note the cancel."""
        del address, seconds
        self.cancels.append((request_id, node_id, epoch, attempt))
        self.cancelled.set()
        return "cancelled"

    async def close(self) -> None:
        """Count it."""
        self.closed += 1

    async def next(self) -> Call:
        """Return the next call that has not been looked at."""
        async with asyncio.timeout(PATIENCE):
            return await self._arrived.get()

    @property
    def waiting(self) -> int:
        """How many calls nobody has looked at."""
        return self._arrived.qsize()


class WatchedDatabase(Database):
    """A database that tells of every turn, and can be away for some of them."""

    away = 0  #: turns that fail before they do anything
    away_after_commit = 0  #: turns that settle, are committed, and whose answer is lost

    def __init__(self, url: Any) -> None:
        super().__init__(url)
        self._turned = asyncio.Event()

    async def engine_write(self, work: Callable[[Tx], T]) -> T:
        """Run it, or be away."""
        try:
            if self.away > 0:
                self.away -= 1
                raise DatabaseAway("away")
            result = await super().engine_write(work)
            if self.away_after_commit > 0 and getattr(result, "settled", None):
                self.away_after_commit -= 1
                raise DatabaseAway("away after the commit")
            return result
        finally:
            self._turned.set()

    async def until(self, work: Callable[[Tx], T]) -> T:
        """Return the first true result of a look, one after every turn."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self._turned.clear()
                if found := await self.read(work):
                    return found
                await self._turned.wait()


@dataclass(slots=True)
class Running:
    """An engine that runs, and the way in."""

    engine: Engine
    intake: Intake
    hints: Hints
    owner: str


@asynccontextmanager
async def running_engine(
    database: Database, transport: ScriptedTransport, **given: Any
) -> AsyncIterator[Running]:
    """Run an engine; keys: those looked for below, each with its default."""
    hints = Hints()
    metrics = given.get("metrics") or Metrics()
    owner = given.get("owner", "an-owner")
    engine = Engine(
        database,
        transport,
        hints,
        Rules(
            lease=Lease(owner=owner, seconds=given.get("lease", 10.0)),
            policy=given.get("policy", RetryPolicy(base=0.01, cap=0.02, probe_cap=0.02)),
            random=Random(1),
            max_per_node=given.get("max_per_node", 8),
            max_batch=given.get("max_batch", 1),
        ),
        Limits(
            max_in_flight=given.get("max_in_flight", 512),
            renew_seconds=given.get("renew", 3.0),
            poll_seconds=given.get("poll", 0.5),
        ),
        metrics,
    )
    engine.start()
    try:
        yield Running(engine, Intake(database, hints.tell, metrics), hints, owner)
    finally:
        for call in transport.calls:
            if not call.answer.done():
                call.answer.cancel()
        await engine.stop()


@dataclass(slots=True)
class Turner:
    """Takes turns by hand and remembers what an engine would."""

    database: Database
    owner: str = "me"
    seconds: float = 10.0
    max_per_node: int = 2
    max_batch: int = 1
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    random: Random | None = None  #: None: the same draws in every turn
    held: dict[int, Held] = field(default_factory=dict)

    async def take(
        self,
        results: Iterable[Result] = (),
        *,
        look_at: Iterable[int] = (),
        now: datetime | None = None,
        **given: Any,
    ) -> Turn:
        """Take a turn, at the database's time or at a given one."""
        landed = list(results)
        for result in landed:
            self._forget(result.delivery)
        request = Request(
            results=landed,
            held=dict(self.held),
            look_at=frozenset(look_at),
            **{"renew": False, "claim": 256, **given},
        )
        rules = Rules(
            lease=Lease(owner=self.owner, seconds=self.seconds),
            policy=self.policy,
            random=self.random or Random(1),
            max_per_node=self.max_per_node,
            max_batch=self.max_batch,
        )
        turn = await self.database.engine_write(
            lambda tx: turns.take(tx if now is None else replace(tx, now=now), request, rules)
        )
        self._remember(turn)
        return turn

    def _forget(self, delivery: Delivery) -> None:
        held = self.held.get(delivery.task.node_id)
        if held is not None:
            left = held.in_flight - {_fence(delivery)}
            self.held[delivery.task.node_id] = replace(held, in_flight=left)

    def _remember(self, turn: Turn) -> None:
        for node_id in turn.gone:
            self.held.pop(node_id, None)
        for node_id, box in turn.held.items():
            known = self.held.get(node_id)
            same = known is not None and known.epoch == box.epoch
            out = known.in_flight if known is not None and same else frozenset()
            self.held[node_id] = Held(box.epoch, box.work_seq, out)
        for delivery in turn.begun:
            held = self.held[delivery.task.node_id]
            self.held[delivery.task.node_id] = replace(
                held, in_flight=held.in_flight | {_fence(delivery)}
            )


def _fence(delivery: Delivery) -> Any:
    return (delivery.task.id, delivery.task.attempts)


def came_back(
    delivery: Delivery, outcome: Outcome = Outcome.SUCCEEDED, message: str = "words"
) -> Result:
    """Make what a delivery brought back."""
    return Result(delivery, Report(outcome=outcome, message=message))
