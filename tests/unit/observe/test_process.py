"""What a process says of itself."""

import asyncio
import os

from edgeplane.observe import process
from edgeplane.observe.metrics import Metrics
from edgeplane.observe.process import ProcessWatch


def test_memory_cpu_and_descriptors_are_this_process():
    """Each moves with what the process does."""
    before = process.open_fds()
    reading, writing = os.pipe()
    try:
        assert process.open_fds() == before + 2
    finally:
        os.close(reading)
        os.close(writing)
    assert process.max_fds() >= before
    assert process.resident_bytes() > 10 << 20
    assert process.cpu_seconds() > 0


async def test_a_loop_that_is_held_up_is_seen_late(monkeypatch):
    """And one life cycle: started twice it looks once; stopped it looks no more."""
    looked = asyncio.Event()

    class Lag:
        seconds = 0.0

        def observe(self, seconds):
            self.seconds = max(self.seconds, seconds)
            looked.set()

    monkeypatch.setattr(process, "LOOK_SECONDS", 0.001)
    watch = ProcessWatch(Metrics())
    lag = Lag()
    monkeypatch.setattr(watch, "_lag", lag)
    watch.start()
    watch.start()
    assert sum(task.get_name() == "loop-lag" for task in asyncio.all_tasks()) == 1
    await looked.wait()  # it looks
    looked.clear()
    end = asyncio.get_running_loop().time() + 0.05
    while asyncio.get_running_loop().time() < end:
        pass  # holds the loop up
    await looked.wait()
    assert lag.seconds >= 0.04
    await watch.stop()
    assert all(task.get_name() != "loop-lag" for task in asyncio.all_tasks())
