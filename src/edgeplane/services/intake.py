"""Creates that share commits: what arrives while one commit is under way goes into the next."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable

from edgeplane.model.errors import DomainError, TooMany
from edgeplane.model.tasks import NewTask, Task
from edgeplane.observe.crashpoints import crash_point
from edgeplane.observe.metrics import Metrics
from edgeplane.services import tasks
from edgeplane.store.database import Database

MAX_BATCH = 128  #: tasks in one transaction
MAX_BATCH_BYTES = 4 << 20  #: of payload; a statement must fit the server's packet limit
MAX_WAITING = 4096  #: tasks that may wait for a commit
MAX_WAITING_BYTES = 64 << 20  #: and of payload


class Intake:
    """Takes tasks in, each answered after the commit that stored it."""

    def __init__(
        self,
        database: Database,
        tell: Callable[[Iterable[int]], None],
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._tell = tell
        self._waiting: deque[tuple[NewTask, asyncio.Future[Task]]] = deque()
        self._waiting_bytes = 0
        self._storing: asyncio.Task[None] | None = None
        metrics = metrics or Metrics()
        metrics.follow("edgeplane_intake_waiting_tasks", lambda: len(self._waiting))
        self._batch_tasks = metrics.histogram("edgeplane_create_batch_tasks")
        self._commit_seconds = metrics.histogram("edgeplane_create_commit_seconds")

    async def submit(self, asked: NewTask) -> Task:
        """Store a task and return it.

        Raises:
            NotFound, WrongState: its node is not there, or takes no tasks.
            AlreadyExists: its request id stands for something else.
            TooMany: more is waiting to be stored than can be promised.
            DatabaseError: it was not stored, or (DatabaseAway) that is not known.

        """
        full = len(self._waiting) >= MAX_WAITING
        if full or self._waiting_bytes + asked.payload_bytes > MAX_WAITING_BYTES:
            raise TooMany("too many tasks are waiting to be stored", retry_after=1)
        future: asyncio.Future[Task] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        self._waiting_bytes += asked.payload_bytes
        if self._storing is None:
            self._storing = asyncio.create_task(self._store(), name="intake")
        try:
            return await future
        finally:
            # What it raises holds this frame, and with it the payload: not in a circle, please.
            del future

    async def _store(self) -> None:
        try:
            while self._waiting:
                await self._store_batch(self._next_batch())
        finally:
            self._storing = None

    def _next_batch(self) -> list[tuple[NewTask, "asyncio.Future[Task]"]]:
        batch: list[tuple[NewTask, asyncio.Future[Task]]] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH:
            size += self._waiting[0][0].payload_bytes
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
            self._waiting_bytes -= batch[-1][0].payload_bytes
        return batch

    async def _store_batch(self, batch: list[tuple[NewTask, "asyncio.Future[Task]"]]) -> None:
        asked = [task for task, _ in batch]
        begun = time.monotonic()
        try:
            answers = await self._database.create(lambda tx: tasks.create_many(tx, asked))
        except Exception as error:  # noqa: BLE001 (each caller gets it)
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        crash_point("create.after_commit")
        self._commit_seconds.observe(time.monotonic() - begun)
        self._batch_tasks.observe(len(batch))
        self._tell({task.node_id for task in asked})
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, DomainError):
                future.set_exception(answer)
            else:
                future.set_result(answer)
