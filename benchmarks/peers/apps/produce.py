"""Enqueues for Celery or taskiq as it is told on standard input; prints a line for each.

``burst N``: as fast as it can. ``paced RATE N``: so many a second. Each line printed is the key and
when it was asked for, on the machine's monotonic clock; then ``end``.
"""

import asyncio
import inspect
import itertools
import sys
import time

if sys.argv[1] == "celery":
    from celery_app import put

    broker = None
else:
    from taskiq_app import broker, put

AT_ONCE = 64
_numbers = itertools.count()


async def main() -> None:
    """Serve until standard input ends."""
    if broker is not None:
        await broker.startup()
    while line := await asyncio.to_thread(sys.stdin.readline):
        kind, *values = line.split()
        await (burst(int(values[0])) if kind == "burst" else paced(*map(int, values)))
        sys.stdout.write("end\n")
        sys.stdout.flush()
    if broker is not None:
        await broker.shutdown()


async def burst(count: int) -> None:
    """Enqueue as fast as it goes: one after the other, or where it is async so many at once."""
    left = iter(range(count))

    async def some() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def paced(rate: int, count: int) -> None:
    """Enqueue so many a second."""
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        await one()


async def one() -> None:
    """Enqueue one and print it."""
    at = time.monotonic()
    key = put(next(_numbers))
    key = await key if inspect.isawaitable(key) else key
    sys.stdout.write(f"{key} {at}\n")
    sys.stdout.flush()


asyncio.run(main())
