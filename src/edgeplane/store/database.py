"""The database as the rest of the house sees it: hand in work, get its result after the commit."""

import asyncio
import os
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from pymysql.connections import Connection
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from edgeplane.store.workers import Tx, Worker

T = TypeVar("T")

#: Times are read at the speed of C; the driver's own way is a regular expression for each.
_CONVERSIONS = {**conversions, FIELD_TYPE.DATETIME: datetime.fromisoformat}

_SQLITE_SHARE = 64  #: works that may share a commit
_READERS = 4
_STATEMENT_SECONDS = 10.0


class _Connection(Connection):  # type: ignore[misc]
    """The driver's connection, quick with what most values of the hot statements are.

    It writes values into the text of a statement, and looks at a number as it would at anything.
    """

    def escape(self, obj: object, mapping: Any = None) -> str:
        """Write a value as SQL."""
        if type(obj) is int:
            return str(obj)
        return "NULL" if obj is None else super().escape(obj, mapping)


class Database:
    """A store on SQLite or MariaDB/MySQL.

    SQLite has one writer, so all writes share one thread and, under load, commits. MariaDB has
    four write connections, so that a person's request queues behind neither the creates nor the
    engine nor a fan-out.

    Args:
        url: where it is.
        faults: called, from any thread, with the kind of each failed transaction: ``away``,
            ``passing`` or ``refused``.

    """

    def __init__(self, url: URL, faults: Callable[[str], None] = lambda _: None) -> None:
        self.url = url
        self.dialect = url.get_backend_name()
        self.engine = make_engine(url)
        if self.dialect == "sqlite":
            writer = Worker("write", self.engine, share=_SQLITE_SHARE, faults=faults)
            self._rules = self._creates = self._engine_lane = self._steps = writer
        else:
            self._rules = Worker("write", self.engine, faults=faults)
            self._creates = Worker("create", self.engine, faults=faults)
            self._engine_lane = Worker("engine", self.engine, faults=faults)
            self._steps = Worker("steps", self.engine, faults=faults)
        self._reads = Worker("read", self._reading(), threads=_READERS, faults=faults)
        self._peeks = (
            self._reads
            if self.dialect == "sqlite"
            else Worker("peek", self._peeking(), faults=faults)
        )
        #: Called on the event loop after each transaction that may have changed something.
        self.on_commit: Callable[[], None] = _nobody

    def _reading(self) -> Engine:
        """Return the engine as readers use it: one snapshot for all statements of a transaction."""
        if self.dialect == "sqlite":
            return self.engine.execution_options(reading=True)
        return self.engine.execution_options(isolation_level="REPEATABLE READ")

    def _peeking(self) -> Engine:
        return self.engine.execution_options(isolation_level="READ UNCOMMITTED")

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run a rule's transaction; return its result once it is committed."""
        result = await self._rules.submit(work)
        self.on_commit()
        return result

    async def create(self, work: Callable[[Tx], T]) -> T:
        """Run a transaction of creates; it must be harmless when done twice."""
        result = await self._creates.submit(work, repeatable=True)
        self.on_commit()
        return result

    async def engine_write(self, work: Callable[[Tx], T]) -> T:
        """Run a transaction of the engine."""
        result = await self._engine_lane.submit(work)
        self.on_commit()
        return result

    async def step(self, work: Callable[[Tx], T]) -> T:
        """Run a step of an operation, or another transaction nobody waits for."""
        result = await self._steps.submit(work)
        self.on_commit()
        return result

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Run a transaction that changes nothing."""
        return await self._reads.submit(work, repeatable=True)

    async def peek(self, work: Callable[[Tx], T]) -> T:
        """Run a look that also sees what is not committed yet (on SQLite there is no such look)."""
        return await self._peeks.submit(work, repeatable=True)

    async def close(self) -> None:
        """Let what was handed in finish, then end the threads and connections."""
        writers = {self._rules, self._creates, self._engine_lane, self._steps}
        workers = {*writers, self._reads, self._peeks}
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in workers))
        self.engine.dispose()


def _nobody() -> None:
    """Nobody waits for commits."""


def make_engine(url: URL, *, seconds: float = _STATEMENT_SECONDS) -> Engine:
    """Make an engine whose connections are durable, strict and in UTC.

    ``seconds`` is how long MariaDB may take to answer a statement: one whose host is gone must not
    hold up the engine for longer than a repair may take.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url)
    engine = create_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,  # errors are logged: payloads and password hashes are not
        isolation_level="READ COMMITTED",
        paramstyle="format",  # values by position: less work for each than by name
        connect_args={
            "conv": _CONVERSIONS,
            "connect_timeout": 5,
            "read_timeout": seconds,
            "write_timeout": seconds,
            # A client that froze, or whose machine is gone, must not hold rows until TCP notices:
            # MariaDB ends its transaction. (MySQL has no such setting, and skips the comment.) It
            # is not idle while the server tries to send it an answer that it does not read.
            "init_command": "SET time_zone = '+00:00', innodb_lock_wait_timeout = 5,"
            " net_write_timeout = 5, /*M! idle_transaction_timeout = 5, */"
            " sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
        },
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, args: Any, options: Any) -> _Connection:
        return _Connection(*args, **options)

    return engine


def _sqlite_engine(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        # It holds password hashes: no one else may read it, nor the log beside it.
        os.close(os.open(url.database, os.O_RDWR | os.O_CREAT, 0o600))
    engine = create_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": 5.0},
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        # Its own lower() knows ASCII only.
        connection.create_function("lower", 1, lambda text: str(text).lower(), deterministic=True)
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "cache_size = -65536",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Any) -> None:
        # Readers take no lock; a writer takes it at once rather than half-way.
        reading = connection.get_execution_options().get("reading", False)
        cursor = connection.connection.cursor()  # not through SQLAlchemy: every task pays for it
        cursor.execute("BEGIN" if reading else "BEGIN IMMEDIATE")
        cursor.close()

    return engine
