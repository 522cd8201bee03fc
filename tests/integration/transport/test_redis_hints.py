"""Hints between replicas over a real Redis: told, lost with it, told again."""

import asyncio

import pytest
from redis.asyncio import Redis

from edgeplane.dispatch import redis_hints
from edgeplane.dispatch.hints import Hints
from edgeplane.dispatch.redis_hints import CHANNEL, RedisHints


class Replica:
    """What a control plane has of Redis."""

    def __init__(self, port):
        self.hints = Hints()
        self.shared = RedisHints(
            Redis(host="127.0.0.1", port=port, socket_connect_timeout=2.0), self.hints
        )
        self.shared.start()

    async def hears(self, wanted, seconds=15.0):
        """Wait until it has been told of these nodes."""
        heard: set[int] = set()
        async with asyncio.timeout(seconds):
            while not wanted <= heard:
                await self.hints.wait(seconds)
                heard |= self.hints.take()
        return heard


@pytest.fixture
async def replicas(redis, monkeypatch):
    """Two replicas on one Redis, both listening."""
    monkeypatch.setattr(redis_hints, "_RETRY_SECONDS", 0.21)
    pair = [Replica(redis.port), Replica(redis.port)]
    for replica in pair:
        await replica.hints.wait(10)  # what it says to itself once it listens
        replica.hints.take()
    yield pair
    for replica in pair:
        await replica.shared.stop()


async def test_what_one_is_told_the_other_hears(replicas):
    """Node ids cross over, in either direction, many at a time."""
    first, second = replicas
    first.shared.tell([7])
    assert await second.hears({7}) == {7}
    second.shared.tell(range(1, 1201))
    assert await first.hears(set(range(1, 1201))) == set(range(1, 1201))


async def test_junk_on_the_channel_is_a_wake_up_at_most(replicas, redis):
    """Whoever else writes there breaks nothing: the next hint is heard."""
    first, second = replicas
    other = Redis(host="127.0.0.1", port=redis.port)
    for junk in (b"", b",,", b"x", b"1,x", b"\xff\xfe", b"-1", b"9" * 1000, b'{"a":1}', b"1.5"):
        await other.publish(CHANNEL, junk)
    await other.aclose()
    first.shared.tell([8])
    heard = await second.hears({8})
    assert heard - {8, int("9" * 19)} == set()


async def test_redis_may_die_and_come_back(replicas, redis, caplog):
    """Telling never waits or raises while it is away; afterwards hints pass as before."""
    first, second = replicas
    redis.kill()
    try:
        for node in range(100):
            first.shared.tell([node])
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while "redis away" not in caplog.text:
                await asyncio.sleep(0.01)
        assert all(not loop.done() for loop in first.shared._loops)
    finally:
        redis.start()
    async with asyncio.timeout(60):
        heard = set()
        while 500 not in heard:
            first.shared.tell([500])
            await second.hints.wait(0.2)
            heard |= second.hints.take()


async def test_a_replica_that_listens_again_looks_for_itself(replicas, redis):
    """Whatever was said while it did not listen is found: it wakes its own engine."""
    _, second = replicas
    redis.kill()
    redis.start()
    async with asyncio.timeout(30):
        await second.hints.wait(30)


async def test_what_waits_to_be_told_is_bounded(monkeypatch):
    """With Redis away for ever, the ids that wait do not grow without end."""
    monkeypatch.setattr(redis_hints, "MAX_WAITING", 10)
    shared = RedisHints(Redis(host="127.0.0.1", port=1), Hints())
    for node in range(1000):
        shared.tell([node])
    assert len(shared._waiting) == 10
    await shared.stop()


async def test_stop_may_come_at_any_time(redis):
    """Before a start, twice, and while Redis is away."""
    replica = Replica(redis.port)
    await replica.shared.stop()
    await replica.shared.stop()
    never = RedisHints(Redis(host="127.0.0.1", port=redis.port), Hints())
    await never.stop()
    away = RedisHints(Redis(host="127.0.0.1", port=1), Hints())
    away.start()
    away.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await away.stop()


async def test_an_event_wakes_and_a_silence_ends():
    """The hints themselves: told before or while waiting, or not at all."""
    hints = Hints()
    hints.tell([3])
    hints.tell([4])
    await hints.wait(60)
    assert hints.take() == {3, 4}
    assert hints.take() == set()
    await hints.wait(0.001)
    waiting = asyncio.create_task(hints.wait(60))
    await asyncio.sleep(0)
    hints.tell()
    await asyncio.wait_for(waiting, 10)
    assert hints.take() == set()
