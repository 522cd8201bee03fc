"""Steps of migrations that may be taken again: MariaDB keeps those of one that was killed."""

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

#: Of every table.
OPTIONS: Final[dict[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mariadb_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
}


def add_index(name: str, table: str, columns: list[str]) -> None:
    """Make an index, where it is not there yet."""
    if name not in _indexes(table):
        op.create_index(name, table, columns)


def drop_index(name: str, table: str) -> None:
    """Remove an index, where it is still there."""
    if name in _indexes(table):
        op.drop_index(name, table)


def add_column(table: str, column: "sa.Column[Any]") -> None:
    """Add a column, where it is not there yet."""
    if column.name not in _columns(table):
        op.add_column(table, column)


def drop_column(table: str, name: str) -> None:
    """Remove a column, where it is still there."""
    if name in _columns(table):
        op.drop_column(table, name)


def _indexes(table: str) -> set[str | None]:
    return {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}


def _columns(table: str) -> set[str]:
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
