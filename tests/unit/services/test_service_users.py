"""People: the rules of names, passwords and the first user, on SQLite."""

import pytest

from edgeplane.auth import passwords
from edgeplane.model.errors import AlreadyExists, Invalid, NotAllowed, NotFound
from edgeplane.model.users import Role
from edgeplane.services import users
from edgeplane.store import users as rows
from edgeplane.store.database import Database
from kit import factories


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Make a SQLite file with the tables."""
    return factories.SqliteTemplate.make(tmp_path_factory.mktemp("template"))


@pytest.fixture
async def database(template, tmp_path, monkeypatch):
    """Open a store whose password hashes cost nothing."""
    from argon2 import PasswordHasher

    monkeypatch.setattr(
        passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    )
    opened = Database(template.copy(tmp_path))
    yield opened
    await opened.close()


async def stored(database, name):
    """Return a user with the hash."""
    return await database.read(lambda tx: rows.by_name(tx, name))


async def test_the_first_user_is_made_once(database):
    """With no password given one is made up and returned, once; later starts change nothing."""
    made = await users.ensure_admin(database, None)
    assert made is not None
    assert len(made) >= 16
    admin = await stored(database, "admin")
    assert admin.user.role is Role.ADMIN
    assert await passwords.matches(made, admin.password_hash)
    assert await users.ensure_admin(database, "another-password") is None
    assert (await stored(database, "admin")).password_hash == admin.password_hash


async def test_a_password_given_is_used_and_not_returned(database):
    """``ADMIN_PASSWORD`` is what logs in; nothing is there to be shown."""
    assert await users.ensure_admin(database, "given-password") is None
    admin = await stored(database, "admin")
    assert await passwords.matches("given-password", admin.password_hash)


async def test_where_there_is_anybody_no_admin_is_made(database):
    """An installation with users of its own gets no further one."""
    await users.create(database, "ann", "a-password", Role.VIEWER)
    assert await users.ensure_admin(database, None) is None
    assert [user.username for user in await users.list_all(database)] == ["ann"]


async def test_a_user_is_made_with_a_name_and_a_password_that_can_be(database):
    """A name is taken once; odd names and short or endless passwords are refused."""
    user = await users.create(database, "ann@example.com", "a-password", Role.OPERATOR)
    assert (user.role, user.active) == (Role.OPERATOR, True)
    with pytest.raises(AlreadyExists):
        await users.create(database, "ann@example.com", "a-password", Role.VIEWER)
    for name in ("", "a b", "a" * 65, "\u00e9", "a\n"):
        with pytest.raises(Invalid):
            await users.create(database, name, "a-password", Role.VIEWER)
    for password in ("", "short12", "p" * 257):
        with pytest.raises(NotAllowed):
            await users.create(database, "bob", password, Role.VIEWER)
    assert len(await users.list_all(database)) == 1


async def test_a_user_is_changed(database):
    """Password, role and activity, each by itself."""
    await users.create(database, "ann", "old-password", Role.VIEWER)
    await users.set_password(database, "ann", "new-password")
    await users.set_role(database, "ann", Role.ADMIN)
    await users.set_active(database, "ann", active=False)
    found = await stored(database, "ann")
    assert (found.user.role, found.user.active) == (Role.ADMIN, False)
    assert await passwords.matches("new-password", found.password_hash)
    assert not await passwords.matches("old-password", found.password_hash)
    with pytest.raises(NotAllowed):
        await users.set_password(database, "ann", "short")


@pytest.mark.parametrize("name", ["nobody", "\u00e9", "Ann"])
async def test_a_user_who_is_not_there_is_not_changed(database, name):
    """NotFound, whatever is to be changed."""
    await users.create(database, "ann", "a-password", Role.VIEWER)
    with pytest.raises(NotFound):
        await users.set_password(database, name, "a-password")
    with pytest.raises(NotFound):
        await users.set_role(database, name, Role.ADMIN)
    with pytest.raises(NotFound):
        await users.set_active(database, name, active=False)


async def test_a_hash_is_in_no_repr(database):
    """What a log or a traceback may print of a user leaves the hash out."""
    await users.create(database, "ann", "a-password", Role.VIEWER)
    found = await stored(database, "ann")
    assert found.password_hash not in repr(found)
