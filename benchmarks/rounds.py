"""Rounds: each walks through everything once, so that what is compared was measured together."""

from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from sqlalchemy import make_url

from benchmarks import cores, floors, load, stage
from benchmarks.figures import percentile
from benchmarks.floors import Bare, Client, Run, Told
from benchmarks.stage import Stage
from benchmarks.stores import Store
from edgeplane.store import migrate
from kit.processes import AGENT_TOKEN, Agent


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    rounds: int
    tasks: dict[int, int]  #: by concurrency
    idle_tasks: int
    agent_starts: int


QUICK = Plan(rounds=1, tasks={1: 100, 16: 300, 64: 500}, idle_tasks=40, agent_starts=2)
FULL = Plan(rounds=3, tasks={1: 800, 16: 3000, 64: 5000}, idle_tasks=200, agent_starts=5)


@dataclass
class Throughput:
    """One concurrency: a value for each round."""

    end_to_end: list[float] = field(default_factory=list)  #: tasks/s
    client: list[float] = field(default_factory=list)
    store: list[float] = field(default_factory=list)
    commits_per_task: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  #: of the control plane, a task
    deliveries: list[int] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    create_p50_ms: list[float] = field(default_factory=list)
    create_p99_ms: list[float] = field(default_factory=list)

    def ratios(self, *floors_of: list[float]) -> list[float]:
        """Return end to end by the slower of these floors, round by round."""
        rounds = zip(self.end_to_end, *floors_of, strict=True)
        return [reached / min(slower) for reached, *slower in rounds]


@dataclass
class Idle:
    """One task on an idle system, in milliseconds: a value for each round."""

    answered_p50: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    round_trip_p50: list[float] = field(default_factory=list)
    store_pass_p50: list[float] = field(default_factory=list)

    def round_trips(self) -> list[float]:
        """Return the latency in round trips' worth of the floor."""
        rounds = zip(self.p50, self.round_trip_p50, self.store_pass_p50, strict=True)
        return [whole / (trip + store) for whole, trip, store in rounds]


@dataclass
class Report:
    """What was measured on one store."""

    title: str
    throughput: dict[int, Throughput]
    idle: Idle = field(default_factory=Idle)
    rss_mib: dict[str, float] = field(default_factory=dict)


def agent_starts(number: int, folder: Path) -> list[float]:
    """Start an agent again and again; return the seconds each took."""
    agent = Agent(folder)
    seconds = []
    with cores.starting_on(cores.OTHERS):
        for _ in range(number):
            try:
                seconds.append(stage.start_agent(agent))
            finally:
                agent.kill()
    return seconds


def measure(store: Store, folder: Path, plan: Plan) -> Report:
    """Do all rounds on one store."""
    report = Report(store.title, {concurrency: Throughput() for concurrency in plan.tasks})
    migrate.upgrade(make_url(store.floor))
    with stage.on(store, folder) as here:
        _note_rss(report, here, "after start")
        uvloop.run(load.run(here.door, here.view, floors.WARM_TASKS, floors.WARM_CONCURRENCY))
        for _ in range(plan.rounds):
            for concurrency, tasks in plan.tasks.items():
                _throughput(here, store, report.throughput[concurrency], concurrency, tasks)
            _idle(here, store, report.idle, plan.idle_tasks)
        _note_rss(report, here, "after the load")
    return report


def _throughput(here: Stage, store: Store, into: Throughput, concurrency: int, tasks: int) -> None:
    here.connections_made()
    commits, cpu = here.view.commits(), stage.cpu_seconds(here.control)
    done = uvloop.run(load.run(here.door, here.view, tasks, concurrency))
    into.commits_per_task.append((here.view.commits() - commits) / tasks)
    into.cpu_us.append(1e6 * (stage.cpu_seconds(here.control) - cpu) / tasks)
    into.end_to_end.append(tasks / done.seconds)
    into.deliveries.append(here.view.attempts(done.first_id))
    into.connections.append(here.connections_made())
    into.create_p50_ms.append(percentile(done.create_seconds, 50))
    into.create_p99_ms.append(percentile(done.create_seconds, 99))
    client, bare = _floors(here, store, Run(tasks, concurrency))
    into.client.append(tasks / client.seconds)
    into.store.append(tasks / bare.seconds)


def _idle(here: Stage, store: Store, into: Idle, tasks: int) -> None:
    answered, succeeded = uvloop.run(load.idle(here.door, here.view, tasks))
    into.answered_p50.append(percentile(answered, 50))
    into.p50.append(percentile(succeeded, 50))
    into.p99.append(percentile(succeeded, 99))
    trip, store_pass = _floors(here, store, Run(tasks, 1, pause=load.PAUSE_SECONDS))
    into.round_trip_p50.append(percentile(trip.latencies, 50))
    into.store_pass_p50.append(percentile(store_pass.latencies, 50))


def _floors(here: Stage, store: Store, run: Run) -> tuple[Told, Told]:
    """Run the bare client and the bare store."""
    client = Client(port=here.agent.port, token=AGENT_TOKEN, addresses=stage.NODES)
    return floors.measure(client, run), floors.measure(
        Bare(url=store.floor, nodes=stage.NODES), run
    )


def _note_rss(report: Report, here: Stage, when: str) -> None:
    report.rss_mib[f"control plane {when}"] = stage.rss_mib(here.control)
    report.rss_mib[f"agent {when}"] = stage.rss_mib(here.agent)
