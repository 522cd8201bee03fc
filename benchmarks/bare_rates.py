"""The floor of ``benchmarks.store_rates``: the rows a task's way writes, by the driver alone.

What a turn writes of a task: its mailbox claimed, its row running, then success, its attempt, two
events, its mailbox given back. A commit for each batch, as turns have them: it settles the batch
before and begins the next.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pymysql
from sqlalchemy import URL

_NOW = "2026-01-01 00:00:00.000"
_CLAIMED = "UPDATE node_mailboxes SET owner = 'me', epoch = epoch + 1, next_at = ? WHERE node_id IN"
_BEGUN = (
    "UPDATE agent_tasks SET status = 'running', attempts = attempts + 1, started_at = ?,"
    " updated_at = ? WHERE status = 'pending' AND id IN"
)
_SETTLED = (
    "UPDATE agent_tasks SET status = 'success', lane = NULL, outcome = 'succeeded',"
    " counted_attempts = counted_attempts + 1, finished_at = ?, updated_at = ?"
    " WHERE status = 'running' AND id IN"
)
_RELEASED = "UPDATE node_mailboxes SET owner = NULL, next_at = NULL WHERE node_id IN"
_ATTEMPT = (
    "INSERT INTO task_attempts (task_id, number, begun_at, ended_at, outcome, message, replica)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"  # marks alone: PyMySQL then sends all rows in one statement
)
_EVENT = (
    "INSERT INTO events (at, type, task_id, node_id, status, attempt) VALUES (?, ?, ?, ?, ?, ?)"
)
_OPEN = "SELECT id, node_id FROM agent_tasks WHERE status = 'pending' ORDER BY node_id, id"

Rows = Sequence[tuple[int, int]]  #: tasks and their nodes


def take(url: URL, most_nodes: int, most_tasks: int) -> float:
    """Write all open tasks through to success; return the seconds that took."""
    with closing(_connect(url)) as connection:
        bare = _Bare(connection, "?" if url.get_backend_name() == "sqlite" else "%s")
        batches = _batches(bare.open(), most_nodes, most_tasks)
        began = time.perf_counter()
        before: Rows = ()
        for batch in [*batches, ()]:
            bare.write(before, batch)
            before = batch
        return time.perf_counter() - began


def _connect(url: URL) -> Any:
    if url.get_backend_name() == "sqlite":
        connection = sqlite3.connect(url.database or "")
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
            connection.execute(f"PRAGMA {pragma}")
        return connection
    return pymysql.connect(
        host=url.host,
        port=url.port or 3306,
        user=url.username,
        password=url.password or "",
        database=url.database,
        init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    )


def _batches(tasks: Rows, most_nodes: int, most_tasks: int) -> list[Rows]:
    """Cut tasks, in the order of their nodes, as turns would take them."""
    batches: list[list[tuple[int, int]]] = []
    nodes: set[int] = set()
    for task in tasks:
        full = not batches or len(batches[-1]) == most_tasks
        if full or (len(nodes) == most_nodes and task[1] not in nodes):
            batches.append([])
            nodes = set()
        batches[-1].append(task)
        nodes.add(task[1])
    return list(batches)


class _Bare:
    """A driver's cursor, and statements in its style."""

    def __init__(self, connection: Any, mark: str) -> None:
        self._connection = connection
        self._mark = mark
        self._cursor = connection.cursor()

    def open(self) -> Rows:
        """Return the tasks that wait."""
        self._cursor.execute(_OPEN)
        found = list(self._cursor.fetchall())
        self._connection.commit()
        return found

    def write(self, settled: Rows, begun: Rows) -> None:
        """Write one batch's end and the next one's beginning; commit."""
        if settled:
            self._update(_SETTLED, [task for task, _ in settled], _NOW, _NOW)
            self._many(
                _ATTEMPT, [(task, 1, _NOW, _NOW, "succeeded", "words", "me") for task, _ in settled]
            )
            self._tell("succeeded", "success", settled)
            self._update(_RELEASED, sorted({node for _, node in settled}))
        if begun:
            self._update(_CLAIMED, sorted({node for _, node in begun}), _NOW)
            self._update(_BEGUN, [task for task, _ in begun], _NOW, _NOW)
            self._tell("begun", "running", begun)
        self._connection.commit()

    def _tell(self, kind: str, status: str, tasks: Rows) -> None:
        self._many(_EVENT, [(_NOW, kind, task, node, status, 1) for task, node in tasks])

    def _update(self, sql: str, ids: Sequence[int], *values: str) -> None:
        marks = ", ".join("?" * len(ids))
        self._cursor.execute(f"{sql} ({marks})".replace("?", self._mark), (*values, *ids))

    def _many(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self._cursor.executemany(sql.replace("?", self._mark), rows)
