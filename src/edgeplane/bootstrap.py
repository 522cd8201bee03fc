"""The one place that builds the parts of a control plane from its settings and joins them."""

import fcntl
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from random import SystemRandom
from socket import socket
from typing import TypeVar

import uvloop

from edgeplane import environ
from edgeplane import settings as configuration
from edgeplane.api.app import make_app
from edgeplane.api.parts import Parts
from edgeplane.auth.throttle import LoginThrottle
from edgeplane.auth.tokens import Tokens
from edgeplane.dispatch.conductor import Conductor
from edgeplane.dispatch.engine import Engine, Limits
from edgeplane.dispatch.health import Health
from edgeplane.dispatch.hints import Hints
from edgeplane.dispatch.meters import follow_connections
from edgeplane.dispatch.presence import Presence
from edgeplane.dispatch.redis_hints import RedisHints, connect
from edgeplane.dispatch.retention import Pruned, Retention
from edgeplane.dispatch.work import Rules
from edgeplane.environ import SettingError
from edgeplane.http1.bounds import Bounds
from edgeplane.listening import Server, bind, within_files
from edgeplane.model.errors import DatabaseError
from edgeplane.model.retry import RetryPolicy
from edgeplane.observe import crashpoints, garbage, logs
from edgeplane.observe.metrics import Metrics
from edgeplane.observe.process import ProcessWatch
from edgeplane.services import users
from edgeplane.services.feed import Feed
from edgeplane.services.intake import Intake
from edgeplane.services.monitoring import count_faults
from edgeplane.services.users import Sessions
from edgeplane.settings import DatabaseSettings, Settings
from edgeplane.store import events, mailboxes, operation_steps, presence, removal
from edgeplane.store import migrate as migrations
from edgeplane.store.database import Database
from edgeplane.store.mailboxes import Lease
from edgeplane.store.migrate import SchemaError
from edgeplane.store.urls import URL, database_url, place
from edgeplane.transport.links import Links
from edgeplane.transport.push import PushTransport
from edgeplane.transport.routes import Routes
from edgeplane.transport.sync import SyncTransport
from edgeplane.transport.sync_door import MOST, SyncDoor
from edgeplane.wire import MAX_BATCH

T = TypeVar("T")

_GONE = (
    "is not there: EDGEPLANE_STATE_DIR says in which folder it lies (beside `edgeplane up`: "
    ".state/control); `edgeplane migrate` makes a new one"
)


class StartError(Exception):
    """A start that cannot be; the message is one line for whoever started it."""


def serve(settings: Settings) -> int:
    """Run the control plane until a signal; return the exit status.

    Raises:
        StartError: something it needs is not there.
        SettingError: a setting names what does not exist.

    """
    logs.set_up()
    try:
        crashpoints.arm(settings.crash_at)
    except ValueError as error:
        raise SettingError(str(error)) from error
    for warning in _warnings(settings):
        logs.warn_loudly(warning)
    with ExitStack() as stack:
        # Before anything is written: a second one must not change the tables of the first.
        stack.enter_context(_alone(settings.database))
        sockets = stack.enter_context(_bound(settings))
        if settings.migrate:
            migrate(settings.database)
        elif problem := check_schema(settings.database):
            raise StartError(problem)
        garbage.keep_off()
        return uvloop.run(_serve(settings, *sockets))


def migrate(database: DatabaseSettings) -> int:
    """Bring the tables up to date; return how many there are. Raises StartError."""
    logs.say("Starting database migration...")
    tables = _on_schema(database, migrations.upgrade)
    logs.say(f"✓ Database migration completed successfully ({tables} tables)")
    return tables


def migrate_down(database: DatabaseSettings, revision: str) -> None:
    """Take the tables back to a revision; ``base`` leaves none.

    Raises:
        StartError: that is not possible, or a control plane runs on the SQLite file.

    """
    if _is_gone(database.path):
        raise StartError(f"the database at {place(database)} {_GONE}")
    with _alone(database):
        _on_schema(database, lambda url: migrations.downgrade(url, revision))


def check_schema(database: DatabaseSettings) -> str | None:
    """Say in one line what is wrong with the tables, if anything. Raises StartError."""
    if _is_gone(database.path):  # to open SQLite's file would make it
        return f"the database at {place(database)} {_GONE}"
    problem = _on_schema(database, migrations.problem)
    if problem is None:
        return None
    return (
        f"the database at {place(database)} {problem}: "
        "run `edgeplane migrate`, or start with MIGRATE=1"
    )


def with_store(database: DatabaseSettings, use: Callable[[Database], Awaitable[T]]) -> T:
    """Open the store for one use, on the control plane's own host. Raises StartError."""
    if problem := check_schema(database):
        raise StartError(problem)

    async def run() -> T:
        store = Database(database_url(database))
        try:
            return await use(store)
        finally:
            await store.close()

    return uvloop.run(run())


def _on_schema(database: DatabaseSettings, work: Callable[[URL], T]) -> T:
    try:
        return work(database_url(database))
    except SchemaError as error:
        raise StartError(f"the database at {place(database)}: {error}") from error


async def _serve(settings: Settings, listening: socket, of_agents: socket | None) -> int:
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        database = Database(database_url(settings.database), count_faults(metrics))
        stack.push_async_callback(database.close)
        await _prepare(settings, database)
        parts = await _join(settings, database, metrics, of_agents, stack)
        port = listening.getsockname()[1]
        if of_agents is not None:
            logs.say(f"Agents connect to port {of_agents.getsockname()[1]}")
        server = Server(make_app(parts), lambda: _say_running(settings, port))
        server.stop_on_signals(also=parts.feed.end_all)
        await server.serve(sockets=[listening])
    logs.say("Server stopped")
    return 0


async def _prepare(settings: Settings, database: Database) -> None:
    try:
        made = await users.ensure_admin(database, settings.auth.admin_password)
        if settings.database.path is not None:
            # One process per SQLite file: whatever was held was held by one that is gone.
            await database.write(lambda tx: mailboxes.release_all(tx, None))
            await database.write(operation_steps.release_all)
            await database.write(presence.forget_all)
    except DatabaseError as error:
        raise StartError(f"the database cannot be used: {error.message}") from error
    if made is not None:
        logs.say(f"First user: admin, password: {made} (shown this once; keep it)")


async def _join(
    settings: Settings,
    database: Database,
    metrics: Metrics,
    of_agents: socket | None,
    stack: AsyncExitStack,
) -> Parts:
    """Build engine, hints and door; what is started here is stopped in the opposite order."""
    hints = Hints()
    tell = await _hints_between_replicas(settings, hints, stack)
    push = PushTransport(
        settings.agent.token.value,
        connect_seconds=settings.dispatch.connect_timeout_seconds,
    )
    links = Links()
    transport = Routes(push, SyncTransport(links))
    follow_connections(metrics, push)
    metrics.follow("edgeplane_agents_connected", lambda: len(links))
    rules, limits = _rules(settings), _limits(settings)
    if of_agents is not None:
        replica = rules.lease.owner
        await _take_agents_in(settings, database, links, of_agents, replica, tell, metrics, stack)
    engine = Engine(database, transport, hints, rules, limits, metrics)
    seconds = settings.dispatch.probe_seconds
    conductor = Conductor(database, rules.lease, tell, limits.poll_seconds, metrics)
    engine.on_call(conductor.call)
    events_too = Pruned(table="events", days=settings.retention.event_days, prune=events.prune)
    keep = settings.retention
    # Their tasks share their payload: they stay for as long as any of these.
    days = max(keep.success_days, keep.failed_days) if keep.success_days and keep.failed_days else 0
    also = [Pruned(table="operations", days=days, prune=removal.prune_operations), events_too]
    for part in (
        ProcessWatch(metrics),
        Retention(database, keep, rules.lease.owner, metrics, also),
        engine,
        conductor,
        Health(database, push, engine.sightings, tell, seconds, metrics),
    ):
        part.start()
        stack.push_async_callback(part.stop)
    tokens = Tokens(
        settings.auth.jwt_secret.value,
        issuer=settings.auth.issuer,
        minutes=settings.auth.expire_minutes,
    )
    feed = Feed(database)
    stack.push_async_callback(feed.stop)
    return Parts(
        database=database,
        sessions=Sessions(database, tokens, LoginThrottle(), metrics),
        intake=Intake(database, tell, metrics),
        feed=feed,
        metrics=metrics,
        metrics_token=settings.metrics_token,
        tell=tell,
        call=conductor.call,
    )


async def _take_agents_in(  # noqa: PLR0913, PLR0917  what it joins
    settings: Settings,
    database: Database,
    links: Links,
    listening: socket,
    replica: str,
    tell: Callable[[Iterable[int]], None],
    metrics: Metrics,
    stack: AsyncExitStack,
) -> None:
    """Let agents that connect out come in; the way in stays open while the engine drains."""
    doorkeeper = Presence(database, links, replica, tell)
    doorkeeper.start()
    stack.push_async_callback(doorkeeper.stop)
    most = within_files(Bounds(connections=MOST)).connections
    door = SyncDoor(links, settings.agent.token.value, doorkeeper.admit, most)
    metrics.follow("edgeplane_exchanges_total", lambda: door.exchanges)
    await door.listen(listening)
    stack.push_async_callback(door.stop)


async def _hints_between_replicas(
    settings: Settings, hints: Hints, stack: AsyncExitStack
) -> Callable[[Iterable[int]], None]:
    if settings.redis is None:
        return hints.tell
    shared = RedisHints(connect(settings.redis), hints)
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
        max_batch=MAX_BATCH,
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


def _warnings(settings: Settings) -> list[str]:
    open_to_all = environ.openness(settings.state_dir)
    return [*configuration.warnings(settings), *([open_to_all] if open_to_all else [])]


@contextmanager
def _bound(settings: Settings) -> Iterator[tuple[socket, socket | None]]:
    """Listen for clients and, where that is wished, for agents that connect out."""
    with ExitStack() as stack:
        try:
            clients = stack.enter_context(bind("HTTP_ADDR", settings.listen))
            agents = None
            if settings.sync_listen is not None:
                agents = stack.enter_context(bind("SYNC_HTTP_ADDR", settings.sync_listen))
        except SettingError as error:
            raise StartError(str(error)) from error
        yield clients, agents


@contextmanager
def _alone(database: DatabaseSettings) -> Iterator[None]:
    """Hold the state folder: a second process on the same SQLite file is refused."""
    if database.path is None:
        yield
        return
    file = database.path.with_name("edgeplane.lock")
    try:
        held = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"{file} cannot be opened: {error.strerror}") from error
    try:
        _lock(held, file.parent)
        yield
    finally:
        os.close(held)


def _is_gone(path: Path | None) -> bool:
    try:
        return path is not None and not path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # there or not: opening it tells why it cannot be used
        return False


def _lock(held: int, state_dir: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StartError(
            f"a control plane runs on {state_dir}: stop it, or choose another folder with "
            "EDGEPLANE_STATE_DIR"
        ) from error
    except OSError as error:
        raise StartError(f"{state_dir} cannot be locked: {error.strerror}") from error
