"""Fixtures every folder of tests may use."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from kit.servers import MariaDB, Redis

_numbers = count(1)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A real MariaDB, for the whole session."""
    server = MariaDB(_reachable(tmp_path_factory) / "mariadb")
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


def _reachable(factory: pytest.TempPathFactory) -> Path:
    """Return a folder that MariaDB's own user can reach: pytest's are private to this one."""
    folder = factory.mktemp("servers")
    for part in (folder, *folder.parents):
        if part == Path(part.anchor) or part.name == "tmp":
            break
        part.chmod(part.stat().st_mode | 0o011)
    return folder
