"""The hot path's statements: declared in SQLAlchemy Core, compiled once, run on a driver's cursor.

Building and running a Core statement costs some 200 µs of CPU, of which the database's share is
2 µs (docs/adr/0003 has the figures). So each statement that serves every task is compiled once per
dialect and per width of its list, and from then on is text and a tuple of values.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import ClauseElement, bindparam
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter

from edgeplane.store.workers import Tx

Values = Mapping[str, Any]

_NO_LISTS: Mapping[str, list[Any]] = {}
_MOST_ROWS = 64  #: inserted by one statement of SQLite's


class Items:
    """The list of a statement: ``column.in_(items)``, or pairs of it, at a fixed width."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.lists: set[str] = set()  #: their names

    def named(self, name: str) -> list[BindParameter[Any]]:
        """Return the parameters of one list; they stand together in the statement."""
        self.lists.add(name)
        return [bindparam(f"{name}_{number}") for number in range(self.width)]

    def rows(self, columns: Iterable[str]) -> list[dict[str, Any]]:
        """Return the parameters of so many rows to be inserted."""
        return [
            {column: bindparam(f"v_{column}_{number}") for column in columns}
            for number in range(self.width)
        ]


class Prepared:
    """A statement with at most one width for all of its lists.

    Args:
        build: makes the statement for a width; lists are named through ``Items.named``.

    """

    def __init__(self, build: Callable[[Items], ClauseElement]) -> None:
        self._build = build
        self._compiled: dict[tuple[str, int], _Text] = {}

    def rows(self, tx: Tx, values: Values | None = None, **lists: Sequence[Any]) -> list[Any]:
        """Run it and return all rows, as the driver gives them."""
        cursor = self._run(tx, values, lists)
        found = cursor.fetchall()
        cursor.close()
        return list(found)

    def change(self, tx: Tx, values: Values | None = None, **lists: Sequence[Any]) -> int:
        """Run it and return how many rows it found."""
        cursor = self._run(tx, values, lists)
        count = int(cursor.rowcount)
        cursor.close()
        return count

    def change_many(self, tx: Tx, many: Iterable[Values]) -> int:
        """Run it for each set of values; return how many rows it found."""
        text = self._text(tx, 0)
        cursor = _cursor(tx)
        cursor.executemany(text.sql, [text.arrange(values) for values in many])
        count = int(cursor.rowcount)
        cursor.close()
        return count

    def insert_rows(self, tx: Tx, rows: Sequence[Sequence[Any]]) -> None:
        """Run an insert for rows whose values stand in its own order, as a driver takes them.

        A statement serves many rows: MariaDB's driver makes one of all, SQLite's would run one for
        each, and hand the interpreter over to another thread and back for it.
        """
        cursor = _cursor(tx)
        if tx.dialect == "sqlite":
            for part in _parts(rows):
                cursor.execute(self._text(tx, len(part)).sql, [*chain.from_iterable(part)])
        else:
            cursor.executemany(self._text(tx, 1).sql, rows)
        cursor.close()

    def _run(self, tx: Tx, values: Values | None, lists: Mapping[str, Sequence[Any]]) -> Any:
        width = _width(max(map(len, lists.values()), default=0))
        text = self._text(tx, width)
        padded = {
            name: [*items, *[*items[-1:]] * (width - len(items))] for name, items in lists.items()
        }
        cursor = _cursor(tx)
        cursor.execute(text.sql, text.arrange(values or {}, padded))
        return cursor

    def _text(self, tx: Tx, width: int) -> "_Text":
        key = (tx.dialect, width)
        text = self._compiled.get(key)
        if text is None:
            items = Items(width)
            compiled = self._build(items).compile(dialect=tx.conn.dialect)
            assert isinstance(compiled, SQLCompiler)
            text = self._compiled[key] = _Text(compiled, items)
        return text


class _Text:
    """A compiled statement: its text, and in what order the driver wants the values."""

    def __init__(self, compiled: SQLCompiler, items: Items) -> None:
        assert compiled.positiontup is not None  # both drivers take values by position
        self.sql = compiled.string
        self._constants = {name: bind.value for name, bind in compiled.binds.items()}
        self._order = tuple(_with_lists_as_one(compiled.positiontup, items))

    def arrange(self, values: Values, lists: Mapping[str, list[Any]] = _NO_LISTS) -> list[Any]:
        """Put values in the statement's order, each as a driver takes it."""
        arranged: list[Any] = []
        for name in self._order:
            if name in lists:
                arranged += lists[name]
            else:
                arranged.append(_plain(values[name] if name in values else self._constants[name]))
        return arranged


def _with_lists_as_one(names: Iterable[str], items: Items) -> Iterator[str]:
    """Name a list once, where its first parameter stands: the others follow it."""
    first = {f"{name}_0": name for name in items.lists}
    others = {f"{name}_{number}" for name in items.lists for number in range(1, items.width)}
    return (first.get(name, name) for name in names if name not in others)


def written(value: datetime) -> str:
    """Write a time as a driver takes it."""
    return _write_time(value)


def named(columns: Iterable[str]) -> dict[str, Any]:
    """Name a parameter for each column; its own name would clash with SQLAlchemy's."""
    return {column: bindparam(f"v_{column}") for column in columns}


def moment(value: Any) -> datetime | None:
    """Read a time as the driver gives it."""
    return None if value is None else _read_time(value)


# Rows written together carry the same times: most are read and written from memory.


@lru_cache(maxsize=4096)
def _read_time(value: datetime | str) -> datetime:
    naive = datetime.fromisoformat(value) if isinstance(value, str) else value
    return naive.replace(tzinfo=UTC)


@lru_cache(maxsize=4096)
def _write_time(value: datetime) -> str:
    return value.isoformat(" ", "milliseconds")[:23]


def _cursor(tx: Tx) -> Any:
    return tx.conn.connection.cursor()


def _parts(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    """Cut rows into parts of few different lengths, so that few texts serve them all."""
    at = 0
    while left := len(rows) - at:
        length = min(_MOST_ROWS, 1 << (left.bit_length() - 1))
        yield rows[at : at + length]
        at += length


def _width(length: int) -> int:
    """Round a list's length up, so that few texts serve all lengths."""
    return 1 << (length - 1).bit_length() if length > 1 else length


def _plain(value: Any) -> Any:
    """Write a time as text, which both databases read; leave the rest."""
    return _write_time(value) if isinstance(value, datetime) else value
