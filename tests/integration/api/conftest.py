"""The REST door on a real store, called in this process: no engine, so that tasks stay put."""

import pytest

from edgeplane.auth import passwords
from edgeplane.model.users import Role
from kit.asgi import Caller
from kit.houses import CHEAP_HASH, build


@pytest.fixture(autouse=True)
def cheap_nobody(monkeypatch):
    """Let a login of nobody cost as little as that of the tests' users."""
    monkeypatch.setattr(passwords, "_NOBODY", CHEAP_HASH)


@pytest.fixture
async def house(sqlite_template, tmp_path):
    """Run a control plane on SQLite."""
    built = await build(sqlite_template.copy(tmp_path))
    yield built
    await built.database.close()


@pytest.fixture(params=["sqlite", "mariadb"])
async def either_house(request, tmp_path):
    """Run a control plane on either dialect."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_template").copy(tmp_path)
    else:
        url = request.getfixturevalue("mariadb_tables")
    built = await build(url)
    yield built
    await built.database.close()


@pytest.fixture
def api(house):
    """Call as an operator."""
    return house.callers[Role.OPERATOR]


@pytest.fixture
def anyone(house):
    """Call without a token."""
    return Caller(house.app)
