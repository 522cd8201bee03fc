"""What many runs share: the process that forks, a database as it is when new, and the servers."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import SimpleQueue

from kit.forks import Forks
from kit.processes import ControlPlane
from kit.servers import MariaDB, Redis
from kit.tables import Tables

_FRESH = "fresh"


@dataclass(slots=True, eq=False)
class Servers:
    """A MariaDB and a Redis, for one run at a time: it may kill them."""

    mariadb: MariaDB
    redis: Redis
    token: str = ""  #: good on every database of it


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run's control planes keep their tables."""

    settings: dict[str, str]
    tables: Tables
    token: str
    servers: Servers | None


class Ground:
    """Made once for many runs; ``close`` leaves nothing.

    Args:
        folder: for everything; MariaDB's own user must be let in.
        most: so many runs with servers may be under way at once.

    """

    def __init__(self, folder: Path, most: int = 3) -> None:
        self.folder = folder
        self.forks = Forks()
        self._stack = ExitStack()
        self._stack.callback(self.forks.close)
        self._numbers = count(1)
        self._free: SimpleQueue[Servers | None] = SimpleQueue()
        for _ in range(most):
            self._free.put(None)  # made when it is first needed
        fresh = self._control(folder / _FRESH, {})
        fresh.up()
        self._token = fresh.token  # good in every run: users and secret are the same
        assert fresh.stop() == 0
        self._file = folder / _FRESH / "state" / "edgeplane.db"
        assert not self._file.with_name("edgeplane.db-wal").exists()

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def _control(self, folder: Path, settings: dict[str, str]) -> ControlPlane:
        control = ControlPlane(folder, settings)
        control.how = self.forks.start
        return control

    def on_sqlite(self, control: Path) -> Place:
        """Give one control plane, by its folder, a new SQLite file."""
        state = control / "state"
        state.mkdir(parents=True, mode=0o700)
        shutil.copyfile(self._file, state / "edgeplane.db")
        return Place({}, Tables.of_sqlite(state / "edgeplane.db"), self._token, None)

    @contextmanager
    def on_mariadb(self, *, redis: bool) -> Iterator[Place]:
        """Lend servers, with a new database on them; waits until some are free."""
        servers = self._free.get() or self._make_servers()
        try:
            name = f"run_{next(self._numbers)}"
            settings = {"MYSQL_DSN": _copy(servers.mariadb, name)}
            if redis:
                settings["REDIS_ADDR"] = servers.redis.address
            tables = Tables.of_mariadb(servers.mariadb, name)
            yield Place(settings, tables, servers.token, servers)
            _drop(servers.mariadb, name)
        finally:
            self._free.put(servers)

    def _make_servers(self) -> Servers:
        place = self.folder / f"servers{next(self._numbers)}"
        place.mkdir(mode=0o755)
        servers = Servers(MariaDB(place / "mariadb"), Redis(place / "redis"))
        for server in (servers.mariadb, servers.redis):
            self._stack.callback(server.kill)
            server.start()
        fresh = self._control(
            place / "control", {"MYSQL_DSN": servers.mariadb.create_database(_FRESH)}
        )
        fresh.up()
        servers.token = fresh.token
        assert fresh.stop() == 0
        return servers


def _copy(server: MariaDB, name: str) -> str:
    """Make a database like the fresh one; return its DSN."""
    dsn = server.create_database(name)
    with server.connect(_FRESH) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW TABLES")
        tables = [table for (table,) in cursor.fetchall()]
        made = []
        for table in tables:
            cursor.execute(f"SHOW CREATE TABLE `{table}`")
            made.append(cursor.fetchall()[0][1])
        cursor.execute(f"USE `{name}`")
        cursor.execute("SET foreign_key_checks = 0")
        for statement in made:
            cursor.execute(statement)
        for table in tables:
            cursor.execute(f"INSERT INTO `{table}` SELECT * FROM `{_FRESH}`.`{table}`")
    return dsn


def _drop(server: MariaDB, name: str) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE `{name}`")
