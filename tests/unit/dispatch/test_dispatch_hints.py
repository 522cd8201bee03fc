"""Wake-ups: kept until they are taken, and never waited for longer than asked."""

import asyncio

from edgeplane.dispatch.hints import Hints


async def test_what_is_told_is_taken_once():
    """Nodes add up until then."""
    hints = Hints()
    hints.tell([1, 2])
    hints.tell([2, 3])
    assert hints.take() == {1, 2, 3}
    assert hints.take() == set()


async def test_a_hint_told_before_the_wait_ends_it_at_once():
    """No wake-up is lost between two waits; taking it makes the next one wait."""
    hints = Hints()
    hints.tell()
    async with asyncio.timeout(5):
        await hints.wait(60)
    hints.take()
    waiting = asyncio.create_task(hints.wait(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    hints.tell([4])
    async with asyncio.timeout(5):
        await waiting
    assert hints.take() == {4}


async def test_a_wait_ends_by_itself():
    """Without any hint, after the time asked for, also where that is none at all."""
    hints = Hints()
    async with asyncio.timeout(5):
        await hints.wait(0)
        await hints.wait(0.001)
    assert hints.take() == set()
