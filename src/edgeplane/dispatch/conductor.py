"""The conductor: takes the steps of operations that are due, one transaction each.

Every replica runs one. A step is claimed before it is taken, so that two do not make the same
tasks; a claim lapses like a lease, and then the step is simply due again.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from random import Random

from edgeplane.dispatch import steps
from edgeplane.dispatch.meters import StepMeters
from edgeplane.dispatch.steps import Overtaken, Stepped
from edgeplane.model.errors import DatabaseAway
from edgeplane.observe.crashpoints import crash_point
from edgeplane.observe.metrics import Metrics
from edgeplane.store import operation_steps
from edgeplane.store.database import Database
from edgeplane.store.mailboxes import Lease

log = logging.getLogger(__name__)


class Conductor:
    """Steps on with operations; started and stopped once."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        tell: Callable[[Iterable[int]], None],
        poll_seconds: float,
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._lease = lease
        self._tell = tell
        self._poll_seconds = poll_seconds
        self._meters = StepMeters(metrics or Metrics())
        self._event = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._jitter = Random()  # noqa: S311 (spreads polls, guards nothing)

    def start(self) -> None:
        """Start the loop; once."""
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._supervise(), name="conductor")

    async def stop(self) -> None:
        """End the loop; a step that is under way is committed or not, and somebody goes on."""
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)

    def call(self) -> None:
        """Say that an operation calls for a step; may be called from the event loop only."""
        self._event.set()

    async def _supervise(self) -> None:
        while True:
            self._event.clear()
            try:
                while await self._step():
                    pass
            except DatabaseAway:
                self._meters.failed("away")
            except Exception:
                self._meters.failed("unexpected")
                # Its claim lapses: it is taken again then, and the other operations go on.
                log.exception("a step of an operation failed; going on")
            await self._wait()

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._poll_seconds * self._jitter.uniform(0.8, 1.2)):
                await self._event.wait()

    async def _step(self) -> bool:
        """Take one step of whatever is due; return whether anything was."""
        claimed = await self._database.step(lambda tx: operation_steps.claim(tx, self._lease))
        if claimed is None:
            return False
        crash_point("fanout.claimed")
        operation_id, epoch = claimed
        begun = time.monotonic()
        try:
            stepped = await self._database.step(lambda tx: steps.take(tx, operation_id, epoch))
        except Overtaken:
            await self._database.step(
                lambda tx: operation_steps.release(tx, operation_id, epoch, again=True)
            )
            return True
        self._meters.step(stepped, time.monotonic() - begun)
        self._tell_of(stepped)
        return True

    def _tell_of(self, stepped: Stepped) -> None:
        crash_point("fanout.after_commit")
        if stepped.nodes:
            self._tell(stepped.nodes)
