"""What engine and conductor tell of turns, deliveries and steps: once a turn where possible."""

from collections import Counter as Tally
from typing import Protocol

from edgeplane.dispatch.steps import Stepped
from edgeplane.dispatch.work import Turn
from edgeplane.model.progress import FINAL, STEPS, OperationState
from edgeplane.model.tasks import Outcome, Report, Task, TaskKind, TaskStatus
from edgeplane.observe.metrics import Metrics


class Depths(Protocol):
    """What waits in an engine, and what it holds."""

    @property
    def results_waiting(self) -> int: ...  # noqa: D102
    @property
    def deliveries_out(self) -> int: ...  # noqa: D102
    @property
    def mailboxes_held(self) -> int: ...  # noqa: D102


class Connections(Protocol):
    """What a transport has counted since it was made."""

    connections_made: int
    requests_sent: int

    @property
    def connections_idle(self) -> int: ...  # noqa: D102


def follow_connections(metrics: Metrics, transport: Connections) -> None:
    """Let a transport's connections be seen."""
    metrics.follow("edgeplane_connections_idle", lambda: transport.connections_idle)
    metrics.follow("edgeplane_connections_made_total", lambda: transport.connections_made)
    metrics.follow("edgeplane_requests_sent_total", lambda: transport.requests_sent)


class Meters:
    """The instruments of one engine."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._turn_seconds = metrics.histogram("edgeplane_turn_seconds")
        self._turn_results = metrics.histogram("edgeplane_turn_results")
        self._turn_begun = metrics.histogram("edgeplane_turn_begun_tasks")
        failed = metrics.counter("edgeplane_turns_failed_total")
        self._failed = {reason: failed.labels(reason) for reason in ("away", "unexpected")}
        self._claim_seconds = metrics.histogram("edgeplane_claim_seconds")
        self._claim_size = metrics.histogram("edgeplane_claim_mailboxes")
        self._expired = metrics.counter("edgeplane_tasks_expired_total")
        self._rescued = metrics.counter("edgeplane_tasks_rescued_total")
        self._late = metrics.counter("edgeplane_results_late_total")
        self._stale = metrics.counter("edgeplane_stale_epochs_refused_total")
        self._withheld = metrics.counter("edgeplane_deliveries_withheld_total")
        results = metrics.counter("edgeplane_results_total")
        self._results = {
            (kind, outcome): results.labels(kind.value, outcome.value)
            for kind in TaskKind
            for outcome in Outcome
        }
        of_operations = metrics.counter("edgeplane_operation_results_total")
        self._of_operations = {outcome: of_operations.labels(outcome.value) for outcome in Outcome}
        delivery = metrics.histogram("edgeplane_delivery_seconds")
        self._delivery = {outcome: delivery.labels(outcome.value) for outcome in Outcome}
        task = metrics.histogram("edgeplane_task_seconds")
        self._task = {kind: task.labels(kind.value) for kind in TaskKind}

    def follow(self, engine: Depths) -> None:
        """Let the depths of an engine's queues be seen."""
        self._metrics.follow("edgeplane_results_waiting", lambda: engine.results_waiting)
        self._metrics.follow("edgeplane_deliveries_out", lambda: engine.deliveries_out)
        self._metrics.follow("edgeplane_mailboxes_held", lambda: engine.mailboxes_held)

    def turn(self, turn: Turn, results: int, seconds: float) -> None:
        """Count a turn that was committed: what it did, and the seconds it took."""
        self._turn_seconds.observe(seconds)
        if turn.claim_seconds is not None:
            self._claim_seconds.observe(turn.claim_seconds)
        if turn.claimed:
            self._claim_size.observe(turn.claimed)
        if results:
            self._turn_results.observe(results)
        if turn.begun:
            self._turn_begun.observe(len(turn.begun))
        for counter, number in (
            (self._expired, turn.expired),
            (self._rescued, turn.rescued),
            (self._late, turn.late),
        ):
            if number:
                counter.inc(number)
        self._settled(turn.settled)

    def _settled(self, settled: list[Task]) -> None:
        tally: Tally[tuple[TaskKind, Outcome]] = Tally()
        of_operations: Tally[Outcome] = Tally()
        for task in settled:
            if task.outcome is not None:
                tally[task.kind, task.outcome] += 1
                if task.operation_id is not None:
                    of_operations[task.outcome] += 1
            if task.status is TaskStatus.SUCCESS and task.run == 1 and task.finished_at:
                took = (task.finished_at - task.created_at).total_seconds()
                self._task[task.kind].observe(took)
        for pair, number in tally.items():
            self._results[pair].inc(number)
        for outcome, number in of_operations.items():
            self._of_operations[outcome].inc(number)

    def failed(self, reason: str) -> None:
        """Count a turn that was not committed: ``away`` (the database) or ``unexpected``."""
        self._failed[reason].inc()

    def delivered(self, report: Report, seconds: float) -> None:
        """Count what came of sending an attempt."""
        if report.outcome is Outcome.LOST:  # the lease lapsed before: it was never sent
            self._withheld.inc()
            return
        self._delivery[report.outcome].observe(seconds)
        if report.stale:
            self._stale.inc()


class StepMeters:
    """The instruments of one conductor."""

    def __init__(self, metrics: Metrics) -> None:
        seconds = metrics.histogram("edgeplane_fanout_step_seconds")
        self._seconds = {kind: seconds.labels(kind) for kind in STEPS}
        self._nodes = metrics.histogram("edgeplane_fanout_step_nodes")
        failed = metrics.counter("edgeplane_fanout_steps_failed_total")
        self._failed = {reason: failed.labels(reason) for reason in ("away", "unexpected")}
        lives = metrics.histogram("edgeplane_operation_seconds")
        self._lives = {state: lives.labels(state.value) for state in sorted(FINAL)}
        self._stopped = metrics.counter("edgeplane_operations_stopped_total")

    def step(self, stepped: Stepped, seconds: float) -> None:
        """Count a step that was committed, and the seconds it took."""
        if stepped.kind is not None:
            self._seconds[stepped.kind].observe(seconds)
        if stepped.nodes:
            self._nodes.observe(len(stepped.nodes))
        if stepped.ended is not None:
            self._lives[stepped.ended].observe(stepped.lifetime)
            self._stopped.inc(stepped.ended is OperationState.STOPPED)

    def failed(self, reason: str) -> None:
        """Count a step that was not committed: ``away`` (the database) or ``unexpected``."""
        self._failed[reason].inc()
