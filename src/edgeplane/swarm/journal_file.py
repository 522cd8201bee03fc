"""The shared journal on disk: one SQLite file for all agents, committed by whoever calls.

Everything here is synchronous and for one thread at a time.
"""

import sqlite3
from pathlib import Path
from typing import Final

from edgeplane.agent.journal_file import Standing, size_of
from edgeplane.swarm.records import Asked, Found, Status
from edgeplane.wire import CANCELLED, MAX_NUMBER, CancelRequest, CancelState

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS requests (
    agent INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    digest BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    status TEXT,
    message TEXT,
    at REAL NOT NULL,
    PRIMARY KEY (agent, request_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes (
    agent INTEGER NOT NULL,
    node_id INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (agent, node_id)
) WITHOUT ROWID;
"""
_NEVER_ARRIVED: Final = b""  #: the digest of what was cancelled before anything came of it
_KEEP_NODE: Final = "INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?)"


class JournalFile:
    """The open file; nothing it is told is on disk before ``commit`` returns.

    Raises sqlite3.Error where it cannot be read or written, also while another process has it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=0.0
        )
        for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._connection.execute(f"PRAGMA {setting}")
        self._connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        self._read()

    def start(self) -> None:
        """Open a transaction."""
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make everything since ``start`` durable."""
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Forget everything since ``start``."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._read()

    def begin(self, asked: Asked) -> Found:
        """Look a request up and, if it is to be carried out, enter it as begun.

        What failed is begun again under a higher attempt only; what succeeded never; an older
        config than its node's latest not either.
        """
        if asked.epoch is not None:
            self.raise_epoch(asked.agent, asked.node_id, asked.epoch)
        row = self._connection.execute(
            "SELECT digest, attempt, status, message FROM requests"
            " WHERE agent = ? AND request_id = ?",
            (asked.agent, asked.request_id),
        ).fetchone()
        if row is None:
            return self._enter(asked, Standing.NEW, asked.attempt)
        digest, attempt, status, message = row
        if digest not in {asked.digest, _NEVER_ARRIVED}:
            return Found(Standing.DIFFERENT)
        if status == "success" or (status and asked.attempt <= attempt):
            return Found(Standing.ANSWERED, status, message)
        if message is not None and not status and asked.attempt <= attempt:
            return Found(Standing.INTERRUPTED, message=message)
        standing = Standing.NEW if status else Standing.INTERRUPTED
        return self._enter(asked, standing, max(attempt, asked.attempt))

    def finish(self, asked: Asked, attempt: int, status: Status, message: str) -> bool:
        """Enter how a begun request ended; return True."""
        self._connection.execute(
            "UPDATE requests SET attempt = max(attempt, ?), status = ?, message = ?, at = ?"
            " WHERE agent = ? AND request_id = ? AND status IS NULL",
            (attempt, status, message, asked.at, asked.agent, asked.request_id),
        )
        return True

    def cancel(self, agent: int, order: CancelRequest) -> CancelState:
        """Enter that a request that does not run is to have no effect; say how it stands."""
        if order.epoch is not None:
            self.raise_epoch(agent, order.node_id or 0, order.epoch)
        row = self._connection.execute(
            "SELECT digest, attempt, status, message FROM requests"
            " WHERE agent = ? AND request_id = ?",
            (agent, order.request_id),
        ).fetchone()
        if row is None:
            self._connection.execute(
                "INSERT INTO requests VALUES (?, ?, ?, ?, 'failed', ?, 0)",
                (agent, order.request_id, _NEVER_ARRIVED, order.attempt or MAX_NUMBER, CANCELLED),
            )
            self.entries[agent] = self.entries.get(agent, 0) + 1
            return "unknown"
        digest, attempt, status, message = row
        never = digest == _NEVER_ARRIVED
        meant = order.attempt or (MAX_NUMBER if never else attempt)
        if status == "success" or (status and meant <= attempt):
            ended: CancelState = "cancelled" if message == CANCELLED else "done"
            return "unknown" if never else ended
        self._connection.execute(
            "UPDATE requests SET attempt = max(attempt, ?), message = ?"
            " WHERE agent = ? AND request_id = ?",
            (meant, CANCELLED, agent, order.request_id),
        )
        return "unknown"

    def raise_epoch(self, agent: int, node_id: int, epoch: int) -> bool:
        """Remember an epoch if it is higher; return True."""
        known, generation = self.nodes.get(agent, {}).get(node_id, (-1, 0))
        if epoch > known:
            self._keep(agent, node_id, epoch, generation)
        return True

    def begun(self) -> set[tuple[int, str]]:
        """Return agent and id of what was begun, and nobody wrote how it ended."""
        query = "SELECT agent, request_id FROM requests WHERE status IS NULL"
        return set(self._connection.execute(query))

    def bytes_on_disk(self) -> int:
        """Return the size of the file and of its write-ahead log."""
        return sum(size_of(Path(f"{self._path}{suffix}")) for suffix in ("", "-wal"))

    def close(self) -> None:
        """Close the file; what was not committed is forgotten."""
        self._connection.close()

    def _enter(self, asked: Asked, standing: Standing, attempt: int) -> Found:
        if asked.generation is not None:
            epoch, latest = self.nodes.get(asked.agent, {}).get(asked.node_id, (0, 0))
            if asked.generation < latest:
                return Found(standing, outdated_by=latest)
            if asked.generation > latest:
                self._keep(asked.agent, asked.node_id, epoch, asked.generation)
        self._connection.execute(
            "INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, NULL, NULL, ?)",
            (asked.agent, asked.request_id, asked.digest, attempt, asked.at),
        )
        if standing is Standing.NEW:
            self.entries[asked.agent] = self.entries.get(asked.agent, 0) + 1
        return Found(standing)

    def _keep(self, agent: int, node_id: int, epoch: int, generation: int) -> None:
        self.nodes.setdefault(agent, {})[node_id] = (epoch, generation)
        self._connection.execute(_KEEP_NODE, (agent, node_id, epoch, generation))

    def _read(self) -> None:
        """Take from disk what is kept at hand."""
        #: of each agent and node: the highest epoch, and the latest config's generation
        self.nodes: dict[int, dict[int, tuple[int, int]]] = {}
        for agent, node_id, epoch, generation in self._connection.execute("SELECT * FROM nodes"):
            self.nodes.setdefault(agent, {})[node_id] = (epoch, generation)
        count = "SELECT agent, count(*) FROM requests GROUP BY agent"
        self.entries: dict[int, int] = dict(self._connection.execute(count))
