"""The agent's life: what it is made of, how it starts, and how it stops."""

import asyncio
import logging
import signal
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Final

import uvloop

from edgeplane.agent.app import AgentApp
from edgeplane.agent.executions import Executions
from edgeplane.agent.executors.base import Executor
from edgeplane.agent.journal import Journal
from edgeplane.agent.journal_file import JournalFile
from edgeplane.agent.settings import AgentSettings
from edgeplane.agent.syncing import LAST_SECONDS, Speaker, Syncing
from edgeplane.http1.bounds import Bounds
from edgeplane.listening import GRACE_SECONDS, Server
from edgeplane.observe.logs import say
from edgeplane.wire import HealthReply

STOP_SECONDS: Final = GRACE_SECONDS - 1.0  #: the last second is for the answers
BOUNDS: Final = Bounds(connections=1_024, arrival_seconds=15.0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What must be in hand before the agent can run."""

    settings: AgentSettings
    listener: socket.socket | None  #: None where it connects out
    journal: JournalFile
    executor: Executor


def run(parts: Parts) -> bool:
    """Serve until SIGTERM or SIGINT; say whether every thread has come back."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_live(parts))


async def _live(parts: Parts) -> bool:
    journal = Journal(parts.journal)
    executions = Executions(journal, parts.executor)
    if parts.listener is None:
        await _connect_out(parts.settings, executions)
    else:
        await _listen(parts, parts.listener, executions, _health(parts, journal, executions))
    written = await journal.close()
    if not executions.stuck:
        parts.executor.close()
    return written and not executions.stuck


async def _listen(
    parts: Parts,
    listener: socket.socket,
    executions: Executions,
    health: Callable[[], HealthReply],
) -> None:
    """Answer whoever connects."""
    app = AgentApp(executions, parts.settings.token.value, health)
    address = replace(parts.settings.listen, port=listener.getsockname()[1])
    server = Server(app, lambda: say(f"Agent server running on {address}"), BOUNDS)
    asked = asyncio.Event()
    server.stop_on_signals(asked.set)
    stopped = asyncio.create_task(_stop(asked, executions), name="stop")
    await server.serve(sockets=[listener])
    await stopped


async def _connect_out(settings: AgentSettings, executions: Executions) -> None:
    """Listen nowhere; ask a control plane for work."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    speaker = Speaker(
        node=settings.node,
        urls=settings.control,
        token=settings.token.value,
        version=version("edgeplane"),
        tls=ssl.create_default_context() if any(url.tls for url in settings.control) else None,
    )

    def ready(node_id: int) -> None:
        say(f"Agent running as node {settings.node} (id {node_id})")

    await Syncing(speaker, executions, ready).run(asked, STOP_SECONDS - LAST_SECONDS)


async def _stop(asked: asyncio.Event, executions: Executions) -> None:
    """Once asked to, let what runs finish; done when nothing runs any more."""
    await asked.wait()
    _log.info("stopping; what runs may finish")
    await executions.close(STOP_SECONDS)


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
