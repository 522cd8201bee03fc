"""The feed: one reader of the events for all who follow along in this process.

It reads while somebody listens, woken by this process's own commits and once a second for those of
others, and hands each event on in the order of ids (``store.events`` has the rule by which none is
passed over). Nothing waits for a follower: one that does not keep up is ended, and goes on from the
last id it has seen.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from edgeplane.model.errors import DatabaseError, TooMany
from edgeplane.model.events import Event
from edgeplane.store import events
from edgeplane.store.database import Database

log = logging.getLogger(__name__)

MAX_STREAMS = 256  #: followers at the same time
MAX_WAITING = 1000  #: events that may wait for one of them
POLL_SECONDS = 1.0  #: for what others commit
_HOLE_SECONDS = 0.1  #: between looks at a hole
_SPACING_SECONDS = 0.02  #: between reads under load
_RETRY_AFTER = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events a follower wants; None: all."""

    task_id: int | None = None
    node_id: int | None = None
    operation_id: int | None = None  #: its own events, and those of its tasks

    def of(self, found: Sequence[Event]) -> list[Event]:
        """Return those that are wanted."""
        return [
            event
            for event in found
            if (self.task_id is None or event.task_id == self.task_id)
            and (self.node_id is None or event.node_id == self.node_id)
            and (self.operation_id is None or event.operation_id == self.operation_id)
        ]


class Stream:
    """One follower's place: first what it missed, then what comes."""

    def __init__(self, database: Database, wanted: Wanted, position: int, joined_at: int) -> None:
        self.position = position  #: all that is wanted up to here has been read
        self.missed = False  #: events between its last id and here are gone
        self.ended: str | None = None  #: why nothing more will come
        self._database = database
        self._wanted = wanted
        self._joined_at = joined_at  #: up to here it reads for itself
        self._offered = max(position, joined_at)
        self._waiting: deque[Event] = deque()
        self._news = asyncio.Event()

    def offer(self, found: Sequence[Event]) -> None:
        """Take what the feed has read; end where too much is waiting already."""
        fresh = self._wanted.of([event for event in found if event.id > self._offered])
        self._offered = max(self._offered, found[-1].id)
        if len(self._waiting) + len(fresh) > MAX_WAITING:
            self.end("too slow")
            return
        self._waiting.extend(fresh)
        self._news.set()

    def end(self, why: str) -> None:
        """Let nothing more come."""
        self.ended = self.ended or why
        self._waiting.clear()
        self._news.set()

    async def read(self, seconds: float) -> list[Event]:
        """Return what comes next, oldest first; nothing when time is up or the stream has ended.

        Raises:
            DatabaseError: what was missed cannot be read.

        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.ended is None:
                    found = await self._catch_up() if self._behind else self._take()
                    if found:
                        return found
                    if not self._behind:
                        await self._news.wait()
        return []

    @property
    def _behind(self) -> bool:
        return self.position < self._joined_at

    async def _catch_up(self) -> list[Event]:
        last = self.position
        found = await self._database.read(lambda tx: events.behind(tx, last))
        found = [event for event in found if event.id <= self._joined_at]
        self.position = found[-1].id if found else self._joined_at
        return self._wanted.of(found)

    def _take(self) -> list[Event]:
        found = list(self._waiting)
        self._waiting.clear()
        self._news.clear()
        self.position = self._offered
        return found


class Feed:
    """All streams of a process, and the one loop that feeds them while there are any."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._streams: set[Stream] = set()
        self._news = asyncio.Event()
        self._holes = events.Holes()
        self._position = 0
        self._opening = asyncio.Lock()
        self._loop: asyncio.Task[None] | None = None
        self._closed = False
        database.on_commit = self._news.set

    async def open(self, wanted: Wanted, last: int | None) -> Stream:
        """Let somebody follow: from behind the event ``last``, or (None) from now on.

        Raises:
            TooMany: as many follow already as may.
            DatabaseError: the events cannot be read.

        """
        async with self._opening:
            self._check_room()
            if self._loop is None:
                self._position = await self._now()
            first, newest = await self._database.read(events.bounds)
            self._check_room()
            stream = self._place(wanted, last, first, max(newest, self._position))
            self._streams.add(stream)
            if self._loop is None:
                self._loop = asyncio.create_task(self._run(), name="feed")
            return stream

    def close(self, stream: Stream) -> None:
        """Let a follower go."""
        stream.end("closed")
        self._streams.discard(stream)
        self._news.set()

    def end_all(self) -> None:
        """End all streams, as the process stops; nobody may follow any more."""
        self._closed = True
        for stream in self._streams:
            stream.end("the control plane stops")
        self._streams.clear()
        self._news.set()

    async def stop(self) -> None:
        """End all streams and the loop."""
        self.end_all()
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    def _check_room(self) -> None:
        if self._closed:
            raise TooMany("the control plane stops: come back later", retry_after=_RETRY_AFTER)
        if len(self._streams) >= MAX_STREAMS:
            raise TooMany(f"{MAX_STREAMS} streams are open already", retry_after=_RETRY_AFTER)

    def _place(self, wanted: Wanted, last: int | None, first: int, newest: int) -> Stream:
        """Put a follower where it was; one that comes from another database begins anew."""
        if last is None or last > newest:
            stream = Stream(self._database, wanted, self._position, self._position)
            stream.missed = last is not None
        else:
            stream = Stream(self._database, wanted, last, self._position)
            stream.missed = first > last + 1
        return stream

    async def _now(self) -> int:
        """Return a position before which nothing can come any more."""
        self._holes = events.Holes()
        now, recent = await self._database.read(lambda tx: (tx.now, events.newest(tx)))
        if not recent:
            return 0
        first, last = recent[0].id, recent[-1].id
        peeked = await self._database.peek(lambda tx: events.ids_between(tx, first, last))
        return events.start_of(recent, peeked, now)

    async def _run(self) -> None:
        try:
            while self._streams:
                self._news.clear()
                pause = await self._step()
                await asyncio.sleep(_SPACING_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._news.wait()
        finally:
            self._loop = None

    async def _step(self) -> float:
        """Read once and hand on; return how long to wait for news."""
        try:
            found = await self._read()
        except DatabaseError:  # the store has told
            return POLL_SECONDS
        except Exception:
            log.exception("the events could not be read; going on")
            return POLL_SECONDS
        if found:
            self._position = found[-1].id
            for stream in list(self._streams):
                stream.offer(found)
                if stream.ended is not None:
                    self._streams.discard(stream)
        if len(found) >= events.WINDOW:
            return 0.0
        return _HOLE_SECONDS if self._holes.since else POLL_SECONDS

    async def _read(self) -> list[Event]:
        """Read what is next and may be passed."""
        last = self._position
        found = await self._database.read(lambda tx: events.behind(tx, last))
        now = time.monotonic()
        sure = self._holes.before_first(last, found, now)
        if sure or not found or not self._holes.old(now):
            return found[:sure]
        until = found[-1].id
        peeked = await self._database.peek(lambda tx: events.ids_between(tx, last, until))
        unseen = peeked - {event.id for event in found}
        return found[: self._holes.passable(found, unseen, now)]
