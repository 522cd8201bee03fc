"""Threads that own a database connection each, and the transactions they run.

A unit of work is a plain function of a transaction. It runs whole in one thread: one hop from the
event loop and back for a transaction, however many statements it has. On SQLite the works that wait
share one commit, each behind a savepoint of its own; every caller is answered after the commit.
"""

import asyncio
import logging
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import pymysql
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from edgeplane.model.clock import utc_now
from edgeplane.model.errors import DatabaseAway, DatabaseError, DomainError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Lock wait time-out and deadlock: the transaction is gone and may be run again as it was.
_TRANSIENT = frozenset({1205, 1213, 1020})
#: The server is away, going away, or has not come up yet.
_AWAY = frozenset(
    {1040, 1053, 1152, 1158, 1159, 1160, 1161, 1927}
    | {2002, 2003, 2006, 2013, 2014, 2045, 2055, 4031}
)
#: What can go wrong below us: SQLAlchemy's errors, the drivers' own, the network's.
_FAULTS = (SQLAlchemyError, sqlite3.Error, pymysql.MySQLError, OSError)
#: Kinds of them, as they are counted.
FAULTS = ("away", "passing", "refused")
_TRANSIENT_TRIES = 10
_AWAY_TRIES = 3


@dataclass(frozen=True, slots=True)
class Tx:
    """An open transaction: its connection, and the database's time when it began."""

    conn: Connection
    now: datetime
    dialect: str


@dataclass(slots=True)
class _Work:
    function: Callable[[Tx], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    repeatable: bool
    sent: bool = False  #: its COMMIT went out: without an answer, whether it was done is not known
    result: Any = None
    error: BaseException | None = None


class Worker:
    """One or more threads that serve one queue, each with a connection of its own."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        threads: int = 1,
        share: int = 1,
        faults: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._faults = faults
        self._share = share
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let what was handed in finish, then end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def submit(
        self, function: Callable[[Tx], T], *, repeatable: bool = False
    ) -> "asyncio.Future[T]":
        """Hand in a unit of work; the future resolves after its COMMIT.

        Args:
            function: what to do in the transaction; it may run again, on a new one.
            repeatable: doing it again after a commit whose answer was lost does no harm.

        Raises (through the future):
            DomainError: what the function raised; its changes are undone.
            DatabaseAway: the database cannot be reached; whether it was done may be unknown.
            DatabaseError: the database refused.

        """
        loop = asyncio.get_running_loop()
        work = _Work(function, loop, loop.create_future(), repeatable)
        self._queue.put(work)
        return work.future

    def _serve(self) -> None:
        connection: Connection | None = None
        while (first := self._queue.get()) is not None:
            group = [first, *self._waiting()]
            connection = self._carry_out(group, connection)
            for work in group:
                _answer(work)
        if connection is not None:
            connection.close()

    def _waiting(self) -> list[_Work]:
        group: list[_Work] = []
        while len(group) < self._share - 1:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                break
            if work is None:
                self._queue.put(None)
                break
            group.append(work)
        return group

    def _carry_out(self, group: list[_Work], connection: Connection | None) -> Connection | None:
        """Run a group in one transaction, again as long as that can help; keep the connection."""
        away = 0
        for number in range(1, _TRANSIENT_TRIES + 1):
            reused = connection is not None
            try:
                connection = connection or self._engine.connect()
                self._transact(connection, group)
            except Exception as error:  # noqa: BLE001 (the thread must outlive whatever it is)
                if not isinstance(error, _FAULTS):
                    _fail(group, error)
                    return _abandon(connection)
                connection = _dispose(connection, error)
                self._faults(_kind(error))
                away += _is_away(error)
                harmless = _is_away(error) and _may_repeat(group, reused=reused)
                hopeless = number == _TRANSIENT_TRIES or away >= _AWAY_TRIES
                if hopeless or not (_is_transient(error) or harmless):
                    return self._give_up(group, error, connection)
                time.sleep(random.uniform(0, 0.02 * 2 ** min(number, 5)))  # noqa: S311
            else:
                break
        return connection

    def _give_up(
        self, group: list[_Work], error: BaseException, connection: Connection | None
    ) -> Connection | None:
        """Let one work's error be its own: those that shared its transaction run again alone."""
        if len(group) == 1 or _is_away(error):
            _fail(group, error)
            return connection
        for work in group:
            connection = self._carry_out([work], connection)
        return connection

    def _transact(self, connection: Connection, group: list[_Work]) -> None:
        transaction = connection.begin()
        try:
            tx = Tx(connection, _database_time(connection), connection.dialect.name)
            if len(group) == 1:
                _run(group[0], tx)
                if group[0].error is not None:
                    transaction.rollback()
                    return
            else:
                for work in group:
                    _run_behind_savepoint(work, tx)
            for work in group:
                work.sent = True
            transaction.commit()
        except BaseException:
            with suppress(*_FAULTS):
                transaction.rollback()
                if not connection.invalidated:  # a COMMIT that failed may have left it open
                    connection.connection.rollback()
            raise


def _may_repeat(group: list[_Work], *, reused: bool) -> bool:
    """Whether doing it again does no harm; a kept connection may just have gone stale."""
    return all(work.repeatable or (reused and not work.sent) for work in group)


def _run(work: _Work, tx: Tx) -> None:
    work.error = work.result = None
    work.sent = False
    try:
        work.result = work.function(tx)
    except _FAULTS:
        raise
    except Exception as error:  # noqa: BLE001 (handed to whoever waits)
        work.error = error


def _run_behind_savepoint(work: _Work, tx: Tx) -> None:
    savepoint = tx.conn.begin_nested()
    _run(work, tx)
    if work.error is None:
        savepoint.commit()
    else:
        savepoint.rollback()


def _database_time(connection: Connection) -> datetime:
    """Ask the database for its time; SQLite has no clock but this machine's."""
    if connection.dialect.name == "sqlite":
        return utc_now()
    cursor = connection.connection.cursor()
    cursor.execute("SELECT UTC_TIMESTAMP(3)")
    found = cursor.fetchall()[0][0]
    cursor.close()
    return found.replace(tzinfo=UTC)  # type: ignore[no-any-return]


def _answer(work: _Work) -> None:
    def resolve() -> None:
        if work.future.done():
            return
        if work.error is None:
            work.future.set_result(work.result)
        else:
            work.future.set_exception(work.error)

    with suppress(RuntimeError):  # the loop is gone, and with it whoever waited
        work.loop.call_soon_threadsafe(resolve)


def _fail(group: list[_Work], error: BaseException) -> None:
    answer: DomainError
    if _is_away(error) or _is_transient(error):
        log.warning("database away: %s", _words(error))
        answer = DatabaseAway("database is not available just now: send the request again")
    else:
        log.error("database error: %s", _words(error), exc_info=error)
        answer = DatabaseError("database error")
    for work in group:
        work.error = answer


def _dispose(connection: Connection | None, error: BaseException) -> Connection | None:
    if connection is None or not _is_away(error):
        return connection
    return _abandon(connection)


def _abandon(connection: Connection | None) -> Connection | None:
    """End a connection whose state nobody knows; the next work makes its own."""
    if connection is not None:
        with suppress(Exception):
            connection.invalidate()
            connection.close()
    return None


def _number(error: BaseException) -> int:
    cause = error.orig if isinstance(error, DBAPIError) else error
    number = cause.args[0] if cause is not None and cause.args else 0
    return number if isinstance(number, int) else 0


def _is_transient(error: BaseException) -> bool:
    return _number(error) in _TRANSIENT or "database is locked" in str(error)


def _is_away(error: BaseException) -> bool:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    # What PyMySQL raises on a connection it has closed itself has no number.
    return isinstance(error, OSError | pymysql.InterfaceError) or _number(error) in _AWAY


def _kind(error: BaseException) -> str:
    """Say in one word whether the database was away, refused, or failed in a way that passes."""
    return "away" if _is_away(error) else "passing" if _is_transient(error) else "refused"


def _words(error: BaseException) -> str:
    """Return the driver's own words: SQL and its values stay out of the log."""
    return str(error.orig if isinstance(error, DBAPIError) else error)
