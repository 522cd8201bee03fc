"""Both journals: one that commits in a thread, many writes at once; one that forgets.

The first tells nobody anything before COMMIT has returned.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final

from edgeplane.agent.journal_file import Standing
from edgeplane.swarm.journal_file import JournalFile
from edgeplane.swarm.records import Asked, Found, Status
from edgeplane.wire import CANCELLED, CancelRequest, CancelState

_MAX_BATCH: Final = 2_000
_KEPT: Final = 1_000_000  #: entries of the journal that is not on disk

_log = logging.getLogger(__name__)
_Work = tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any], None]]


class DurableJournal:
    """A file, and the thread that writes it."""

    def __init__(self, file: JournalFile) -> None:
        """Start the thread; to be called with the event loop running."""
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[_Work | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="journal", daemon=True)
        self._thread.start()

    def begin(self, asked: Asked, then: Callable[[Found | None], None]) -> None:
        """See ``Journal``."""
        self._waiting.put((self._file.begin, (asked,), then))

    def finish(
        self,
        asked: Asked,
        attempt: int,
        status: Status,
        message: str,
        then: Callable[[bool | None], None],
    ) -> None:
        """See ``Journal``."""
        self._waiting.put((self._file.finish, (asked, attempt, status, message), then))

    def cancel(
        self, agent: int, order: CancelRequest, then: Callable[[CancelState | None], None]
    ) -> None:
        """See ``Journal``."""
        self._waiting.put((self._file.cancel, (agent, order), then))

    def raise_epoch(
        self, agent: int, node_id: int, epoch: int, then: Callable[[bool | None], None]
    ) -> None:
        """See ``Journal``."""
        self._waiting.put((self._file.raise_epoch, (agent, node_id, epoch), then))

    def epochs(self, agent: int) -> dict[int, int]:
        """See ``Journal``."""
        nodes = self._file.nodes.get(agent, {}).copy()
        return {node_id: epoch for node_id, (epoch, _) in nodes.items()}

    def entries(self, agent: int) -> int:
        """See ``Journal``."""
        return self._file.entries.get(agent, 0)

    def bytes_on_disk(self) -> int:
        """See ``Journal``."""
        return self._file.bytes_on_disk()

    def close(self) -> None:
        """See ``Journal``."""
        self._waiting.put(None)
        self._thread.join()

    def _serve(self) -> None:
        """Commit batch after batch until told to end; the thread's whole life."""
        ending = False
        while not ending:
            batch, ending = self._take()
            if batch:
                results = self._commit(batch)
                self._loop.call_soon_threadsafe(_tell, batch, results)
        self._file.close()

    def _take(self) -> tuple[list[_Work], bool]:
        """Wait for one write, and take all that are there; say whether the end was asked for."""
        batch: list[_Work] = []
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

    def _commit(self, batch: list[_Work]) -> list[Any] | None:
        """Return the results, durable; None if they could not be made so."""
        try:
            self._file.start()
            results = [work(*arguments) for work, arguments, _ in batch]
            self._file.commit()
        except (sqlite3.Error, OSError) as error:
            _log.error("journal cannot be written: %s", error)
            self._file.rollback()
            return None
        return results


class ForgetfulJournal:
    """A journal in memory, for measuring a transport: it keeps what was asked last."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], tuple[bytes, int, Status | None, str]] = {}

    def begin(self, asked: Asked, then: Callable[[Found | None], None]) -> None:
        """See ``Journal``; generations are not followed."""
        then(self._found(asked))

    def finish(
        self,
        asked: Asked,
        attempt: int,
        status: Status,
        message: str,
        then: Callable[[bool | None], None],
    ) -> None:
        """See ``Journal``."""
        self._known[asked.agent, asked.request_id] = asked.digest, attempt, status, message
        then(True)

    def cancel(
        self, agent: int, order: CancelRequest, then: Callable[[CancelState | None], None]
    ) -> None:
        """Tell how it stands, and keep nothing."""
        known = self._known.get((agent, order.request_id))
        if known is None or known[2] is None:
            then("unknown")
        else:
            then("cancelled" if known[3] == CANCELLED else "done")

    def raise_epoch(
        self, agent: int, node_id: int, epoch: int, then: Callable[[bool | None], None]
    ) -> None:
        """Keep nothing."""
        del agent, node_id, epoch
        then(True)

    def epochs(self, agent: int) -> dict[int, int]:
        """Know none."""
        del agent
        return {}

    def entries(self, agent: int) -> int:
        """Count those of the agent."""
        return sum(1 for key in self._known if key[0] == agent)

    def bytes_on_disk(self) -> int:
        """Take none."""
        return 0

    def close(self) -> None:
        """Nothing waits."""

    def _found(self, asked: Asked) -> Found:
        key = asked.agent, asked.request_id
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[key] = asked.digest, asked.attempt, None, ""
            return Found(Standing.NEW)
        digest, attempt, status, message = known
        if digest != asked.digest:
            return Found(Standing.DIFFERENT)
        if status == "success" or (status and asked.attempt <= attempt):
            return Found(Standing.ANSWERED, status, message)
        self._known[key] = asked.digest, max(attempt, asked.attempt), None, ""
        return Found(Standing.NEW if status else Standing.INTERRUPTED)


def _tell(batch: list[_Work], results: list[Any] | None) -> None:
    """Call whoever waits; on the event loop."""
    for index, (_, _, then) in enumerate(batch):
        then(None if results is None else results[index])
