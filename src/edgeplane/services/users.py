"""People: who may log in, with what, and who is calling."""

import secrets
import time
from dataclasses import dataclass

from edgeplane.auth import passwords
from edgeplane.auth.rbac import Principal
from edgeplane.auth.throttle import LoginThrottle
from edgeplane.auth.tokens import Tokens
from edgeplane.model.clock import rfc3339
from edgeplane.model.errors import AlreadyExists, BadCredentials, TooMany, Unauthenticated
from edgeplane.model.users import Role, User, check_password, check_username
from edgeplane.observe.metrics import Metrics
from edgeplane.store import users
from edgeplane.store.database import Database
from edgeplane.store.workers import Tx

#: How long a caller's standing is remembered: a user disabled elsewhere, or whose password was
#: changed there, is out within this time.
STANDING_SECONDS = 2.0
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class _Standing:
    """What is remembered of a user: who it is, if let in, and the mark of the password."""

    principal: Principal | None
    password_mark: str
    until: float  #: monotonic


async def create(database: Database, username: str, password: str, role: Role) -> User:
    """Make an active user.

    Raises:
        Invalid, NotAllowed: a name or password that cannot be.
        AlreadyExists: the name is taken.

    """
    name = check_username(username)
    stored = await passwords.make_hash(check_password(password))
    return await database.write(lambda tx: users.add(tx, name, stored, role))


async def list_all(database: Database) -> list[User]:
    """Return all users."""
    return await database.read(users.everyone)


async def set_password(database: Database, username: str, password: str) -> None:
    """Replace a password; raise NotFound, NotAllowed."""
    stored = await passwords.make_hash(check_password(password))
    await database.write(lambda tx: users.change(tx, username, password_hash=stored))


async def set_role(database: Database, username: str, role: Role) -> None:
    """Give a user another role; raise NotFound."""
    await database.write(lambda tx: users.change(tx, username, role=role.value))


async def set_active(database: Database, username: str, *, active: bool) -> None:
    """Let a user in, or keep them out; raise NotFound."""
    await database.write(lambda tx: users.change(tx, username, active=active))


async def ensure_admin(database: Database, password: str | None) -> str | None:
    """Make the first user, ``admin``, where there is none yet.

    Returns:
        The password if one was made up for it, to be shown once.

    """
    if await database.read(users.count):
        return None
    made = None if password else secrets.token_urlsafe(12)
    stored = await passwords.make_hash(password or made or "")
    added = await database.write(lambda tx: _add_first(tx, stored))
    return made if added else None


def _add_first(tx: Tx, stored: str) -> bool:
    """Add the first user, unless another replica has just done so."""
    if users.count(tx):
        return False
    try:
        users.add(tx, "admin", stored, Role.ADMIN)
    except AlreadyExists:
        return False
    return True


class Sessions:
    """Logs people in, and says who a token belongs to."""

    def __init__(
        self,
        database: Database,
        tokens: Tokens,
        throttle: LoginThrottle,
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._throttle = throttle
        self._standing: dict[int, _Standing] = {}
        failed = (metrics or Metrics()).counter("edgeplane_logins_failed_total")
        self._refused = {word: failed.labels(word) for word in ("credentials", "throttled")}

    async def log_in(self, username: str, password: str, address: str) -> tuple[User, str, str]:
        """Return the user, a token, and when it expires.

        Raises:
            BadCredentials: in the same words and time for a wrong name, password or disabled user.
            TooMany: too many failures from there.

        """
        self._check_throttle(username, address)
        found = await self._database.read(lambda tx: users.by_name(tx, username))
        fits = await passwords.matches(password, found.password_hash if found else None)
        self._check_throttle(username, address)  # guesses made side by side count too
        if found is None or not fits or not found.user.active:
            self._throttle.failed(username, address)
            self._refused["credentials"].inc()
            raise BadCredentials("invalid credentials")
        self._throttle.succeeded(username, address)
        token, expires = self._tokens.issue(found.user, found.password_hash)
        return found.user, token, rfc3339(expires)

    def _check_throttle(self, username: str, address: str) -> None:
        try:
            self._throttle.check(username, address)
        except TooMany:
            self._refused["throttled"].inc()
            raise

    async def principal(self, authorization: str | None) -> Principal:
        """Return who sent an ``Authorization`` header.

        Raises:
            Unauthenticated: there is none, or it is no bearer token.
            BadCredentials, TokenExpired: the token is not valid, or not any more.

        """
        if not authorization:
            raise Unauthenticated("missing authorization header")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("invalid authorization header: expected Bearer and a token")
        claims = self._tokens.read(token.strip())
        known = self._standing.get(claims.user_id)
        fresh = known is not None and known.until > time.monotonic()
        # Another mark than the one remembered: a token that is out, or one of a new password.
        if known is None or not fresh or known.password_mark != claims.password_mark:
            known = await self._look_up(claims.user_id)
        if known.principal is None or known.password_mark != claims.password_mark:
            raise BadCredentials("invalid token")
        return known.principal

    async def _look_up(self, user_id: int) -> _Standing:
        found = await self._database.read(lambda tx: users.by_id(tx, user_id))
        principal, mark = None, ""
        if found is not None:
            mark = self._tokens.mark(found.password_hash)
            if found.user.active:
                principal = Principal(user_id, found.user.username, found.user.role)
        if len(self._standing) >= _REMEMBERED:
            self._standing.clear()
        known = _Standing(principal, mark, time.monotonic() + STANDING_SECONDS)
        self._standing[user_id] = known
        return known
