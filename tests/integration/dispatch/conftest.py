"""A migrated, empty database of each dialect."""

import pytest

from edgeplane.model.tasks import TaskKind
from edgeplane.store.database import Database
from kit import factories
from kit.engines import Turner
from kit.factories import add_nodes, add_tasks, new_task, stored


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory):
    """A SQLite file with the tables."""
    return factories.SqliteTemplate.make(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def mariadb_tables(mariadb):
    """The URL of a MariaDB database with the tables."""
    return factories.mysql_url(mariadb.create_database("dispatch_tests"))


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


@pytest.fixture
def turner(database):
    """Takes turns by hand on the empty tables."""
    return Turner(database)


@pytest.fixture
async def node_id(database):
    """Register a node."""
    return (await database.write(lambda tx: add_nodes(tx, 1)))[0]


@pytest.fixture
def ask(database):
    """Store tasks by the rule: ``await ask(node_id, kind, …, number=1)``."""

    async def store(node_id, kind=TaskKind.RELOAD, number=1, **given):
        asked = [new_task(node_id, kind=kind, **given) for _ in range(number)]
        return await database.create(lambda tx: add_tasks(tx, asked))

    return store


@pytest.fixture
def look(database):
    """Read tasks anew: ``await look(tasks)``."""

    async def read(asked):
        return await database.read(lambda tx: [stored(tx, task.id) for task in asked])

    return read
