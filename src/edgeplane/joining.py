"""The parts of a running control plane, built from its settings and joined.

What is started here is stopped in the opposite order.
"""

import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from random import SystemRandom
from socket import socket

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
from edgeplane.http1.bounds import Bounds
from edgeplane.listening import within_files
from edgeplane.model.retry import RetryPolicy
from edgeplane.observe.metrics import Metrics
from edgeplane.observe.process import ProcessWatch
from edgeplane.services.feed import Feed
from edgeplane.services.intake import Intake
from edgeplane.services.users import Sessions
from edgeplane.settings import Settings
from edgeplane.store import events, removal
from edgeplane.store.database import Database
from edgeplane.store.mailboxes import Lease
from edgeplane.transport.links import Links
from edgeplane.transport.push import PushTransport
from edgeplane.transport.routes import Routes
from edgeplane.transport.sync import SyncTransport
from edgeplane.transport.sync_door import MOST, SyncDoor
from edgeplane.wire import MAX_BATCH


async def join(
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
