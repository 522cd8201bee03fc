"""The stacks: how each is started, asked for work, and where it writes that it is done."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import jwt
import uvloop
from sqlalchemy import make_url

from benchmarks import cores
from benchmarks.load import Door
from benchmarks.peers.environment import WORK, program
from benchmarks.peers.watching import Asked, Rows
from benchmarks.registering import register
from benchmarks.stores import url_of
from edgeplane.store import migrate
from kit.ports import free_port
from kit.processes import AGENT_TOKEN, JWT_SECRET, ControlPlane, Process
from kit.servers import MariaDB, Redis
from kit.swarm import Swarm

CONCURRENCY = 64  #: creates open at once
AGENTS = 64


@dataclass(frozen=True)
class Place:
    """What all stacks share: one database server, one Redis, one swarm of agents."""

    folder: Path
    database: MariaDB
    redis: Redis
    swarm: Swarm


class Loader(Protocol):
    """Asks a running stack for work."""

    process: Process  #: the stack's own, with its children

    def burst(self, count: int) -> None:
        """Ask for so many tasks as fast as that goes."""
        ...

    def paced(self, rate: int, count: int, asked: Asked) -> None:
        """Ask for so many tasks a second, telling of each."""
        ...


@dataclass(frozen=True)
class Stack:
    """One way to have tasks done."""

    title: str
    share: float  #: of the tasks asked of ours, so that each runs for some seconds
    rows: Rows
    running: Callable[[Place, str], AbstractContextManager[Loader]]


class _Rest:
    """Creates over kept-alive connections."""

    def __init__(self, process: Process, door: Door) -> None:
        self.process = process
        self._door = door

    def burst(self, count: int) -> None:
        uvloop.run(self._burst(count))

    def paced(self, rate: int, count: int, asked: Asked) -> None:
        try:
            uvloop.run(self._paced(rate, count, asked))
        finally:
            asked.put(None)

    async def _burst(self, count: int) -> None:
        numbers = iter(range(count))

        async def some() -> None:
            connection = await self._door.connect()
            for number in numbers:
                await self._door.create(connection, number)
            connection.abort()

        await asyncio.gather(*(some() for _ in range(CONCURRENCY)))

    async def _paced(self, rate: int, count: int, asked: Asked) -> None:
        free = [await self._door.connect() for _ in range(CONCURRENCY)]

        async def one(number: int) -> None:
            at = time.monotonic()
            connection = free.pop() if free else await self._door.connect()
            asked.put(((await self._door.create(connection, number)).id, at))
            free.append(connection)

        began = time.monotonic()
        out = []
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            out.append(asyncio.create_task(one(number)))
        await asyncio.gather(*out)
        for connection in free:
            connection.abort()


class _Producer:
    """A process that enqueues as it is told."""

    def __init__(self, worker: Process, producer: "subprocess.Popen[str]") -> None:
        self.process = worker
        self._producer = producer

    def burst(self, count: int) -> None:
        for _ in self._told(f"burst {count}"):
            pass

    def paced(self, rate: int, count: int, asked: Asked) -> None:
        try:
            for key, at in self._told(f"paced {rate} {count}"):
                asked.put((key, at))
        finally:
            asked.put(None)

    def _told(self, order: str) -> Iterator[tuple[str, float]]:
        into, out = self._producer.stdin, self._producer.stdout
        assert into is not None
        assert out is not None
        into.write(f"{order}\n")
        into.flush()
        while (line := out.readline().strip()) != "end":
            if not line:
                raise RuntimeError("the producer ended")
            key, at = line.split()
            yield key, float(at)


@contextmanager
def _edgeplane(place: Place, database: str) -> Iterator[Loader]:
    """Run ours as delivered, on MariaDB and Redis."""
    dsn = place.database.create_database(database)
    migrate.upgrade(make_url(url_of(dsn)))
    ids = register(url_of(dsn), AGENTS, place.swarm.port)
    env = {"MYSQL_DSN": dsn, "REDIS_ADDR": place.redis.address}
    control = ControlPlane(place.folder / database, env)
    try:
        with cores.starting_on(cores.CONTROL):
            control.up()
        yield _Rest(control, Door(control.port, control.token, ids))
    finally:
        control.kill()


@contextmanager
def _typical(place: Place, database: str) -> Iterator[Loader]:
    """Run the usual pipeline."""
    place.database.create_database(database)
    port = free_port()
    options = ["--port", str(port), "--no-access-log", "--loop", "uvloop", "--http", "httptools"]
    command = [program("uvicorn"), "typical:app", *options]
    server = Process(command, _env(place, database, "agent"), WORK)
    try:
        with cores.starting_on(cores.CONTROL):
            server.start()
        server.wait_for("Uvicorn running on")
        token = jwt.encode({"sub": "admin", "exp": time.time() + 3600}, JWT_SECRET, "HS256")
        yield _Rest(server, Door(port, token, list(range(1, AGENTS + 1))))
    finally:
        server.kill()


@contextmanager
def _queue(place: Place, database: str, *, kind: str, job: str) -> Iterator[Loader]:
    """Run a worker of Celery or taskiq, and a process that enqueues."""
    place.database.create_database(database)
    env = _env(place, database, job)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"]
    command = {
        "celery": [program("celery"), "-A", "celery_app", "worker", "-c", "2", *quiet],
        "taskiq": [
            *(program("taskiq"), "worker", "taskiq_app:broker"),
            *("--workers", "1", "--max-async-tasks", str(CONCURRENCY), "--log-level", "ERROR"),
        ],
    }[kind]
    worker = Process(command, env, WORK)
    producer = None
    try:
        with cores.starting_on(cores.CONTROL):
            worker.start()
        producer = subprocess.Popen(
            [program("python"), "produce.py", kind],
            env=env,
            cwd=WORK,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        yield _Producer(worker, producer)
    finally:
        if producer is not None:
            producer.kill()
            producer.communicate()
        _end(worker)


def _end(worker: Process) -> None:
    """Let a worker end its own children, or end it."""
    try:
        worker.stop(20)
    except subprocess.TimeoutExpired:
        worker.kill()


def _env(place: Place, database: str, job: str) -> dict[str, str]:
    return {
        "PATH": f"{Path(program('python')).parent}:/usr/bin:/bin",
        "PEERS_DATABASE": url_of(place.database.dsn(database)).split("//")[1].split("?")[0],
        "PEERS_REDIS": f"redis://{place.redis.address}/0",
        "PEERS_AGENT_PORT": str(place.swarm.port),
        "PEERS_AGENT_TOKEN": AGENT_TOKEN,
        "PEERS_SECRET": JWT_SECRET,
        "PEERS_JOB": job,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


_TASKS = Rows("id", "agent_tasks", "status = 'success'")
_META = Rows("task_id", "celery_taskmeta", "status = 'SUCCESS'")
_RESULTS = Rows("task_id", "results", "status = 'success'")
OURS = "Edgeplane"
STACKS = [
    Stack(OURS, 1.0, _TASKS, _edgeplane),
    Stack("TYPICAL: FastAPI, ORM, httpx", 0.15, _TASKS, _typical),
    Stack("Celery", 0.15, _META, partial(_queue, kind="celery", job="agent")),
    Stack("taskiq", 0.3, _RESULTS, partial(_queue, kind="taskiq", job="agent")),
    Stack("Celery, no agent", 0.15, _META, partial(_queue, kind="celery", job="none")),
    Stack("taskiq, no agent", 0.3, _RESULTS, partial(_queue, kind="taskiq", job="none")),
]
