"""The one place that builds the parts of a control plane from its settings and joins them."""

import fcntl
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from random import SystemRandom
from typing import TypeVar

import uvloop
from redis.asyncio import Redis

from edgeplane import settings as configuration
from edgeplane.api.app import make_app
from edgeplane.api.parts import Parts
from edgeplane.auth.throttle import LoginThrottle
from edgeplane.auth.tokens import Tokens
from edgeplane.dispatch.engine import Engine, Limits
from edgeplane.dispatch.hints import Hints
from edgeplane.dispatch.redis_hints import RedisHints
from edgeplane.dispatch.work import Rules
from edgeplane.listening import Server, bind
from edgeplane.model.errors import DatabaseError
from edgeplane.model.retry import RetryPolicy
from edgeplane.observe import crashpoints, logs
from edgeplane.services import users
from edgeplane.services.intake import Intake
from edgeplane.services.users import Sessions
from edgeplane.settings import Settings
from edgeplane.store import mailboxes
from edgeplane.store import migrate as migrations
from edgeplane.store.database import Database
from edgeplane.store.mailboxes import Lease
from edgeplane.store.migrate import SchemaError
from edgeplane.store.urls import URL, database_url, place
from edgeplane.transport.push import PushTransport

T = TypeVar("T")


class StartError(Exception):
    """A start that cannot be; the message is one line for whoever started it."""


def serve(settings: Settings) -> int:
    """Run the control plane until a signal; return the exit status.

    Raises:
        StartError: something it needs is not there.

    """
    logs.set_up()
    try:
        crashpoints.arm(settings.crash_at)
    except ValueError as error:
        raise StartError(str(error)) from error
    for warning in configuration.warnings(settings):
        logs.warn_loudly(warning)
    if settings.migrate:
        migrate(settings)
    elif problem := check_schema(settings):
        raise StartError(problem)
    return uvloop.run(_serve(settings))


def migrate(settings: Settings) -> int:
    """Bring the tables up to date; return how many there are. Raises StartError."""
    logs.say("Starting database migration...")
    tables = _on_schema(settings, migrations.upgrade)
    logs.say(f"✓ Database migration completed successfully ({tables} tables)")
    return tables


def migrate_down(settings: Settings, revision: str) -> None:
    """Take the tables back to a revision; ``base`` leaves none. Raises StartError."""
    _on_schema(settings, lambda url: migrations.downgrade(url, revision))


def check_schema(settings: Settings) -> str | None:
    """Say in one line what is wrong with the tables, if anything. Raises StartError."""
    found, needed = _on_schema(settings, migrations.state)
    if found == needed:
        return None
    at = f"at revision {found}" if found else "empty"
    return (
        f"the database is {at}, this version needs {needed}: "
        "run `edgeplane migrate`, or start with MIGRATE=1"
    )


def with_store(settings: Settings, use: Callable[[Database], Awaitable[T]]) -> T:
    """Open the store for one use, on the control plane's own host. Raises StartError."""
    if problem := check_schema(settings):
        raise StartError(problem)

    async def run() -> T:
        database = Database(database_url(settings.database))
        try:
            return await use(database)
        finally:
            await database.close()

    return uvloop.run(run())


def _on_schema(settings: Settings, work: Callable[[URL], T]) -> T:
    try:
        return work(database_url(settings.database))
    except SchemaError as error:
        raise StartError(f"the database at {place(settings.database)}: {error}") from error


async def _serve(settings: Settings) -> int:
    async with AsyncExitStack() as stack:
        listening = bind("HTTP_ADDR", settings.listen)
        stack.callback(listening.close)
        if settings.database.path is not None:
            stack.callback(os.close, _alone(settings.state_dir))
        database = Database(database_url(settings.database))
        stack.push_async_callback(database.close)
        await _prepare(settings, database)
        parts = await _join(settings, database, stack)
        port = listening.getsockname()[1]
        server = Server(make_app(parts), lambda: _say_running(settings, port))
        server.stop_on_signals()
        await server.serve(sockets=[listening])
    logs.say("Server stopped")
    return 0


async def _prepare(settings: Settings, database: Database) -> None:
    try:
        made = await users.ensure_admin(database, settings.auth.admin_password)
        if settings.database.path is not None:
            # One process per SQLite file: whatever was held was held by one that is gone.
            await database.write(lambda tx: mailboxes.release_all(tx, None))
    except DatabaseError as error:
        raise StartError(f"the database cannot be used: {error.message}") from error
    if made is not None:
        logs.say(f"First user: admin, password: {made} (shown this once; keep it)")


async def _join(settings: Settings, database: Database, stack: AsyncExitStack) -> Parts:
    """Build engine, hints and door; what is started here is stopped in the opposite order."""
    hints = Hints()
    tell = await _hints_between_replicas(settings, hints, stack)
    transport = PushTransport(
        settings.agent.token.value,
        connect_seconds=settings.dispatch.connect_timeout_seconds,
    )
    engine = Engine(database, transport, hints, _rules(settings), _limits(settings))
    engine.start()
    stack.push_async_callback(engine.stop)
    tokens = Tokens(
        settings.auth.jwt_secret.value,
        issuer=settings.auth.issuer,
        minutes=settings.auth.expire_minutes,
    )
    return Parts(
        database=database,
        sessions=Sessions(database, tokens, LoginThrottle()),
        intake=Intake(database, tell),
        tell=tell,
    )


async def _hints_between_replicas(
    settings: Settings, hints: Hints, stack: AsyncExitStack
) -> Callable[[Iterable[int]], None]:
    if settings.redis is None:
        return hints.tell
    redis = Redis(
        host=settings.redis.host,
        port=settings.redis.port,
        password=settings.redis.password,
        db=settings.redis.database,
        socket_connect_timeout=2.0,
        socket_keepalive=True,
        health_check_interval=10,
    )
    shared = RedisHints(redis, hints)
    shared.start()
    stack.push_async_callback(shared.stop)

    def tell(node_ids: Iterable[int]) -> None:
        told = set(node_ids)
        hints.tell(told)
        shared.tell(told)

    return tell


def _rules(settings: Settings) -> Rules:
    # A name of the machine would outlive a restart: the nonce makes the owner this process only.
    owner = f"{os.uname().nodename[:40]}-{secrets.token_hex(8)}"
    return Rules(
        lease=Lease(owner=owner, seconds=settings.dispatch.lease_seconds),
        policy=RetryPolicy(),
        random=SystemRandom(),
        max_per_node=settings.dispatch.max_per_node,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_in_flight=settings.dispatch.max_in_flight,
        renew_seconds=settings.dispatch.renew_seconds,
        poll_seconds=settings.dispatch.poll_seconds,
    )


def _say_running(settings: Settings, port: int) -> None:
    host = settings.listen.host or "localhost"
    shown = f"[{host}]" if ":" in host else host
    for secret, name in (
        (settings.auth.jwt_secret, "JWT_SECRET"),
        (settings.agent.token, "AGENT_TOKEN"),
    ):
        if secret.source != name:
            logs.say(f"{name}: kept in {secret.source}")
    logs.say(f"Server running on http://{shown}:{port}/")


def _alone(state_dir: Path) -> int:
    """Hold the state folder: a second process on the same SQLite file is refused."""
    held = os.open(state_dir / "edgeplane.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise StartError(
            f"another control plane runs on {state_dir}: stop it, or give this one its own "
            "EDGEPLANE_STATE_DIR"
        ) from error
    return held
