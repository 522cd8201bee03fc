"""Hints to and from other replicas over Redis: node ids on a channel, nothing stored.

Redis may be absent, killed or flushed at any time: a replica then learns of others' work at its
next poll, and nothing is lost.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from edgeplane.dispatch.hints import Hints
from edgeplane.settings import RedisSettings

log = logging.getLogger(__name__)

CHANNEL = "edgeplane:hints"
MAX_WAITING = 10_000  #: node ids that may wait to be published; beyond, the others' poll serves
_MAX_MESSAGE_NODES = 500
_RETRY_SECONDS = 5.0


def connect(settings: RedisSettings) -> Redis:
    """Make a client; it connects at first use, and again whenever it has to."""
    return Redis(
        host=settings.host,
        port=settings.port,
        password=settings.password,
        db=settings.database,
        socket_connect_timeout=2.0,
        socket_keepalive=True,
        health_check_interval=10,
    )


class RedisHints:
    """Passes hints on, both ways."""

    def __init__(self, redis: Redis, hints: Hints) -> None:
        self._redis = redis
        self._hints = hints
        self._waiting: set[int] = set()
        self._news = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start both directions; once."""
        if not self._loops:
            self._loops = [
                asyncio.create_task(self._keep(self._publish), name="hints-out"),
                asyncio.create_task(self._keep(self._listen), name="hints-in"),
            ]

    async def stop(self) -> None:
        """Stop both directions."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    def tell(self, node_ids: Iterable[int]) -> None:
        """Tell the other replicas, as soon as possible; never waits."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.update(node_ids)
            self._news.set()

    async def _keep(self, work: Callable[[], Awaitable[None]]) -> None:
        """Keep a direction going whatever Redis does."""
        told = False
        while True:
            try:
                await work()
            except (RedisError, OSError) as error:
                if not told:
                    log.warning("redis away, going on without it: %s", error)
                told = True
                await asyncio.sleep(random.uniform(0.2, _RETRY_SECONDS))  # noqa: S311

    async def _publish(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            nodes, self._waiting = sorted(self._waiting), set()
            for start in range(0, len(nodes), _MAX_MESSAGE_NODES):
                part = nodes[start : start + _MAX_MESSAGE_NODES]
                await self._redis.publish(CHANNEL, ",".join(map(str, part)))

    async def _listen(self) -> None:
        async with self._redis.pubsub() as channel:
            await channel.subscribe(CHANNEL)
            async for message in channel.listen():
                # Redis confirms each subscription, also after the library has reconnected: a
                # wake-up, because of what was said while nobody listened.
                self._hints.tell(_read(message.get("data")))


def _read(data: object) -> set[int]:
    """Read node ids; what is not a list of ids is a wake-up without any."""
    if not isinstance(data, bytes) or not data.replace(b",", b"").isdigit():
        return set()
    return {int(part[:19]) for part in data.split(b",") if part}
