"""Monitoring: the metrics as they stand, with the ages only the database knows."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from edgeplane.model.errors import DatabaseError
from edgeplane.model.tasks import Lane
from edgeplane.observe.metrics import Metrics
from edgeplane.store.ages import Ages, oldest
from edgeplane.store.database import Database
from edgeplane.store.workers import FAULTS

#: The database is asked no more often than this, however many look.
CACHE_SECONDS = 5.0
#: And a look waits for it no longer: all else must be seen while it is away.
PATIENCE_SECONDS = 2.0

log = logging.getLogger(__name__)


def count_faults(metrics: Metrics) -> Callable[[str], None]:
    """Return what counts the failed transactions of a database, by their kind."""
    errors = metrics.counter("edgeplane_database_errors_total")
    by_kind = {kind: errors.labels(kind) for kind in FAULTS}
    return lambda kind: by_kind[kind].inc()


class Monitoring:
    """Renders the metrics of one control plane."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._asking: asyncio.Task[Ages] | None = None
        self._asked_at = -CACHE_SECONDS
        self._ages: Ages | None = None

    async def text(self) -> bytes:
        """Return the metrics; without the ages where the database does not answer."""
        if self._asking is None and time.monotonic() - self._asked_at >= CACHE_SECONDS:
            asking = asyncio.create_task(self._database.read(oldest), name="oldest-ages")
            asking.add_done_callback(self._take)
            self._asking = asking
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=PATIENCE_SECONDS)
        if self._asking is not None:  # still: what was known is past
            self._ages = None
        self._show()
        return self._metrics.text()

    def _take(self, asking: "asyncio.Task[Ages]") -> None:
        self._asking = None
        self._asked_at = time.monotonic()
        self._ages = None
        if asking.cancelled():
            return
        if (error := asking.exception()) is None:
            self._ages = asking.result()
        elif not isinstance(error, DatabaseError):
            log.error("the oldest ages cannot be read", exc_info=error)

    def _show(self) -> None:
        found = self._ages
        pending = self._metrics.gauge("edgeplane_oldest_pending_age_seconds")
        in_flight = self._metrics.gauge("edgeplane_oldest_in_flight_age_seconds")
        # Absent says that it is not known; 0 would say that nothing waits.
        pending.clear()
        in_flight.clear()
        nodes = self._metrics.gauge("edgeplane_nodes")
        nodes.clear()
        operations = self._metrics.gauge("edgeplane_operations")
        operations.clear()
        due = self._metrics.gauge("edgeplane_oldest_due_mailbox_age_seconds")
        due.set(float("nan") if found is None else found.due_mailbox)
        probe = self._metrics.gauge("edgeplane_oldest_due_probe_age_seconds")
        probe.set(float("nan") if found is None else found.due_probe)
        standstill = self._metrics.gauge("edgeplane_operation_standstill_seconds")
        standstill.set(float("nan") if found is None else found.standstill)
        if found is not None:
            for status, number in found.nodes.items():
                nodes.labels(status).set(number)
            _set(self._metrics, "edgeplane_oldest_pending_age_seconds", found.pending)
            _set(self._metrics, "edgeplane_oldest_in_flight_age_seconds", found.in_flight)
            for state, number in found.operations.items():
                operations.labels(state.value).set(number)


def _set(metrics: Metrics, name: str, by_lane: Mapping[Lane, float]) -> None:
    gauge = metrics.gauge(name)
    for lane, seconds in by_lane.items():
        gauge.labels(lane.value).set(seconds)
