"""The tables as they are, read past our own store: with sqlite3 or pymysql, and plain SQL."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
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
_SQLITE_SECONDS = "(julianday({0}) - 2440587.5) * 86400.0"
_MYSQL_SECONDS = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {0}) / 1000000"
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
    generation: int | None = None
    operation_id: int | None = None
    outcome: str | None = None
    max_attempts: int = 5
    timeout_seconds: int = 30

    @property
    def final(self) -> bool:
        """Whether nothing but a person will move it."""
        ends = {"success", "superseded", "cancelled"}
        return self.status in ends or (self.status == "failed" and not self.due_again)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """A row of ``task_attempts``; times are seconds since 1970, by the database's clock."""

    task_id: int
    number: int
    begun: float
    ended: float
    outcome: str
    replica: str | None

    @property
    def sent(self) -> bool:
        """Whether it was sent; one that shared another's failure to arrive was not."""
        return self.outcome != "unreachable" or self.begun < self.ended


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRow:
    """A row of ``events`` that is a task's; those of operations have no task."""

    id: int
    at: float
    what: str
    task_id: int
    status: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRow:
    """A row of ``operations``, and how many of its targets are left."""

    id: int
    request_id: str
    state: str
    max_concurrency: int | None
    max_failures: int | None
    counts: dict[str, int]
    targets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the tables say of the past."""

    attempts: tuple[AttemptRow, ...] = ()
    moves: tuple[MoveRow, ...] = ()  #: in the order of their ids
    operations: tuple[OperationRow, ...] = ()


COUNTS = (
    *("unsent", "skipped", "pending", "running", "waiting"),
    *("unreachable", "success", "failed", "superseded", "cancelled"),
)


class Tables:
    """Reads one database; every call uses a connection of its own."""

    def __init__(
        self, rows: Callable[[str], Sequence[Sequence[Any]]], age: str, since_1970: str = "{0}"
    ) -> None:
        self._rows = rows
        self._age = age
        self._seconds = since_1970.format

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

        return cls(rows, _SQLITE_AGE, _SQLITE_SECONDS)

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

        return cls(rows, _MYSQL_AGE, _MYSQL_SECONDS)

    def leases(self) -> tuple[tuple[int, float | None], ...]:
        """Return what ``Sampled.running`` holds."""
        found = self._rows(_LEASES.format(age=self._age))
        return tuple((int(i), None if age is None else float(age)) for i, age in found)

    def owners(self) -> dict[int, str | None]:
        """Return who holds which node."""
        return {node_id: who for node_id, who, _ in self.owned()}

    def owned(self) -> tuple[tuple[int, str | None, int], ...]:
        """Return who holds which node, under which epoch."""
        found = self._rows("SELECT node_id, owner, epoch FROM node_mailboxes")
        return tuple((int(node_id), who, int(epoch)) for node_id, who, epoch in found)

    def unended(self) -> int:
        """Return how many tasks and operations have not ended."""
        tasks = "SELECT COUNT(*) FROM agent_tasks WHERE lane IS NOT NULL"
        ends = "'done', 'stopped', 'cancelled'"
        operations = f"SELECT COUNT(*) FROM operations WHERE state NOT IN ({ends})"
        return sum(int(self._rows(sql)[0][0]) for sql in (tasks, operations))

    def record(self) -> Record:
        """Return what the tables say of the past."""
        return Record(
            attempts=tuple(self._attempts()),
            moves=tuple(self._moves()),
            operations=tuple(self._operations()),
        )

    def _attempts(self) -> Iterator[AttemptRow]:
        begun, ended = self._seconds("begun_at"), self._seconds("ended_at")
        for row in self._rows(
            f"SELECT task_id, number, {begun}, {ended}, outcome, replica FROM task_attempts"
        ):
            yield AttemptRow(
                task_id=row[0],
                number=row[1],
                begun=_milliseconds(row[2]),
                ended=_milliseconds(row[3]),
                outcome=row[4],
                replica=row[5],
            )

    def _moves(self) -> Iterator[MoveRow]:
        at = self._seconds("at")
        for row in self._rows(
            f"SELECT id, {at}, type, task_id, status, attempt FROM events"
            " WHERE task_id > 0 ORDER BY id"  # 0: of an operation
        ):
            yield MoveRow(
                id=row[0],
                at=_milliseconds(row[1]),
                what=row[2],
                task_id=row[3],
                status=row[4],
                attempt=row[5],
            )

    def _operations(self) -> Iterator[OperationRow]:
        left = "SELECT COUNT(*) FROM operation_targets t WHERE t.operation_id = o.id"
        for row in self._rows(
            "SELECT id, request_id, state, max_concurrency, max_failures,"
            f" ({left}), {', '.join(COUNTS)} FROM operations o"
        ):
            yield OperationRow(
                id=row[0],
                request_id=row[1],
                state=row[2],
                max_concurrency=row[3],
                max_failures=row[4],
                targets=row[5],
                counts=dict(zip(COUNTS, row[6:], strict=True)),
            )

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
            " type, superseded_by, generation, operation_id, outcome, max_attempts,"
            " timeout_seconds FROM agent_tasks"
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
                generation=row[9],
                operation_id=row[10],
                outcome=row[11],
                max_attempts=row[12],
                timeout_seconds=row[13],
            )
            for row in found
        ]


def _milliseconds(seconds: Any) -> float:
    """Round to what the tables hold: a conversion of theirs is off by a little."""
    return round(float(seconds), 3)
