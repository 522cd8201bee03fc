"""The tables as they are, read past our own store: with sqlite3 or pymysql, and plain SQL."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql

from kit.servers import MariaDB

#: Each running task, and for how many seconds its node's lease has lapsed. A mailbox that nobody
#: owns is no lease: it may only be due; a priority puts that forward by up to 90 s, which lapsed
#: nothing. (A tenth: what is read may be newer than the time asked.)
_LEASES = """
SELECT t.id, CASE WHEN m.owner IS NOT NULL THEN {age} WHEN {age} > 90 THEN {age} - 90
 WHEN {age} > -0.1 THEN 0.0 END
FROM agent_tasks t LEFT JOIN node_mailboxes m ON m.node_id = t.node_id
WHERE t.status = 'running'
"""
_SQLITE_AGE = "(julianday('now') - julianday(m.next_at)) * 86400.0"
_MYSQL_AGE = "TIMESTAMPDIFF(MICROSECOND, m.next_at, UTC_TIMESTAMP(3)) / 1000000"
_SQLITE_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
#: Too many connections, going down, killed; and the client's own: cannot connect, gone, lost.
_MYSQL_AWAY = {1040, 1053, 1927, 2002, 2003, 2006, 2013}


class Away(Exception):
    """The tables cannot be read just now: they are locked, or their server is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A row of ``agent_tasks``, and the numbers of its rows in ``task_attempts``."""

    id: int
    node_id: int
    request_id: str
    kind: str
    status: str
    superseded_by: int | None
    due_again: bool  #: ``next_retry_at`` is set
    attempts: int
    last_error: str | None
    numbers: tuple[int, ...]

    @property
    def final(self) -> bool:
        """Whether nothing but a person will move it."""
        ends = {"success", "superseded", "cancelled"}
        return self.status in ends or (self.status == "failed" and not self.due_again)


class Tables:
    """Reads one database; every call uses a connection of its own."""

    def __init__(self, rows: Callable[[str], Sequence[Sequence[Any]]], age: str) -> None:
        self._rows = rows
        self._age = age

    @classmethod
    def of_sqlite(cls, file: Path, seconds: float = 10.0) -> "Tables":
        """Read a SQLite file; one that stays locked for so long is ``Away``."""

        def rows(sql: str) -> Sequence[Sequence[Any]]:
            try:
                with closing(sqlite3.connect(file, timeout=seconds)) as connection:
                    return connection.execute(sql).fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF in _SQLITE_LOCKED:
                    raise Away(str(error)) from error
                raise

        return cls(rows, _SQLITE_AGE)

    @classmethod
    def of_mariadb(cls, server: MariaDB, database: str) -> "Tables":
        """Read a database of a server; it may be away: then calls raise ``Away``."""

        def rows(sql: str) -> Sequence[Sequence[Any]]:
            try:
                with server.connect(database) as connection, connection.cursor() as cursor:
                    cursor.execute(sql)
                    return list(cursor.fetchall())
            except pymysql.MySQLError as error:
                if error.args[0] in _MYSQL_AWAY:
                    raise Away(str(error)) from error
                raise

        return cls(rows, _MYSQL_AGE)

    def leases(self) -> tuple[tuple[int, float | None], ...]:
        """Return what ``Sampled.running`` holds."""
        found = self._rows(_LEASES.format(age=self._age))
        return tuple((int(i), None if age is None else float(age)) for i, age in found)

    def owners(self) -> dict[int, str | None]:
        """Return who holds which node."""
        return {int(n): who for n, who in self._rows("SELECT node_id, owner FROM node_mailboxes")}

    def locked_rows(self) -> int:
        """Return how many rows open transactions hold just now (MariaDB)."""
        found = self._rows("SELECT SUM(trx_rows_locked) FROM information_schema.innodb_trx")
        return int(found[0][0] or 0)

    def final_ids(self) -> set[str]:
        """Return the request ids of the tasks that are final."""
        found = self._rows(
            "SELECT request_id FROM agent_tasks"
            " WHERE status IN ('success', 'superseded', 'cancelled')"
            " OR (status = 'failed' AND next_retry_at IS NULL)"
        )
        return {request_id for (request_id,) in found}

    def tasks(self) -> list[TaskRow]:
        """Return every task."""
        numbers: dict[int, list[int]] = {}
        for task_id, number in self._rows("SELECT task_id, number FROM task_attempts"):
            numbers.setdefault(task_id, []).append(number)
        found = self._rows(
            "SELECT id, request_id, status, next_retry_at, attempts, last_error, node_id,"
            " type, superseded_by FROM agent_tasks"
        )
        return [
            TaskRow(
                id=row[0],
                node_id=row[6],
                request_id=row[1],
                kind=row[7],
                status=row[2],
                superseded_by=row[8],
                due_again=row[3] is not None,
                attempts=row[4],
                last_error=row[5],
                numbers=tuple(sorted(numbers.get(row[0], []))),
            )
            for row in found
        ]
