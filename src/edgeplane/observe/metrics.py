"""The control plane's metrics: every one by name in one list, and the object that counts them.

``Metrics`` is made once in ``bootstrap`` and passed down. Whoever counts asks it for an instrument
by name when it is built; a name that is not in the list is an error there and then. What is known
elsewhere already (the length of a queue) is followed: read when somebody looks, free until then.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

#: The text format served; what every Prometheus since 2014 reads.
CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


class Kind(StrEnum):
    """How a metric moves."""

    COUNTER = "counter"  #: only up, from 0 at the start; its name ends in ``_total``
    GAUGE = "gauge"  #: up and down
    HISTOGRAM = "histogram"  #: how often, how much in all, and how it spreads


class Unit(StrEnum):
    """What is counted."""

    SECONDS = "seconds"
    BYTES = "bytes"
    ONE = "one"  #: things: the name says which


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it is declared."""

    name: str
    kind: Kind
    unit: Unit
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  #: upper bounds, of a histogram


_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_LIVES = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


def _counter(name: str, text: str, *labels: str, unit: Unit = Unit.ONE) -> Metric:
    return Metric(name, Kind.COUNTER, unit, text, labels)


def _gauge(name: str, text: str, *labels: str, unit: Unit = Unit.ONE) -> Metric:
    return Metric(name, Kind.GAUGE, unit, text, labels)


def _times(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _QUICK) -> Metric:
    return Metric(name, Kind.HISTOGRAM, Unit.SECONDS, text, labels, buckets)


def _sizes(name: str, text: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, Unit.ONE, text, (), _SIZES)


_JOURNEY = (
    _gauge(
        "edgeplane_oldest_pending_age_seconds",
        "How long the task that is pending longest has been so, from the database: the same at "
        "every replica. 0: none is pending.",
        "lane",
        unit=Unit.SECONDS,
    ),
    _gauge(
        "edgeplane_oldest_in_flight_age_seconds",
        "How long ago the oldest attempt that runs began, from the database. 0: none runs.",
        "lane",
        unit=Unit.SECONDS,
    ),
    _gauge(
        "edgeplane_oldest_due_mailbox_age_seconds",
        "For how long the mailbox that is due longest has not been claimed, from the database.",
        unit=Unit.SECONDS,
    ),
    _gauge(
        "edgeplane_nodes",
        "Nodes by status, from the database: the same at every replica. Those that are disabled "
        "are counted as such, whatever their status.",
        "status",
    ),
    _gauge(
        "edgeplane_oldest_due_probe_age_seconds",
        "For how long the node that is due longest has not been asked how it is, from the "
        "database.",
        unit=Unit.SECONDS,
    ),
    _times(
        "edgeplane_task_seconds",
        "From the transaction that stored a task to the one that stored its success, by the "
        "database's clock. Tasks that were retried by hand are left out.",
        "type",
        buckets=_LONG,
    ),
    _times(
        "edgeplane_delivery_seconds",
        "From an attempt's beginning, committed, to what came of sending it.",
        "outcome",
        buckets=_LONG,
    ),
    _counter(
        "edgeplane_results_total",
        "Attempts whose outcome was written into their task.",
        "type",
        "outcome",
    ),
    _counter("edgeplane_tasks_expired_total", "Tasks that failed because their deadline passed."),
    _counter(
        "edgeplane_tasks_rescued_total",
        "Tasks taken back from an owner that is gone, to be asked for again.",
    ),
    _counter(
        "edgeplane_results_late_total",
        "Results dropped because somebody else had moved the task since.",
    ),
    _counter(
        "edgeplane_stale_epochs_refused_total",
        "Deliveries an agent refused because it follows a newer owner of its node.",
    ),
    _counter(
        "edgeplane_deliveries_withheld_total",
        "Attempts not sent because the lease had lapsed before they could be.",
    ),
)
_ENGINE = (
    _sizes("edgeplane_create_batch_tasks", "Tasks asked for in one transaction of creates."),
    _times("edgeplane_create_commit_seconds", "What a transaction of creates took, with its wait."),
    _sizes("edgeplane_turn_results", "Results settled in one turn, of turns that had any."),
    _sizes("edgeplane_turn_begun_tasks", "Attempts begun in one turn, of turns that began any."),
    _times("edgeplane_turn_seconds", "What a turn's transaction took, with its wait."),
    _counter("edgeplane_turns_failed_total", "Turns that were not committed.", "reason"),
    _sizes("edgeplane_claim_mailboxes", "Mailboxes taken in one claim, of claims that took any."),
    _times("edgeplane_claim_seconds", "What the claim took within its turn."),
    _gauge("edgeplane_intake_waiting_tasks", "Tasks that wait for a transaction of creates."),
    _gauge("edgeplane_results_waiting", "Results that wait for a turn."),
    _gauge("edgeplane_deliveries_out", "Attempts that are out."),
    _gauge("edgeplane_mailboxes_held", "Mailboxes this process holds."),
    _counter(
        "edgeplane_health_probes_total",
        "Nodes asked how they are, by what came of it; late: somebody knew better by then.",
        "outcome",
    ),
    _times(
        "edgeplane_health_look_seconds",
        "What a transaction took that writes how nodes are and takes those to be asked, with its "
        "wait.",
    ),
    _gauge(
        "edgeplane_health_interval_seconds",
        "How long a node may go unseen before this process asks it. 0: it asks none.",
        unit=Unit.SECONDS,
    ),
    _gauge("edgeplane_health_probes_out", "Nodes that are being asked how they are."),
    _gauge("edgeplane_connections_idle", "Connections to agents kept for the next delivery."),
    _gauge("edgeplane_agents_connected", "Agents that connected out, and are connected here."),
    _counter("edgeplane_exchanges_total", "Exchanges of agents that connected out."),
    _counter("edgeplane_connections_made_total", "Connections made to agents."),
    _counter("edgeplane_requests_sent_total", "Requests sent to agents."),
)
_OPERATIONS = (
    _gauge(
        "edgeplane_operations",
        "Operations that have not ended, by state, from the database: the same at every replica. "
        "1000: so many or more.",
        "state",
    ),
    _gauge(
        "edgeplane_operation_standstill_seconds",
        "How long no node of an operation that runs has moved, beyond what an attempt may take, at "
        "most; from the database. Those that wait for unreachable nodes alone are left out.",
        unit=Unit.SECONDS,
    ),
    _counter("edgeplane_operation_results_total", "Attempts of operations, settled.", "outcome"),
    _times(
        "edgeplane_operation_seconds",
        "From when an operation was asked for to its end, by the state it ended in and by the "
        "database's clock. One that was opened again ends once more.",
        "state",
        buckets=_LIVES,
    ),
    _counter(
        "edgeplane_operations_stopped_total",
        "Operations that ended because too many nodes failed (maxFailures).",
    ),
    _sizes("edgeplane_fanout_step_nodes", "Nodes moved on in one step, of steps that moved any."),
    _times("edgeplane_fanout_step_seconds", "What a step's transaction took, with waits.", "step"),
    _counter("edgeplane_fanout_steps_failed_total", "Steps that were not committed.", "reason"),
)
_STORE = (
    _counter(
        "edgeplane_database_errors_total",
        "Transactions that failed, each time: away (not reached), passing (deadlock or lock wait: "
        "run again), refused.",
        "kind",
    ),
    _counter("edgeplane_rows_removed_total", "Rows removed because their time was over.", "table"),
    _times("edgeplane_removal_seconds", "What a transaction that removes rows took."),
    _counter("edgeplane_removals_failed_total", "Looks for rows to remove that broke off."),
)
_PROCESS = (
    _counter(
        "edgeplane_http_requests_total",
        "Requests answered, by class of route and HTTP status; gone: the client left.",
        "route",
        "status",
    ),
    _times("edgeplane_http_request_seconds", "From a request's head to its answer.", "route"),
    _counter("edgeplane_logins_failed_total", "Logins refused.", "reason"),
    _times(
        "edgeplane_event_loop_lag_seconds",
        "How late the event loop comes round to what is due, looked at four times a second.",
    ),
    _gauge("edgeplane_process_resident_bytes", "Memory of this process.", unit=Unit.BYTES),
    _counter(
        "edgeplane_process_cpu_seconds_total",
        "CPU time of this process, user and system.",
        unit=Unit.SECONDS,
    ),
    _gauge("edgeplane_process_open_fds", "File descriptors this process has open."),
    _gauge("edgeplane_process_max_fds", "File descriptors it may have open."),
    _gauge("edgeplane_build_info", "Always 1; the label says which version runs.", "version"),
)
#: All of them, by the part of the house they tell of.
METRICS: Final = (*_JOURNEY, *_ENGINE, *_OPERATIONS, *_STORE, *_PROCESS)


class Metrics:
    """The metrics of one process. Instruments may be used from any thread."""

    def __init__(self, declared: Iterable[Metric] = METRICS) -> None:
        # They would be one more series for each counter, of use to nobody.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry(auto_describe=False)
        self._made = {metric.name: _make(metric, self._registry) for metric in declared}
        self._followed: list[Callable[[], None]] = []

    def counter(self, name: str) -> Counter:
        """Return a counter; KeyError where none is declared under this name."""
        found = self._made[name]
        assert isinstance(found, Counter)
        return found

    def gauge(self, name: str) -> Gauge:
        """Return a gauge; KeyError where none is declared under this name."""
        found = self._made[name]
        assert isinstance(found, Gauge)
        return found

    def histogram(self, name: str) -> Histogram:
        """Return a histogram; KeyError where none is declared under this name."""
        found = self._made[name]
        assert isinstance(found, Histogram)
        return found

    def follow(self, name: str, read: Callable[[], float]) -> None:
        """Let a gauge or counter without labels say what ``read`` returns when it is looked at.

        A counter goes up by what has been added since: its source may only grow.
        """
        found = self._made[name]
        if isinstance(found, Counter):
            self._followed.append(_Following(found, read))
        else:
            gauge = self.gauge(name)
            self._followed.append(lambda: gauge.set(read()))

    def text(self) -> bytes:
        """Return all of them as they stand, in the text format."""
        for look in self._followed:
            look()
        return generate_latest(self._registry)


class _Following:
    """A counter that takes over what something else has counted."""

    def __init__(self, counter: Counter, read: Callable[[], float]) -> None:
        self._counter = counter
        self._read = read
        self._seen = 0.0

    def __call__(self) -> None:
        """Add what is new."""
        now = self._read()
        self._counter.inc(max(0.0, now - self._seen))
        self._seen = now


def _make(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind is Kind.COUNTER:
        return Counter(metric.name, metric.help, metric.labels, registry=registry)
    if metric.kind is Kind.GAUGE:
        return Gauge(metric.name, metric.help, metric.labels, registry=registry)
    return Histogram(
        metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
    )
