"""Fixtures every folder of tests may use."""

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from kit.servers import MariaDB, Redis

_numbers = count(1)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A real MariaDB, for the whole session."""
    # Not below pytest's own folders: those are closed to the user the server runs as.
    with tempfile.TemporaryDirectory(prefix="edgeplane-mariadb-") as folder:
        Path(folder).chmod(0o755)
        server = MariaDB(Path(folder) / "server")
        server.start()
        yield server
        server.kill()


@pytest.fixture
def mysql_dsn(mariadb: MariaDB) -> str:
    """The DSN of a new, empty database on it."""
    return mariadb.create_database(f"test_{next(_numbers)}")


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A real Redis, for the whole session."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()
