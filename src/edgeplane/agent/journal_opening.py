"""Opening the journal: made where there never was one, refused where it is not sound.

A file that is damaged, foreign or of another version stops the start: an agent that began with an
empty journal would do again what it has done.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from edgeplane.agent.journal_file import KEPT_ENTRIES, JournalFile, size_of

SCHEMA_VERSION: Final = 1

_CHECKED_BYTES = 32 << 20  #: a larger file is checked page by page, as it is read
_CACHE_KIB = 2_048
_WAL_BYTES = 16 << 20

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE epochs (
    node_id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    turn INTEGER NOT NULL UNIQUE
);
CREATE TABLE requests (
    request_id TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    digest BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'done')),
    status TEXT CHECK (status IN ('success', 'failed')),
    message TEXT,
    begun_at INTEGER NOT NULL,
    done_at INTEGER
);
"""
#: What later releases added: an older journal gets it, and its release can still read it.
_ADDED = (
    "CREATE INDEX IF NOT EXISTS requests_by_end ON requests (done_at) WHERE state = 'done'",
    """CREATE TABLE IF NOT EXISTS generations (
        node_id INTEGER PRIMARY KEY,
        generation INTEGER NOT NULL,
        turn INTEGER NOT NULL UNIQUE
    )""",
)


class JournalError(Exception):
    """The journal cannot be used; the message is one line for the person who starts the agent."""


def open_journal(path: Path, kept: int = KEPT_ENTRIES) -> JournalFile:
    """Open the journal, or make it where there never was one.

    Args:
        path: the file.
        kept: how many entries stay whatever their age.

    Raises:
        JournalError: it is damaged, foreign, of another version, or cannot be opened.

    """
    try:
        if not path.exists():
            _make(path)
        connection = _connect(path)
        try:
            _check(path, connection)
            _set_up(connection)
            for statement in _ADDED:
                connection.execute(statement)
            return JournalFile(path, connection, kept)
        except BaseException:
            connection.close()
            raise
    except sqlite3.OperationalError as error:
        raise JournalError(f"{path}: the journal cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise JournalError(f"{path}: the journal cannot be opened: {error.strerror}") from error


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
    )


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")


def _check(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a file that is not a sound journal of this version."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not {"meta", "epochs", "requests"} <= tables:
        raise _damaged(path, "it holds no journal")
    version = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    if version is None or version[0] != SCHEMA_VERSION:
        raise JournalError(
            f"{path}: the journal has version {version[0] if version else 'unknown'}, this agent"
            f" reads version {SCHEMA_VERSION}; start the release of edgeplane that wrote it"
        )
    if path.stat().st_size <= _CHECKED_BYTES:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _damaged(path, verdict.splitlines()[0])
    path.chmod(0o600)


def _damaged(path: Path, reason: str) -> JournalError:
    return JournalError(
        f"{path}: the journal is damaged ({reason}); restore it from a backup, or move it and its"
        " -wal file away to start with an empty one, which may do again what was done before"
    )


def _make(path: Path) -> None:
    """Make an empty journal under another name first, so that a half-made one never counts."""
    if size_of(Path(f"{path}-wal")):
        raise _damaged(path, "the file is gone, its -wal file is not")
    draft = path.with_name(f"{path.name}.new")
    for suffix in ("", "-wal", "-shm"):  # of a process that died here
        Path(f"{draft}{suffix}").unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with closing(_connect(draft)) as connection:
            _set_up(connection)
            connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
            connection.execute("INSERT INTO meta VALUES ('schema', ?)", (SCHEMA_VERSION,))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
