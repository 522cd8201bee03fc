"""What this process takes of its machine: memory, CPU time, descriptors; its event loop's lag."""

import asyncio
import contextlib
import os
import resource
import time

import edgeplane
from edgeplane.observe.metrics import Metrics

LOOK_SECONDS = 0.25  #: between looks at the event loop
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessWatch:
    """Follows this process, and sees how late its event loop comes round; started once."""

    def __init__(self, metrics: Metrics) -> None:
        metrics.follow("edgeplane_process_resident_bytes", resident_bytes)
        metrics.follow("edgeplane_process_cpu_seconds_total", cpu_seconds)
        metrics.follow("edgeplane_process_open_fds", open_fds)
        metrics.follow("edgeplane_process_max_fds", max_fds)
        metrics.gauge("edgeplane_build_info").labels(edgeplane.__version__).set(1)
        self._lag = metrics.histogram("edgeplane_event_loop_lag_seconds")
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start looking; once."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._look(), name="loop-lag")

    async def stop(self) -> None:
        """Stop looking."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop

    async def _look(self) -> None:
        while True:
            due = time.monotonic() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self._lag.observe(max(0.0, time.monotonic() - due))


def resident_bytes() -> float:
    """Return the memory this process has now; 0 where the kernel does not say (no /proc)."""
    try:
        with open("/proc/self/statm", "rb") as told:  # noqa: PTH123 (read at every scrape)
            return int(told.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0.0


def cpu_seconds() -> float:
    """Return the CPU time this process has taken, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def open_fds() -> float:
    """Return how many descriptors are open; 0 where the kernel does not say."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 (without the one that looks)
    except OSError:
        return 0.0


def max_fds() -> float:
    """Return how many may be; infinity where there is no bound."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return float("inf") if most == resource.RLIM_INFINITY else most
