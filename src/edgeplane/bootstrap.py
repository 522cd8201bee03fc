"""A control plane's life: its tables, its sockets, its parts, and its end."""

import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from socket import socket
from typing import TypeVar

import uvloop

from edgeplane import environ, joining
from edgeplane import settings as configuration
from edgeplane.api.app import make_app
from edgeplane.environ import SettingError
from edgeplane.listening import Server, bind
from edgeplane.model.errors import DatabaseError
from edgeplane.observe import crashpoints, garbage, logs
from edgeplane.observe.metrics import Metrics
from edgeplane.services import users
from edgeplane.services.monitoring import count_faults
from edgeplane.settings import DatabaseSettings, Settings
from edgeplane.store import mailboxes, operation_steps, presence
from edgeplane.store import migrate as migrations
from edgeplane.store.database import Database
from edgeplane.store.migrate import SchemaError
from edgeplane.store.urls import URL, database_url, place

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
        parts = await joining.join(settings, database, metrics, of_agents, stack)
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
