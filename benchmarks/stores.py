"""The databases measured, and a light look into each while a control plane uses it."""

import os
import sqlite3
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pymysql.connections import Connection  # noqa: TC002
from pymysql.cursors import Cursor  # noqa: TC002

from kit.servers import MariaDB

#: SQLite's write-ahead index begins with two copies of a header; ``iChange`` is its third word, "a
#: counter that is incremented with each transaction" (WAL-mode file format, section 2.1).
_COPIES, _CHANGES = struct.Struct("=48s48s"), struct.Struct("=8xI")

_FIRST_OPEN = (
    "SELECT id FROM agent_tasks WHERE id >= {} AND status <> 'success' ORDER BY id LIMIT 1"
)
_STATUS = "SELECT status FROM agent_tasks WHERE id = {}"
_TIMES = "SELECT created_at, finished_at FROM agent_tasks WHERE id >= {}"
_ATTEMPTS = "SELECT COUNT(*) FROM task_attempts WHERE task_id >= {}"


class View:
    """Looks at tasks over a connection of its own, and counts commits; changes nothing."""

    def __init__(
        self, rows: Callable[[str], list[Any]], commits: Callable[[], int], end: Callable[[], None]
    ) -> None:
        self._rows = rows
        self.commits = commits
        self.close = end

    def first_open(self, since: int) -> int | None:
        """Return the first task from this id on that has not succeeded."""
        found = self._rows(_FIRST_OPEN.format(since))
        return int(found[0][0]) if found else None

    def succeeded(self, task_id: int) -> bool:
        """Whether a task's success is committed."""
        return self._rows(_STATUS.format(task_id)) == [("success",)]

    def waits(self, since: int) -> list[float]:
        """Return for how many seconds each task from this id on was there until it ended."""
        found = self._rows(_TIMES.format(since))
        return [(_time(ended) - _time(made)).total_seconds() for made, ended in found]

    def attempts(self, since: int) -> int:
        """Return how many attempts the tasks from this id on have had."""
        return int(self._rows(_ATTEMPTS.format(since))[0][0])


class Store(Protocol):
    """A database for one control plane, and one more for the floor without HTTP."""

    title: str
    env: dict[str, str]  #: what the control plane is started with
    control: str  #: URL of the control plane's database
    floor: str  #: URL of the floor's database

    def view(self) -> View:
        """Look into the control plane's database."""
        ...

    def close(self) -> None:
        """End the server, if there is one."""
        ...


@dataclass
class Sqlite:
    """SQLite in the control plane's state folder."""

    folder: Path
    title: str = "SQLite (WAL, synchronous=FULL)"

    def __post_init__(self) -> None:
        self.env: dict[str, str] = {}
        file = self.folder / "control" / "state" / "edgeplane.db"
        self.control = f"sqlite+pysqlite:///{file}"
        self.floor = f"sqlite+pysqlite:///{self.folder / 'floor.db'}"

    def view(self) -> View:
        """Open the file for reading, and the index beside it."""
        path = self.folder / "control" / "state" / "edgeplane.db"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        connection.execute("SELECT 1 FROM agent_tasks LIMIT 1").fetchall()
        index = os.open(f"{path}-shm", os.O_RDONLY)

        def end() -> None:
            connection.close()
            os.close(index)

        return View(lambda sql: connection.execute(sql).fetchall(), lambda: _changes(index), end)

    def close(self) -> None:
        """Nothing runs."""


class Mariadb:
    """A MariaDB of our own."""

    title = "MariaDB (innodb_flush_log_at_trx_commit=1)"

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self._server = MariaDB(folder, options=options)
        try:
            self._server.start()
            self.env = {"MYSQL_DSN": self._server.create_database("control")}
            floor = url_of(self._server.create_database("floor"))
        except BaseException:
            self._server.kill()
            raise
        self.control, self.floor = url_of(self.env["MYSQL_DSN"]), floor

    def connect(self) -> "Connection[Cursor]":
        """Open a connection to the control plane's database."""
        return self._server.connect("control")

    def view(self) -> View:
        """Open a connection."""
        connection = self.connect()

        def rows(sql: str) -> list[Any]:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())

        def commits() -> int:
            return int(rows("SHOW GLOBAL STATUS LIKE 'Com_commit'")[0][1])

        return View(rows, commits, connection.close)

    def close(self) -> None:
        """End the server."""
        self._server.kill()


def url_of(dsn: str) -> str:
    """Turn a DSN of the Go form into an URL."""
    place = dsn.replace("@tcp(", "@").split("?")[0]
    return f"mysql+pymysql://{place.replace(')/', '/')}?charset=utf8mb4"


def _time(stored: datetime | str) -> datetime:
    """Read a time as MariaDB gives it, or SQLite."""
    return stored if isinstance(stored, datetime) else datetime.fromisoformat(stored)


def _changes(index: int) -> int:
    """Read the counter; its two copies differ while a commit is being written."""
    while True:
        first, second = _COPIES.unpack(os.pread(index, _COPIES.size, 0))
        if first == second:
            return int(_CHANGES.unpack_from(first)[0])
