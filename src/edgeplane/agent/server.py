"""The agent's life: what it is made of, how it starts, and how it stops."""

import asyncio
import logging
import socket
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
    listener: socket.socket
    journal: JournalFile
    executor: Executor


def run(parts: Parts) -> bool:
    """Serve until SIGTERM or SIGINT; say whether every thread has come back."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(parts))


async def _serve(parts: Parts) -> bool:
    journal = Journal(parts.journal)
    executions = Executions(journal, parts.executor)
    health = _health(parts, journal, executions)
    app = AgentApp(executions, parts.settings.token.value, health)
    address = replace(parts.settings.listen, port=parts.listener.getsockname()[1])
    server = Server(app, lambda: say(f"Agent server running on {address}"), BOUNDS)
    asked = asyncio.Event()
    server.stop_on_signals(asked.set)
    stopped = asyncio.create_task(_stop(asked, executions), name="stop")
    await server.serve(sockets=[parts.listener])
    await stopped
    written = await journal.close()
    if not executions.stuck:
        parts.executor.close()
    return written and not executions.stuck


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
