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
from edgeplane.store.rows import metadata

T = TypeVar("T")

_SECONDS = 3600.0  #: a large table may take long to change
_TURN_SECONDS = 300


class SchemaError(Exception):
    """The tables cannot be reached or changed; the message is one line."""


def upgrade(url: URL) -> int:
    """Bring the schema to this version, from empty or any earlier one; return how many tables.

    One process at a time, and again after one that was killed half-way: MariaDB commits each
    statement that changes the schema, so a migration makes only what is not there yet. That is also
    how a table comes back that somebody dropped: all steps are taken again.
    """

    def work(connection: Connection) -> int:
        _wait_for_turn(connection)
        config = _config(connection)
        if _revision(connection) == _head() and _missing(connection):
            command.stamp(config, "base")
        command.upgrade(config, "head")
        tables = inspect(connection).get_table_names()
        return len([table for table in tables if table != "alembic_version"])

    return _run(url, work)


def downgrade(url: URL, revision: str) -> None:
    """Take the schema back to a revision (``base``: nothing left)."""

    def work(connection: Connection) -> None:
        _wait_for_turn(connection)
        _revision(connection)
        command.downgrade(_config(connection), revision)

    _run(url, work)


def check(url: URL) -> None:
    """Raise SchemaError when the tables declared differ from those migrated to."""
    _run(url, lambda connection: command.check(_config(connection)))


def state(url: URL) -> tuple[str | None, str | None]:
    """Return the revision the database is at, and the one this version needs."""
    return _run(url, _revision), _head()


def problem(url: URL) -> str | None:
    """Say what `upgrade` would mend, if anything: ``is empty, this version needs 0001``.

    Raises:
        SchemaError: the database cannot be reached, or a newer release has written it.

    """

    def work(connection: Connection) -> str | None:
        found, needed = _revision(connection), _head()
        if found != needed:
            at = f"at revision {found}" if found else "empty"
            return f"is {at}, this version needs {needed}"
        missing = _missing(connection)
        return f"has lost {', '.join(missing)}" if missing else None

    return _run(url, work)


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


def _revision(connection: Connection) -> str | None:
    """Return the revision a database is at. Raises SchemaError for one that is not known here."""
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise SchemaError(f"written by a newer release (revision {found}): start that one")
    return found


def _head() -> str | None:
    return _scripts().get_current_head()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _missing(connection: Connection) -> list[str]:
    """Name the tables that are declared and not there."""
    return sorted(set(metadata.tables) - set(inspect(connection).get_table_names()))


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
