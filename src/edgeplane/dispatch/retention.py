"""Retention: what is finished is removed when its time is over, a little at a time.

Only one replica does it: deleting the same rows twice at once would harm nobody, but cost twice
what it may. A leader row says who, and each write names its term (``store.leaders``). A lock of
the database's own (``GET_LOCK``) would do on one server; on a cluster it is local to one of its
nodes, and it needs a connection that is held for as long as the sweep takes.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import TypeVar

from edgeplane.model.errors import DatabaseAway
from edgeplane.model.tasks import TaskKind, TaskStatus
from edgeplane.observe.metrics import Metrics
from edgeplane.settings import RetentionSettings
from edgeplane.store import leaders, removal
from edgeplane.store.database import Database
from edgeplane.store.removal import Found, Walk
from edgeplane.store.workers import Tx

T = TypeVar("T")

log = logging.getLogger(__name__)

DUTY = "retention"
SWEEP_SECONDS = 3600.0  #: from the end of a sweep to the next
LOOK_SECONDS = 60.0  #: how often each replica looks whether a sweep is due
TERM_SECONDS = 300.0  #: a leader that died in its sweep is followed after this long
SHARE = 0.1  #: of its time a sweep may spend in transactions
LEAST_PAUSE_SECONDS = 0.05

_OPEN = frozenset({TaskStatus.PENDING, TaskStatus.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A further table with rows to be removed by age alone.

    ``prune`` removes up to so many rows older than a time, in a transaction, and returns how many.
    """

    table: str
    days: int  #: 0: kept for ever
    prune: Callable[[Tx, datetime, int], int]


class _Overtaken(Exception):
    """Another replica leads now."""


class Retention:
    """Sweeps now and then; started and stopped once."""

    def __init__(
        self,
        database: Database,
        keep: RetentionSettings,
        owner: str,
        metrics: Metrics | None = None,
        also: Sequence[Pruned] = (),
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pause = pause
        self._database = database
        self._keep = keep
        self._also = also
        self._owner = owner
        metrics = metrics or Metrics()
        removed = metrics.counter("edgeplane_rows_removed_total")
        tables = ("agent_tasks", "task_attempts", *(each.table for each in also))
        self._removed = {table: removed.labels(table) for table in tables}
        self._seconds = metrics.histogram("edgeplane_removal_seconds")
        self._failed = metrics.counter("edgeplane_removals_failed_total")
        self._jitter = Random()  # noqa: S311 (spreads looks, guards nothing)
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start looking; once."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._supervise(), name="retention")

    async def stop(self) -> None:
        """Stop between two transactions; what was not removed is at the next sweep."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop

    async def _supervise(self) -> None:
        """Keep looking whatever goes wrong; that is told, and the next look comes."""
        while True:
            await asyncio.sleep(LOOK_SECONDS * self._jitter.uniform(0.5, 1.5))
            try:
                await self.look()
            except DatabaseAway:
                self._failed.inc()
            except Exception:
                self._failed.inc()
                log.exception("removing what is over broke off; going on later")

    async def look(self) -> int:
        """Sweep if one is due and nobody else does; return how many tasks were removed."""
        if not await self._database.read(_is_due):
            return 0
        term = await self._database.write(
            lambda tx: leaders.take(tx, DUTY, self._owner, TERM_SECONDS)
        )
        if term is None:
            return 0
        try:
            return await self._sweep(term)
        except _Overtaken:
            log.warning("another replica removes what is over: leaving it to that one")
            return 0

    async def _sweep(self, term: int) -> int:
        now = await self._database.read(lambda tx: tx.now)
        removed = 0
        for walk in self._walks(now):
            removed += await self._walk(walk, term)
        for pruned in self._also:
            if pruned.days:
                await self._prune(pruned, now - timedelta(days=pruned.days), term)
        await self._database.write(
            lambda tx: leaders.lay_down(tx, DUTY, self._owner, term, SWEEP_SECONDS)
        )
        if removed:
            log.info("tasks removed because their time was over: %d", removed)
        return removed

    def _walks(self, now: datetime) -> list[Walk]:
        days = {
            status: self._keep.success_days
            if status is TaskStatus.SUCCESS
            else self._keep.failed_days
            for status in TaskStatus
            if status not in _OPEN
        }
        return [
            Walk(kind=kind, status=status, before=now - timedelta(days=number))
            for status, number in days.items()
            for kind in TaskKind
            if number
        ]

    async def _walk(self, walk: Walk, term: int) -> int:
        removed = 0
        last: int | None = 0
        while last is not None:
            begun = time.monotonic()
            found = await self._look(walk, last)
            removed += await self._remove(walk, found.ids, term)
            last = found.last
            await self._rest(time.monotonic() - begun)
        return removed

    async def _look(self, walk: Walk, last: int) -> Found:
        return await self._database.read(lambda tx: removal.look(tx, walk, last))

    async def _remove(self, walk: Walk, ids: list[int], term: int) -> int:
        if not ids:
            return 0
        tasks, attempts = await self._write(term, lambda tx: removal.remove(tx, walk, ids))
        self._removed["agent_tasks"].inc(tasks)
        self._removed["task_attempts"].inc(attempts)
        return tasks

    async def _prune(self, pruned: Pruned, before: datetime, term: int) -> None:
        number = removal.MAX_ROWS
        while number == removal.MAX_ROWS:
            begun = time.monotonic()
            number = await self._write(term, lambda tx: pruned.prune(tx, before, removal.MAX_ROWS))
            self._removed[pruned.table].inc(number)
            await self._rest(time.monotonic() - begun)

    async def _write(self, term: int, work: Callable[[Tx], T]) -> T:
        """Remove in a transaction that holds the leader's row under this term."""

        def led(tx: Tx) -> T:
            if not leaders.hold(tx, DUTY, self._owner, term, TERM_SECONDS):
                raise _Overtaken
            return work(tx)

        begun = time.monotonic()
        result = await self._database.write(led)
        self._seconds.observe(time.monotonic() - begun)
        return result

    async def _rest(self, took: float) -> None:
        """Leave the database to others for most of the time."""
        least = max(LEAST_PAUSE_SECONDS, took * (1 / SHARE - 1))
        await self._pause(least * self._jitter.uniform(1.0, 1.5))


def _is_due(tx: Tx) -> bool:
    due = leaders.due_at(tx, DUTY)
    return due is None or due <= tx.now
