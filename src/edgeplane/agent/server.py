"""The agent's life: what it is made of, how it starts, and how it stops."""

import asyncio
import errno
import logging
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Final

import uvicorn
import uvloop

from edgeplane.agent.app import AgentApp
from edgeplane.agent.executions import Executions
from edgeplane.agent.executors.base import Executor
from edgeplane.agent.journal import Journal
from edgeplane.agent.journal_file import JournalFile
from edgeplane.agent.protocol import BoundedProtocol
from edgeplane.agent.settings import AgentSettings
from edgeplane.environ import ListenAddress
from edgeplane.observe.logs import say
from edgeplane.wire import HealthReply

STOP_SECONDS: Final = 10.0
KEEP_ALIVE_SECONDS: Final = 75
_BACKLOG = 1_024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What must be in hand before the agent can run."""

    settings: AgentSettings
    listener: socket.socket
    journal: JournalFile
    executor: Executor


def listen(address: ListenAddress) -> socket.socket:
    """Take the port; an empty host means every interface, IPv6 and IPv4. Raise OSError if taken."""
    if address.host:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    try:
        return socket.create_server(
            ("", address.port),
            family=socket.AF_INET6,
            backlog=_BACKLOG,
            dualstack_ipv6=True,
        )
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise
        return socket.create_server(("", address.port), backlog=_BACKLOG)  # no IPv6 here


def run(parts: Parts) -> bool:
    """Serve until SIGTERM or SIGINT; say whether every thread has come back from the executor."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(parts))


class _Server(uvicorn.Server):
    """uvicorn's server, with its signals and its words left to us."""

    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        say(self._ready)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def _serve(parts: Parts) -> bool:
    journal = Journal(parts.journal)
    executions = Executions(journal, parts.executor)
    health = _health(parts, journal, executions)
    app = AgentApp(executions, parts.settings.token.value, health)
    address = replace(parts.settings.listen, port=parts.listener.getsockname()[1])
    server = _Server(_config(app), f"Agent server running on {address}")
    stopped = _stop_on_signals(server, executions)
    await server.serve(sockets=[parts.listener])
    await stopped
    await journal.close()
    if not executions.stuck:
        parts.executor.close()
    return not executions.stuck


def _stop_on_signals(server: _Server, executions: Executions) -> asyncio.Task[None]:
    """Let a signal begin the end; return what is done when nothing runs any more."""
    asked = asyncio.Event()

    async def stop() -> None:
        await asked.wait()
        _log.info("stopping; what runs may finish")
        server.should_exit = True
        await executions.close(STOP_SECONDS)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    return asyncio.create_task(stop(), name="stop")


def _health(parts: Parts, journal: Journal, executions: Executions) -> Callable[[], HealthReply]:
    started = time.monotonic()
    release = version("edgeplane")

    def tell() -> HealthReply:
        return HealthReply(
            version=release,
            uptime_seconds=round(time.monotonic() - started, 3),
            journal_entries=journal.entries,
            journal_bytes=journal.bytes_on_disk(),
            executor=parts.executor.name,
            running=executions.running,
        )

    return tell


def _config(app: AgentApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        proxy_headers=False,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(STOP_SECONDS) + 1,
        backlog=_BACKLOG,
    )
