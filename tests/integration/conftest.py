"""A migrated, empty database of each dialect, for all tests on a real store."""

import pytest

from edgeplane.store.database import Database
from kit import factories


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory):
    """A SQLite file with the tables."""
    return factories.SqliteTemplate.make(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def mariadb_tables(mariadb):
    """The URL of a MariaDB database with the tables."""
    return factories.mysql_url(mariadb.create_database("integration_tests"))


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request, tmp_path):
    """Where the tables of this test are: on either dialect."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_template").copy(tmp_path)
    return request.getfixturevalue("mariadb_tables")


@pytest.fixture
async def database(url):
    """An open store on empty tables."""
    opened = Database(url)
    if opened.dialect != "sqlite":
        await opened.write(factories.clear)
    yield opened
    await opened.close()
