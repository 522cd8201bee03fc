"""Looks at the tables all through a run, and notices when it cannot.

Its looks go past the product, and are told to the history as events.
"""

import threading
import time
from contextlib import suppress

from kit.history import Ended, History, Owned, Sampled
from kit.tables import Away, Tables
from kit.waiting import until

_PAUSE_SECONDS = 0.05
_FEWEST_LOOKS = 10


class Sampler:
    """Tells the history who holds which node, which tasks run under which leases, and which end."""

    def __init__(
        self, tables: Tables, history: History, pause_seconds: float = _PAUSE_SECONDS
    ) -> None:
        self._tables = tables
        self._history = history
        self._pause_seconds = pause_seconds
        self._looks = 0
        self._over: set[str] = set()
        self._error: Exception | None = None
        self._finished = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether it looks."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to look; once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
            self._thread.start()

    def check(self, seconds: float = 10.0) -> None:
        """Fail unless it still looks and sees the tables; a run that was short may have to wait."""
        with suppress(AssertionError):
            until(lambda: self._looks >= _FEWEST_LOOKS or not self.alive, seconds)
        if self._error is not None:
            raise AssertionError(f"the sampler ended: {self._error!r}") from self._error
        assert self._thread is not None, "nothing was sampled"
        assert self.alive, "the sampler is gone"
        assert self._looks >= _FEWEST_LOOKS, f"the sampler saw the tables {self._looks} times"

    def stop(self) -> None:
        """End it."""
        self._finished.set()
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive(), "the sampler hangs"

    def _run(self) -> None:
        try:
            while not self._finished.is_set():
                with suppress(Away):
                    self._look()
                    self._looks += 1
                self._finished.wait(self._pause_seconds)
        except Exception as error:  # noqa: BLE001 (``check`` tells of it)
            self._error = error

    def _look(self) -> None:
        running = self._tables.leases()
        if running:
            self._history.add(Sampled(at=time.monotonic(), running=running))
        asked = time.time()
        owners = self._tables.owned()
        now = time.monotonic()
        self._history.add(Owned(at=now, asked=asked, seen=time.time(), owners=owners))
        for request_id in self._tables.final_ids() - self._over:
            self._over.add(request_id)
            self._history.add(Ended(at=time.monotonic(), request_id=request_id))
