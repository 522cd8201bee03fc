"""The two floors, each run in a process of its own on the control plane's core.

``client``: the HTTP client the control plane uses, against the same agent, with no store.
``store``: intake and engine on a database, with a transport that answers at once, and no HTTP.

What to run is one JSON argument; what it came to is JSON on standard output.
"""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from random import SystemRandom
from typing import Any, TypeVar

import msgspec
import uvloop
from msgspec import Raw, Struct
from sqlalchemy import make_url

from benchmarks import cores
from edgeplane.dispatch.engine import Engine, Limits
from edgeplane.dispatch.hints import Hints
from edgeplane.dispatch.work import Rules, Turn
from edgeplane.model.clock import new_request_id
from edgeplane.model.nodes import NewNode, NodeStatus
from edgeplane.model.retry import RetryPolicy
from edgeplane.model.tasks import DEFAULT_PRIORITY, NewTask, TaskKind
from edgeplane.services.intake import Intake
from edgeplane.settings import DispatchSettings
from edgeplane.store import mailboxes, nodes
from edgeplane.store.database import Database
from edgeplane.store.mailboxes import Lease
from edgeplane.store.workers import Tx
from edgeplane.swarm.addresses import address_of
from edgeplane.transport.base import Address, Ending, Place
from edgeplane.transport.push import PushTransport
from edgeplane.wire import MAX_BATCH, CancelState, ExecuteReply, ExecuteRequest, payload_digest

T = TypeVar("T")

#: Done before anything is measured: statements are compiled and connections opened once.
WARM_TASKS, WARM_CONCURRENCY = 500, 64

_SECONDS = 31.0
_DEFAULTS = DispatchSettings()
_RULES = Rules(
    lease=Lease(owner="floor", seconds=_DEFAULTS.lease_seconds),
    policy=RetryPolicy(),
    random=SystemRandom(),
    max_per_node=_DEFAULTS.max_per_node,
    max_batch=MAX_BATCH,
)
_LIMITS = Limits(
    max_in_flight=_DEFAULTS.max_in_flight,
    renew_seconds=_DEFAULTS.renew_seconds,
    poll_seconds=_DEFAULTS.poll_seconds,
)


class Client(Struct, frozen=True, kw_only=True, tag=True):
    """The agent to call."""

    port: int
    token: str
    addresses: int  #: 127.0.0.1 and so on, all of them the agent's
    swarm: bool = False  #: they are those of a swarm's agents


class Bare(Struct, frozen=True, kw_only=True, tag=True):
    """The database to use."""

    url: str
    nodes: int


class Run(Struct, frozen=True):
    """How much to do."""

    tasks: int
    concurrency: int
    pause: tuple[float, float] | None = None  #: seconds before each task, for an idle system


class Told(Struct, frozen=True):
    """What it came to, in seconds."""

    seconds: float
    latencies: list[float]


_WARMING = Run(WARM_TASKS, WARM_CONCURRENCY)


def measure(floor: Client | Bare, run: Run) -> Told:
    """Run a floor where the control plane runs."""
    with cores.starting_on(cores.CONTROL):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.floors", msgspec.json.encode((floor, run)).decode()],
            stdout=subprocess.PIPE,
            check=True,
        )
    return msgspec.json.decode(done.stdout, type=Told)


async def _client(floor: Client, run: Run) -> Told:
    transport = PushTransport(floor.token)

    async def deliver(number: int) -> None:
        place = 1 + number % floor.addresses
        ip = address_of(place) if floor.swarm else f"127.0.0.{place}"
        address = Address(ip, floor.port)
        payload = Raw(_payload(number).encode())
        request = ExecuteRequest(new_request_id(), TaskKind.PURGE_CACHE.value, payload)
        reply = await transport.deliver(address, request, _SECONDS)
        if reply.status != "success":
            raise RuntimeError(reply.message)

    try:
        await _repeat(Run(max(WARM_TASKS, floor.addresses), WARM_CONCURRENCY), deliver)
        return await _repeat(run, deliver)
    finally:
        await transport.close()


class _AnswersAtOnce:
    """A transport without a network."""

    def shown(self, address: Place) -> str:
        """Show it as it is."""
        return str(address)

    def committed(self, *_given: object) -> None:
        """Tell nobody."""

    async def deliver(
        self, address: Place, request: ExecuteRequest, seconds: float
    ) -> ExecuteReply:
        """Succeed."""
        del address, seconds
        return ExecuteReply(request.request_id, "success", "Cache purged")

    async def deliver_many(
        self, address: Place, requests: Sequence[ExecuteRequest], seconds: float
    ) -> list[Ending]:
        """Succeed with each."""
        return [await self.deliver(address, request, seconds) for request in requests]

    async def cancel(self, *_given: object, **_options: object) -> CancelState:
        """Come too late."""
        return "done"

    async def close(self) -> None:
        """Nothing is open."""


class _Watched(Database):
    """A database that tells how many tasks were settled, each after the commit."""

    settled = 0
    wanted = 0

    def expect(self, more: int) -> None:
        """Let ``reached`` be set once so many more are settled."""
        self.wanted = self.settled + more
        self.reached = asyncio.Event()

    async def engine_write(self, work: Callable[[Tx], T]) -> T:
        """Run a transaction of the engine and count."""
        result = await super().engine_write(work)
        if isinstance(result, Turn):
            self.settled += len(result.settled)
            if self.settled >= self.wanted:
                self.reached.set()
        return result


async def _store(floor: Bare, run: Run) -> Told:
    database = _Watched(make_url(floor.url))
    hints = Hints()
    engine = Engine(database, _AnswersAtOnce(), hints, _RULES, _LIMITS)
    intake = Intake(database, hints.tell)
    node_ids = await database.write(lambda tx: _nodes(tx, floor.nodes))
    new: list[NewTask] = []

    async def create(number: int) -> None:
        await intake.submit(new[number])

    async def create_all(many: Run) -> Told:
        new[:] = [new_task(number, node_ids) for number in range(many.tasks)]
        database.expect(many.tasks)
        return await _repeat(many, create, database.reached.wait)

    async def create_and_see_through(number: int) -> None:
        database.expect(1)
        await intake.submit(new[number])
        await database.reached.wait()

    engine.start()
    try:
        await create_all(_WARMING)
        if run.pause is None:
            return await create_all(run)
        new[:] = [new_task(number, node_ids) for number in range(run.tasks)]
        return await _repeat(run, create_and_see_through)
    finally:
        await engine.stop()
        await database.close()


async def _repeat(
    run: Run,
    once: Callable[[int], Awaitable[None]],
    finish: Callable[[], Awaitable[Any]] | None = None,
) -> Told:
    """Do it for each task, so many at once, and then what finishes them all."""
    latencies: list[float] = []
    numbers = iter(range(run.tasks))

    async def one_after_the_other() -> None:
        for number in numbers:
            if run.pause is not None:
                await asyncio.sleep(random.uniform(*run.pause))
            began = time.perf_counter()
            await once(number)
            latencies.append(time.perf_counter() - began)

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(run.concurrency)))
    if finish is not None:
        await finish()
    return Told(time.perf_counter() - started, latencies)


def _nodes(tx: Tx, number: int) -> list[int]:
    """Return the nodes' ids; store them where they are not there yet."""
    there = [row[0] for row in tx.conn.exec_driver_sql("SELECT id FROM nodes ORDER BY id")]
    for missing in range(len(there), number):
        node = NewNode(
            name=f"node-{missing}",
            main_ip="127.0.0.1",
            agent_port=9090,
            enabled=True,
            status=NodeStatus.ONLINE,
            sub_ips=(),
        )
        there.append(nodes.add(tx, node))
        mailboxes.add(tx, there[-1])
    return there[:number]


def new_task(number: int, node_ids: list[int]) -> NewTask:
    """Make a purge for one of these nodes."""
    payload = _payload(number)
    return NewTask(
        node_id=node_ids[number % len(node_ids)],
        kind=TaskKind.PURGE_CACHE,
        priority=DEFAULT_PRIORITY,
        payload=payload,
        payload_bytes=len(payload),
        payload_digest=payload_digest(TaskKind.PURGE_CACHE.value, payload.encode()),
        request_id=new_request_id(),
        request_id_given=False,
        timeout_seconds=30,
        max_attempts=5,
        deadline_seconds=86_400,
        created_by="admin",
    )


def _payload(number: int) -> str:
    return f'{{"urls":["https://www.example.com/images/{number}.jpg"]}}'


def main() -> None:
    floor, run = msgspec.json.decode(sys.argv[1], type=tuple[Client | Bare, Run])
    told = uvloop.run(_client(floor, run) if isinstance(floor, Client) else _store(floor, run))
    sys.stdout.buffer.write(msgspec.json.encode(told))


if __name__ == "__main__":
    main()
