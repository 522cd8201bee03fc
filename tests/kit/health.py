"""Looks after the health of nodes, driven by hand: agents that answer as told, a clock."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from edgeplane.dispatch.health import Health
from edgeplane.dispatch.sightings import Sightings
from edgeplane.model.clock import utc_now
from edgeplane.model.errors import DatabaseAway
from edgeplane.observe.metrics import Metrics
from edgeplane.store import node_health, nodes
from edgeplane.store.database import Database
from edgeplane.store.workers import Tx
from edgeplane.transport.base import Address, TransportError, Unreachable

T = TypeVar("T")

INTERVAL = 30.0
REFUSED = "agent unreachable: connect to 127.0.0.1:9090: connection refused"


class ClockedDatabase(Database):
    """A database whose time, for whoever looks after health, is what the test says."""

    def __init__(self, url: Any) -> None:
        super().__init__(url)
        self.now: datetime = utc_now() + timedelta(seconds=60)  # behind all the test will store
        self.away = 0  #: steps that fail before they do anything
        self.steps = 0

    def later(self, seconds: float) -> datetime:
        """Move the time on; return it."""
        self.now += timedelta(seconds=seconds)
        return self.now

    async def step(self, work: Callable[[Tx], T]) -> T:
        """Run it at this time."""
        self.steps += 1
        if self.away > 0:
            self.away -= 1
            raise DatabaseAway("away")
        return await super().step(lambda tx: work(replace(tx, now=self.now)))

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Run it at this time."""
        return await super().read(lambda tx: work(replace(tx, now=self.now)))


class Answering:
    """A transport to agents that answer well, unless told otherwise by address."""

    def __init__(self) -> None:
        self.asked: list[Address] = []
        self.errors: dict[str, TransportError | Exception] = {}  #: by IP
        self.hold: asyncio.Event | None = None  #: answers wait for it
        self.arrived = asyncio.Condition()
        self.out = self.most_out = 0

    def refuse(self, ip: str = "127.0.0.1") -> None:
        """Let nobody listen there."""
        self.errors[ip] = Unreachable(REFUSED)

    async def until_out(self, number: int) -> None:
        """Wait until so many are being asked."""
        async with asyncio.timeout(15), self.arrived:
            await self.arrived.wait_for(lambda: self.out >= number)

    async def health(self, address: Address, seconds: float) -> None:
        """Note who is asked, and answer."""
        assert seconds > 0
        self.asked.append(address)
        self.out += 1
        self.most_out = max(self.most_out, self.out)
        async with self.arrived:
            self.arrived.notify_all()
        try:
            if self.hold is not None:
                await self.hold.wait()
        finally:
            self.out -= 1
        if address.ip in self.errors:
            raise self.errors[address.ip]


@dataclass(slots=True)
class Looker:
    """Looks by hand, and sees what has become of nodes."""

    database: ClockedDatabase
    transport: Answering = field(default_factory=Answering)
    seconds: float = INTERVAL
    told: list[int] = field(default_factory=list)
    sightings: Sightings = field(default_factory=Sightings)
    metrics: Metrics = field(default_factory=Metrics)
    health: Health = field(init=False)

    def __post_init__(self) -> None:
        self.health = Health(
            self.database,
            self.transport,
            self.sightings,
            self.told.extend,
            self.seconds,
            self.metrics,
        )

    async def look(self, after: float = 0.0) -> int:
        """Move the time on, look, let all answer, and write it; return how many were asked."""
        self.database.later(after)
        before = len(self.transport.asked)
        await self.health.look()
        await self.health.answered()
        await self.health.look()
        return len(self.transport.asked) - before

    async def node(self, node_id: int) -> Any:
        """Return a node as it stands."""
        return await self.database.read(lambda tx: nodes.get(tx, node_id))

    async def check(self, node_id: int) -> node_health.Check:
        """Return a node's row."""
        held = await self.database.step(lambda tx: node_health.hold(tx, [node_id]))
        return held[node_id]

    def counted(self, outcome: str) -> float:
        """Return how many probes came to this."""
        counter = self.metrics.counter("edgeplane_health_probes_total")
        return float(counter.labels(outcome)._value.get())
