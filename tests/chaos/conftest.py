"""A stage for each run, and servers of these tests' own, because they are killed here."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chaos.stage import Stage
from kit.servers import MariaDB, Redis
from kit.tables import Tables

_numbers = count(1)


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Callable[[Tables], Stage]]:
    """Return a function that makes a stage; whatever runs on it is gone at the end."""
    made: list[Stage] = []

    def make(tables: Tables) -> Stage:
        made.append(Stage(tmp_path, tables))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


@pytest.fixture
def stage(stages: Callable[[Tables], Stage], tmp_path: Path) -> Stage:
    """Return a stage whose control plane keeps its tables in SQLite."""
    return stages(Tables.of_sqlite(tmp_path / "control" / "state" / "edgeplane.db"))


@pytest.fixture(scope="session")
def mortal_mariadb() -> Iterator[MariaDB]:
    """Start a MariaDB that a test may kill, if it starts it again."""
    # Not below pytest's folder: every run of pytest shuts that to other users, MariaDB's own too.
    with TemporaryDirectory(prefix="edgeplane-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = MariaDB(folder / "mariadb")
        server.start()
        yield server
        server.kill()


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[Redis]:
    """Start a Redis that a test may kill."""
    server = Redis(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def mariadb_stage(
    stages: Callable[[Tables], Stage], mortal_mariadb: MariaDB
) -> tuple[Stage, dict[str, str]]:
    """Return a stage on a new MariaDB database, and what its control planes need to be told."""
    name = f"chaos_{next(_numbers)}"
    settings = {"MYSQL_DSN": mortal_mariadb.create_database(name)}
    return stages(Tables.of_mariadb(mortal_mariadb, name)), settings
