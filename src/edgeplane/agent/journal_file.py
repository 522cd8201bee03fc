"""The journal on disk: one SQLite file that says what was asked, begun and done.

Everything here is synchronous and for one thread at a time; ``journal`` puts a thread and a shared
commit around it.

What bounds the file: beyond KEPT_ENTRIES in all, what is done stays only while it is younger than
KEPT_SECONDS, which is longer than a task may live. What is begun and never asked for again stays
for ever, because without it its effect could be made twice: one entry for each task that was
interrupted and then given up, by somebody who had shown the token.

What a cancel leaves are entries like the others. One without a type is of a request that never
arrived; one that is begun and has words already is of an interrupted run that is not to go on.
"""

import sqlite3
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from edgeplane.agent.highest import HighestOnDisk
from edgeplane.model.tasks import MAX_DEADLINE_SECONDS
from edgeplane.wire import CANCELLED, MAX_NUMBER, CancelRequest, CancelState

#: Done entries are dropped only beyond this many, and only when older than KEPT_SECONDS.
KEPT_ENTRIES: Final = 1_000_000
KEPT_SECONDS: Final = MAX_DEADLINE_SECONDS + 86_400

_NEVER_ARRIVED: Final = ""  #: the type of what was cancelled before anything came of it
_PRUNED_AT_ONCE = 1_000
_PRUNE = (
    "DELETE FROM requests WHERE rowid IN (SELECT rowid FROM requests"
    " WHERE state = 'done' AND done_at < ? ORDER BY done_at LIMIT ?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request is known by."""

    request_id: str
    kind: str
    digest: bytes  #: of type and payload
    attempt: int
    epoch: int | None = None
    node_id: int = 0  #: whose epoch and generation; several nodes may be this machine
    generation: int | None = None  #: of the node's config, where that is what is asked for


class Standing(StrEnum):
    """What the journal knows of a request."""

    NEW = "new"  #: entered as begun just now: carry it out
    INTERRUPTED = "interrupted"  #: begun before, and nobody wrote how it ended
    ANSWERED = "answered"  #: done: give the same answer
    CALLED_OFF = "called off"  #: the same, and nothing is to be done for it any more
    DIFFERENT = "different"  #: the id belongs to another type or payload
    OUTDATED = "outdated"  #: a later generation of the node's config has begun: do nothing


@dataclass(frozen=True, slots=True)
class Found:
    """A standing and, where it is answered or called off, the answer.

    ``begun_generation`` is the one that stands before what is outdated; what is called off has it
    where that is the reason.
    """

    standing: Standing
    status: Literal["success", "failed"] = "failed"
    message: str = ""
    begun_generation: int = 0


class JournalFile:
    """The open file. Nothing it is told is on disk before ``commit`` returns."""

    def __init__(self, path: Path, connection: sqlite3.Connection, kept: int) -> None:
        self._path = path
        self._connection = connection
        self._kept = kept
        self._prune_beyond = kept
        self.entries: int = self._number("SELECT count(*) FROM requests")
        self._committed_entries = self.entries
        self.epochs = HighestOnDisk(connection, "epochs", "epoch")
        self.generations = HighestOnDisk(connection, "generations", "generation")

    def start(self) -> None:
        """Open a transaction."""
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make everything since ``start`` durable; raise sqlite3.Error if it cannot be."""
        self._connection.execute("COMMIT")
        self._committed_entries = self.entries
        self.epochs.committed_now()
        self.generations.committed_now()

    def rollback(self) -> None:
        """Forget everything since ``start``."""
        self.entries = self._committed_entries
        self.epochs.rolled_back()
        self.generations.rolled_back()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def begin(self, asked: Asked) -> Found:
        """Look a request up and, if it is to be carried out, enter it as begun.

        What failed is begun again under a higher attempt only; what succeeded never. What is begun
        counts as its node's latest config, if it is one.
        """
        if asked.epoch is not None:
            self.epochs.raise_to(asked.epoch, asked.node_id)
        row = self._connection.execute(
            "SELECT type, digest, attempt, state, status, message FROM requests"
            " WHERE request_id = ?",
            (asked.request_id,),
        ).fetchone()
        if row is None:
            found = self._latest(asked)
            if found.standing is Standing.NEW:
                self._insert(asked.request_id, asked.kind, asked.digest, asked.attempt)
            return found
        kind, digest, attempt, state, status, message = row
        if kind != _NEVER_ARRIVED and (kind, digest) != (asked.kind, asked.digest):
            return Found(Standing.DIFFERENT)
        if state == "done" and (status == "success" or asked.attempt <= attempt):
            return Found(Standing.ANSWERED, status, message)
        if state == "begun" and message is not None and asked.attempt <= attempt:
            return Found(Standing.CALLED_OFF, "failed", message)
        found = self._latest(asked)
        if found.standing is Standing.OUTDATED:
            interrupted = Found(Standing.CALLED_OFF, begun_generation=found.begun_generation)
            return found if state == "done" else interrupted
        self._connection.execute(
            "UPDATE requests SET type = ?, digest = ?, state = 'begun', attempt = ?, status = NULL,"
            " message = NULL, begun_at = ?, done_at = NULL WHERE request_id = ?",
            (asked.kind, asked.digest, max(attempt, asked.attempt), _now(), asked.request_id),
        )
        return Found(Standing.NEW if state == "done" else Standing.INTERRUPTED)

    def finish(self, request_id: str, attempt: int, status: str, message: str) -> None:
        """Enter how a begun request ended; ``attempt`` is the highest this ending answers."""
        self._connection.execute(
            "UPDATE requests SET state = 'done', attempt = max(attempt, ?), status = ?,"
            " message = ?, done_at = ? WHERE request_id = ? AND state = 'begun'",
            (attempt, status, message, _now(), request_id),
        )

    def cancel(self, order: CancelRequest) -> CancelState:
        """Enter that a request that does not run is to have no effect; say how it stands.

        What has ended stays as it is, unless an attempt after the one that failed is meant.
        """
        if order.epoch is not None:
            self.epochs.raise_to(order.epoch, order.node_id or 0)
        row = self._connection.execute(
            "SELECT type, attempt, state, status, message FROM requests WHERE request_id = ?",
            (order.request_id,),
        ).fetchone()
        if row is None:
            meant = order.attempt or MAX_NUMBER
            self._insert(order.request_id, _NEVER_ARRIVED, b"", meant)
            self.finish(order.request_id, meant, "failed", CANCELLED)
            return "unknown"
        kind, attempt, state, status, message = row
        meant = order.attempt or (MAX_NUMBER if kind == _NEVER_ARRIVED else attempt)
        if state == "done" and (status == "success" or meant <= attempt):
            ended: CancelState = "cancelled" if message == CANCELLED else "done"
            return "unknown" if kind == _NEVER_ARRIVED else ended
        self._connection.execute(
            "UPDATE requests SET attempt = max(attempt, ?), message = ? WHERE request_id = ?",
            (meant, CANCELLED, order.request_id),
        )
        return "unknown"

    def prune(self, now: int | None = None) -> int:
        """Drop some of the oldest done entries, where there are too many; say how many.

        Within a transaction. Cheap to call often: while nothing is old enough it looks only once in
        a thousand new entries. ``now`` is in milliseconds since 1970.
        """
        if self.entries <= self._prune_beyond:
            return 0
        oldest = (now or _now()) - KEPT_SECONDS * 1000
        dropped = self._connection.execute(
            _PRUNE,
            (oldest, min(_PRUNED_AT_ONCE, self.entries - self._kept)),
        ).rowcount
        self.entries -= dropped
        self._prune_beyond = self._kept if dropped else self.entries + _PRUNED_AT_ONCE
        return dropped

    def bytes_on_disk(self) -> int:
        """Return the size of the file and of its write-ahead log."""
        return sum(size_of(Path(f"{self._path}{suffix}")) for suffix in ("", "-wal"))

    def close(self) -> None:
        """Close the file; what was not committed is forgotten."""
        self._connection.close()

    def _latest(self, asked: Asked) -> Found:
        """Say whether what is asked may begin, and count its generation if so."""
        if asked.generation is not None:
            begun = self.generations.of(asked.node_id)
            if asked.generation < begun:
                return Found(Standing.OUTDATED, begun_generation=begun)
            self.generations.raise_to(asked.generation, asked.node_id)
        return Found(Standing.NEW)

    def _insert(self, request_id: str, kind: str, digest: bytes, attempt: int) -> None:
        self._connection.execute(
            "INSERT INTO requests (request_id, type, digest, attempt, state, begun_at)"
            " VALUES (?, ?, ?, ?, 'begun', ?)",
            (request_id, kind, digest, attempt, _now()),
        )
        self.entries += 1

    def _number(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])


def size_of(path: Path) -> int:
    """Return how large a file is; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _now() -> int:
    """Return milliseconds since 1970: for people, and for the age of what may be dropped."""
    return time.time_ns() // 1_000_000
