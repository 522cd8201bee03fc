"""The load: creates over kept-alive connections, and the wait until their success is committed."""

import asyncio
import random
import time
from dataclasses import dataclass

import msgspec

from benchmarks.stores import View
from edgeplane.http1.outgoing import Connection

POLL_SECONDS = 0.005  #: between looks at the table under load
IDLE_POLL_SECONDS = 0.0002  #: and at one task's row on an idle system
PAUSE_SECONDS = (0.005, 0.015)  #: before each task on an idle system
_PATIENCE_SECONDS = 60.0
_MAX_BODY = 1 << 20


class Created(msgspec.Struct, rename="camel"):
    """A task as it was accepted."""

    id: int
    request_id: str


class _Envelope(msgspec.Struct):
    code: int
    message: str
    data: Created | None


_decoder = msgspec.json.Decoder(_Envelope)


@dataclass(frozen=True)
class Door:
    """Where tasks are asked for."""

    port: int
    token: str
    node_ids: list[int]

    async def connect(self) -> Connection:
        """Open a connection."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(
            lambda: Connection(_MAX_BODY), "127.0.0.1", self.port
        )
        return made

    async def create(self, connection: Connection, number: int, request_id: str = "") -> Created:
        """Ask for a purge, under a request id of ours maybe; return it once it is accepted."""
        answer = await connection.send(self._message(number, request_id), _PATIENCE_SECONDS)
        told = _decoder.decode(answer.body)
        if told.data is None:
            raise RuntimeError(f"create was answered with {answer.status}: {told.message}")
        return told.data

    def _message(self, number: int, request_id: str) -> bytes:
        node_id = self.node_ids[number % len(self.node_ids)]
        url = f"https://www.example.com/images/{number}.jpg"
        named = f'"requestId":"{request_id}",' if request_id else ""
        body = f'{{{named}"nodeId":{node_id},"type":"purge_cache","payload":{{"urls":["{url}"]}}}}'
        return (
            "POST /api/v1/agent-tasks/create HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


@dataclass(frozen=True)
class Loaded:
    """What a run of creates came to."""

    seconds: float  #: from the first POST until the last success was committed
    first_id: int
    create_seconds: list[float]  #: from each POST to its answer
    accepted: dict[str, float]  #: when each answer was there, by request id; monotonic


async def run(door: Door, view: View, tasks: int, concurrency: int) -> Loaded:
    """Ask for tasks, so many at once; wait until all of them have succeeded."""
    ids: list[int] = []
    latencies: list[float] = []
    accepted: dict[str, float] = {}
    numbers = iter(range(tasks))
    connections = [await door.connect() for _ in range(concurrency)]

    async def ask(connection: Connection) -> None:
        for number in numbers:
            sent = time.monotonic()
            made = await door.create(connection, number)
            accepted[made.request_id] = time.monotonic()
            latencies.append(accepted[made.request_id] - sent)
            ids.append(made.id)

    started = time.perf_counter()
    await asyncio.gather(*map(ask, connections))
    await _all_succeeded(view, min(ids))
    ended = time.perf_counter()
    for connection in connections:
        connection.abort()
    return Loaded(ended - started, min(ids), latencies, accepted)


async def idle(door: Door, view: View, tasks: int) -> tuple[list[float], list[float]]:
    """Ask for tasks one by one; return seconds to the answer, and to the committed success."""
    connection = await door.connect()
    answered, succeeded = [], []
    for number in range(tasks):
        await asyncio.sleep(random.uniform(*PAUSE_SECONDS))
        sent = time.perf_counter()
        task_id = (await door.create(connection, number)).id
        answered.append(time.perf_counter() - sent)
        while not view.succeeded(task_id):
            # Nothing else is to be done by this process meanwhile.
            time.sleep(IDLE_POLL_SECONDS)  # noqa: ASYNC251
            if time.perf_counter() - sent > _PATIENCE_SECONDS:
                raise RuntimeError(f"task {task_id} has not succeeded")
        succeeded.append(time.perf_counter() - sent)
    connection.abort()
    return answered, succeeded


async def _all_succeeded(view: View, since: int) -> None:
    end = time.perf_counter() + _PATIENCE_SECONDS
    left = view.first_open(since)
    while left is not None:
        if time.perf_counter() > end:
            raise RuntimeError(f"task {left} has not succeeded in {_PATIENCE_SECONDS:g} s")
        await asyncio.sleep(POLL_SECONDS)
        left = view.first_open(left)
