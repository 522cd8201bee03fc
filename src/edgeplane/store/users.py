"""User rows."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from edgeplane.model.errors import AlreadyExists, NotFound
from edgeplane.model.users import Role, User
from edgeplane.store.rows import users
from edgeplane.store.workers import Tx

_U = users.c


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and the hash of the password."""

    user: User
    password_hash: str

    def __repr__(self) -> str:
        """Leave out the hash."""
        return f"Credentials({self.user.username})"


def add(tx: Tx, username: str, password_hash: str, role: Role) -> User:
    """Insert an active user.

    Raises:
        AlreadyExists: the name is taken.

    """
    values = {
        "username": username,
        "password_hash": password_hash,
        "role": role.value,
        "active": True,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    try:
        key: Any = tx.conn.execute(insert(users).values(values)).inserted_primary_key
    except IntegrityError as error:
        raise AlreadyExists(f"username: {username} already exists") from error
    return User(id=int(key[0]), username=username, role=role, active=True, created_at=tx.now)


def by_name(tx: Tx, username: str) -> Credentials | None:
    """Return a user with the password's hash."""
    if not username.isascii():  # no name is; MariaDB would refuse to compare
        return None
    row = tx.conn.execute(select(users).where(_U.username == username)).first()
    if row is None or row.username != username:  # MariaDB passes over blanks at the end
        return None
    return Credentials(_user(row), row.password_hash)


def by_id(tx: Tx, user_id: int) -> Credentials | None:
    """Return a user with the password's hash."""
    row = tx.conn.execute(select(users).where(_U.id == user_id)).first()
    return None if row is None else Credentials(_user(row), row.password_hash)


def everyone(tx: Tx) -> list[User]:
    """Return all users, oldest first."""
    return [_user(row) for row in tx.conn.execute(select(users).order_by(_U.id))]


def count(tx: Tx) -> int:
    """Return how many users there are."""
    return tx.conn.scalar(select(func.count()).select_from(users)) or 0


def change(tx: Tx, username: str, **values: Any) -> None:
    """Write some of a user's columns.

    Raises:
        NotFound: nobody has that name.

    """
    statement = update(users).where(_U.username == username).values(**values, updated_at=tx.now)
    if not username.isascii() or tx.conn.execute(statement).rowcount == 0:
        raise NotFound(f"username: no user is named {username}")


def _user(row: Any) -> User:
    return User(
        id=row.id,
        username=row.username,
        role=Role(row.role),
        active=row.active,
        created_at=row.created_at,
    )
