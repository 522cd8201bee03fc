"""Migrations: up, down, and whether the schema is the one this version needs."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from edgeplane.store.database import make_engine

T = TypeVar("T")

_SECONDS = 3600.0  #: a large table may take long to change
_TURN_SECONDS = 300


class SchemaError(Exception):
    """The tables cannot be reached or changed; the message is one line."""


def upgrade(url: URL) -> int:
    """Bring the schema to this version, from empty or any earlier one; return how many tables.

    One process at a time, and again after one that was killed half-way: MariaDB commits each
    statement that changes the schema, so a migration makes only what is not there yet.
    """

    def work(connection: Connection) -> int:
        _wait_for_turn(connection)
        command.upgrade(_config(connection), "head")
        tables = inspect(connection).get_table_names()
        return len([table for table in tables if table != "alembic_version"])

    return _run(url, work)


def downgrade(url: URL, revision: str) -> None:
    """Take the schema back to a revision (``base``: nothing left)."""
    _run(url, lambda connection: command.downgrade(_config(connection), revision))


def check(url: URL) -> None:
    """Raise SchemaError when the tables declared differ from those migrated to."""
    _run(url, lambda connection: command.check(_config(connection)))


def state(url: URL) -> tuple[str | None, str | None]:
    """Return the revision the database is at, and the one this version needs."""
    needed = ScriptDirectory.from_config(_config()).get_current_head()
    found = _run(
        url, lambda connection: MigrationContext.configure(connection).get_current_revision()
    )
    return found, needed


def _run(url: URL, work: Callable[[Connection], T]) -> T:
    try:
        with make_engine(url, seconds=_SECONDS).connect() as connection:
            result = work(connection)
            if connection.in_transaction():
                connection.commit()
            return result
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        words = cause.args[-1] if cause.args else cause
        raise SchemaError(str(words).splitlines()[0]) from error
    except CommandError as error:
        raise SchemaError(f"migration: {str(error).splitlines()[0]}") from error


def _wait_for_turn(connection: Connection) -> None:
    """Hold the right to migrate until the connection ends. Raises SchemaError."""
    if connection.dialect.name == "sqlite":
        return  # one process per file, and a transaction around everything
    lock = text("SELECT GET_LOCK(CONCAT('edgeplane:', DATABASE()), :seconds)")
    if connection.scalar(lock, {"seconds": _TURN_SECONDS}) != 1:
        raise SchemaError("another process has been migrating it for long: look what it does")
    connection.commit()


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
