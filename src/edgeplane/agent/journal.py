"""The journal as the event loop sees it: awaitable, and many entries to one commit.

A thread takes whatever has gathered while the last commit was under way, writes it in one
transaction and wakes the loop once. Nobody is told anything before COMMIT has returned. If it does
not return, everyone in it is told so, and nothing of it counts.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from edgeplane.agent.highest import Highest
from edgeplane.agent.journal_file import Asked, Found, JournalFile
from edgeplane.model.errors import DatabaseError
from edgeplane.wire import CancelRequest, CancelState

CLOSE_SECONDS: Final = 5.0  #: a disk that hangs longer does not keep the process

_MAX_BATCH: Final = 512

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Write = tuple[Callable[[JournalFile], Any], asyncio.Future[Any]]


class Journal:
    """Begins and endings, each on disk when its awaiting returns.

    Every method that writes raises DatabaseError when the entry could not be made durable.
    """

    def __init__(self, file: JournalFile) -> None:
        """Start the thread; to be called with the event loop running."""
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[_Write | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="journal", daemon=True)
        self._thread.start()

    @property
    def epochs(self) -> Highest:
        """The highest epochs on record; not to be changed."""
        return self._file.epochs.committed

    @property
    def entries(self) -> int:
        """How many requests are on record."""
        return self._file.entries

    def bytes_on_disk(self) -> int:
        """Return how much room the record takes."""
        return self._file.bytes_on_disk()

    async def begin(self, asked: Asked) -> Found:
        """Look a request up and, if it is to be carried out, enter it as begun."""
        return await self._write(lambda file: file.begin(asked))

    async def finish(self, request_id: str, attempt: int, status: str, message: str) -> None:
        """Enter how a begun request ended."""
        await self._write(lambda file: file.finish(request_id, attempt, status, message))

    async def cancel(self, order: CancelRequest) -> CancelState:
        """Enter that a request that does not run is to have no effect; say how it stands."""
        return await self._write(lambda file: file.cancel(order))

    async def raise_epoch(self, epoch: int, node_id: int) -> None:
        """Remember the highest epoch seen of a node."""
        await self._write(lambda file: file.epochs.raise_to(epoch, node_id))

    async def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Write what is waiting, then close the file; say whether that was done within the time."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    async def _write(self, work: Callable[[JournalFile], _T]) -> _T:
        if self._closed:
            raise DatabaseError("journal cannot be written: the agent is stopping")
        written: asyncio.Future[_T] = self._loop.create_future()
        self._waiting.put((work, written))
        return await written

    def _serve(self) -> None:
        """Commit batch after batch until told to end; the thread's whole life."""
        ending = False
        while not ending:
            batch, ending = self._take()
            if batch:
                results = self._commit([work for work, _ in batch])
                futures = [future for _, future in batch]
                self._loop.call_soon_threadsafe(_settle, futures, results)
        self._file.close()

    def _take(self) -> tuple[list[_Write], bool]:
        """Wait for one entry, and take all that are there; say whether the end was asked for."""
        batch: list[_Write] = []
        item = self._waiting.get()
        while item is not None:
            batch.append(item)
            if len(batch) == _MAX_BATCH:
                return batch, False
            try:
                item = self._waiting.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _commit(self, works: Sequence[Callable[[JournalFile], Any]]) -> list[Any] | None:
        """Return the results, durable; None if they could not be made so."""
        try:
            self._file.start()
            results = [work(self._file) for work in works]
            self._file.prune()
            self._file.commit()
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever a disk can do
            known = isinstance(error, sqlite3.Error | OSError)
            _log.error("journal cannot be written: %s", error, exc_info=not known)
            self._undo()
            return None
        return results

    def _undo(self) -> None:
        try:
            self._file.rollback()
        except sqlite3.Error as error:
            _log.error("journal cannot be rolled back: %s", error)


def _settle(futures: Sequence[asyncio.Future[Any]], results: Sequence[Any] | None) -> None:
    """Wake whoever waits; on the event loop."""
    for index, future in enumerate(futures):
        if future.done():
            continue
        if results is None:
            future.set_exception(DatabaseError("journal cannot be written"))
        else:
            future.set_result(results[index])
