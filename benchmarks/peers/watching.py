"""What all stacks are measured by: rows that say done, seen over a connection of our own."""

import queue
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pymysql

from kit.servers import MariaDB

_COUNT_SECONDS = 0.02  #: between counts of all that is done
_LOOK_SECONDS = 0.002  #: between looks for tasks that are waited for one by one
_PATIENCE_SECONDS = 180.0
_NO_SUCH_TABLE = 1146

Key = int | str
#: Tasks asked for: the key of each, and when, on the monotonic clock; None: that was the last one.
Asked = queue.Queue[tuple[Key, float] | None]


@dataclass(frozen=True)
class Rows:
    """Where a stack writes that a task is done."""

    key: str  #: a column
    table: str
    condition: str


class Watch:
    """Looks for done rows of a stack in its database."""

    def __init__(self, server: MariaDB, database: str, rows: Rows) -> None:
        self._rows = rows
        self._connection = server.connect(database)

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def done(self) -> int:
        """Count what is done; a stack may make its tables with its first task."""
        where = f"FROM {self._rows.table} WHERE {self._rows.condition}"
        try:
            return int(self._all(f"SELECT COUNT(*) {where}")[0][0])
        except pymysql.ProgrammingError as error:
            if error.args[0] != _NO_SUCH_TABLE:
                raise
            return 0

    def wait_until(self, many: int) -> float:
        """Wait until so many are done; return when that was seen, on the monotonic clock."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while (seen := self.done()) < many:
            if time.monotonic() > end:
                raise RuntimeError(f"{seen} of {many} tasks are done, and no more came")
            time.sleep(_COUNT_SECONDS)
        return time.monotonic()

    def follow(self, asked: Asked) -> list[float]:
        """Wait for each task that is asked for; return the seconds from then until it was done."""
        waiting: dict[Key, float] = {}
        took: list[float] = []
        more = True
        end = time.monotonic() + _PATIENCE_SECONDS
        while more or waiting:
            more = _take(asked, waiting) and more
            found = self._among(waiting)
            now = time.monotonic()
            took += [now - waiting.pop(key) for key in found]
            if time.monotonic() > end:
                raise RuntimeError(f"{len(waiting)} tasks are not done")
            time.sleep(_LOOK_SECONDS)
        return took

    def _among(self, keys: Iterable[Key]) -> list[Key]:
        if not (listed := ", ".join(f"'{key}'" for key in keys)):
            return []
        rows = self._rows
        sql = f"SELECT {rows.key} FROM {rows.table} WHERE {rows.condition} AND {rows.key} IN"
        return [row[0] for row in self._all(f"{sql} ({listed})")]

    def _all(self, sql: str) -> list[Any]:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())


def _take(asked: Asked, waiting: dict[Key, float]) -> bool:
    """Note what was asked for meanwhile; return whether more is to come."""
    while not asked.empty():
        one = asked.get_nowait()
        if one is None:
            return False
        waiting[one[0]] = one[1]
    return True
