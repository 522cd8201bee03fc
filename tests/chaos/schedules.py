"""Schedules: what is asked for, by which processes, and what goes wrong when; all from one seed.

The same seed gives the same schedule, word for word. What the processes make of it is not the same
twice: they are real, and so is their timing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from edgeplane.observe.crashpoints import AGENT_POINTS, CONTROL_POINTS

KINDS = ("apply_config", "reload", "purge_cache")
REPLICAS_SHARE = 0.08  #: of schedules: they wait for leases to lapse, ten seconds each time
CLAIM_SHARE = 0.05  #: of schedules with nodes that sync: who is refused stays away ten seconds
_LONG_FREEZE = (10.5, 12.5)  #: seconds: past a lease
_SHORT_FREEZE = (0.05, 1.5)

What = Literal[
    "create",
    "anonymous",
    "cancel",
    "retry",
    "operate",
    "pause",
    "resume",
    "stop",
    "retry_failed",
]
How = Literal["kill", "freeze", "crash_at", "database", "cut", "claim"]


@dataclass(frozen=True, slots=True)
class Act:
    """What a client does at a moment.

    ``number`` names what is asked for, or which of the earlier ones is meant.
    """

    at: float
    what: What
    number: int = 0
    kind: str = ""
    nodes: tuple[int, ...] = ()  #: by place, from 0
    posts: int = 1  #: so often it is sent, side by side
    fails: bool = False  #: something stands in its way at its agent, until it is retried
    max_concurrency: int | None = None
    max_failures: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls a process, or how it starts.

    ``crash_at`` is how it starts: it kills itself at the named place. ``cut`` ends the connections
    that agents have made; with ``claim`` another process speaks for a node.
    """

    at: float
    how: How
    who: str
    seconds: float = 0.0  #: until it is back
    point: str = ""
    node: int = 0  #: by place: the one that is claimed


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run."""

    seed: int
    controls: int  #: one is on SQLite, several on MariaDB
    redis: bool
    agents: int
    nodes: int  #: of each agent that listens; of one that connects out, and of a swarm's, one
    syncs: tuple[bool, ...]  #: of each agent's process, whether it connects out
    swarm: tuple[str, ...] | None  #: the options of a swarm; None: real agents
    acts: tuple[Act, ...]
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        """Tell it, a line each."""
        fleet = "agents" if self.swarm is None else f"agents of a swarm: {' '.join(self.swarm)}"
        tables = "SQLite" if self.controls == 1 else "MariaDB"
        head = f"seed {self.seed}: {self.controls} control planes on {tables}"
        redis = ", with Redis" if self.redis else ""
        ways = " ".join("sync" if syncs else "push" for syncs in self.syncs)
        lines = [f"{head}{redis}; {self.agents} {fleet} ({ways}); {self.nodes} nodes each"]
        told = in_time(self.acts, self.faults)
        return "\n  ".join([*lines, *map(str, told)])

    @property
    def control_names(self) -> list[str]:
        """Return the names of its control planes."""
        return [f"control{number}" for number in range(self.controls)]

    @property
    def agent_names(self) -> list[str]:
        """Return the names of its agents' processes."""
        if self.swarm is not None:
            return ["swarm"]
        return [f"agent{number}" for number in range(self.agents)]

    def out(self, agent: int) -> bool:
        """Say whether an agent connects out: all those of a swarm do, or none."""
        return self.syncs[0 if self.swarm is not None else agent]

    @property
    def homes(self) -> list[int]:
        """Return the agent of each node, by place: one of each agent in turn, then more."""
        if self.swarm is not None:
            return list(range(self.agents))
        return homes(self.syncs, self.nodes)


def homes(syncs: Sequence[bool], nodes: int) -> list[int]:
    """Return which agent is that of each node: one that connects out has a single one."""
    return [
        agent
        for turn in range(nodes)
        for agent, connects in enumerate(syncs)
        if not (turn and connects)
    ]


def in_time(acts: Iterable[Act], faults: Iterable[Fault]) -> list[Act | Fault]:
    """Return all that happens, in order."""
    happening: list[Act | Fault] = [*acts, *faults]
    return sorted(happening, key=lambda each: each.at)


def draw(seed: int, replicas: bool | None = None) -> Schedule:
    """Draw the schedule of a seed; with or without replicas where that is said."""
    random = Random(seed)
    several = random.random() < REPLICAS_SHARE
    if replicas is not None:
        several = replicas
    controls = random.choice((2, 2, 3)) if several else 1
    swarm = _swarm(random) if random.random() < (0.7 if several else 0.4) else None
    agents = random.randint(4, 12) if swarm is not None else random.randint(1, 3)
    nodes = 1 if swarm is not None else random.randint(1, 3)
    syncs = _syncs(random, 1 if swarm is not None else agents)
    places = agents if swarm is not None else len(homes(syncs, nodes))
    seconds = random.uniform(0.4, 1.2) * (3 if several else 1)
    schedule = Schedule(
        seed=seed,
        controls=controls,
        redis=several and random.random() < 0.5,
        agents=agents,
        nodes=nodes,
        syncs=syncs,
        swarm=swarm,
        acts=tuple(sorted(_acts(random, places, seconds), key=lambda act: act.at)),
        faults=(),
    )
    faults = sorted(_faults(schedule, random, seconds), key=lambda fault: fault.at)
    return replace(schedule, faults=tuple(faults))


def _syncs(random: Random, processes: int) -> tuple[bool, ...]:
    """Draw which agents connect out: none, all, or some."""
    share = random.choice((0.0, 0.5, 1.0))
    return tuple(random.random() < share for _ in range(processes))


def _swarm(random: Random) -> tuple[str, ...]:
    """Draw how the agents of a swarm misbehave."""
    options = ["--seed", str(random.randrange(10**6)), "--down", f"{random.uniform(0.1, 0.8):.2f}"]
    for name, most in (("--drop", 0.08), ("--kill", 0.05), ("--fail", 0.3), ("--zombie", 0.03)):
        if random.random() < 0.4:
            options += [name, f"{random.uniform(0, most):.3f}"]
    if random.random() < 0.6:
        options += ["--latency", f"{random.uniform(1, 60):.0f}"]
    return tuple(options)


def _acts(random: Random, nodes: int, seconds: float) -> Iterator[Act]:
    """Draw what clients do; what is cancelled or retried was asked for a little before."""
    kinds = random.choice((KINDS, KINDS, ("apply_config",), ("purge_cache",)))
    few = tuple(random.sample(range(nodes), min(nodes, random.randint(1, 4))))
    for number in range(random.randint(8, 30)):
        at = random.uniform(0, seconds)
        what: What = "anonymous" if random.random() < 0.2 else "create"
        posts = random.choice((1, 1, 1, 2, 3)) if what == "create" else 1
        node = (random.choice(few),)
        fails = what == "create" and random.random() < 0.1
        yield Act(at, what, number, random.choice(kinds), node, posts, fails)
        if random.random() < 0.2:
            yield Act(at + random.expovariate(8), "cancel", number)
        if random.random() < (0.7 if fails else 0.2):
            yield Act(at + random.expovariate(2), "retry", number)
    for number in range(random.choice((0, 0, 1, 1, 2, 3))):
        yield from _operation(random, number, nodes, few, seconds)


def _operation(
    random: Random, number: int, nodes: int, busy: tuple[int, ...], seconds: float
) -> Iterator[Act]:
    """Draw an operation, as a rule on nodes that have other work too, and what befalls it."""
    at = random.uniform(0, seconds)
    some = random.sample(range(nodes), random.randint(1, nodes))
    target = tuple(sorted({*some, *(busy if random.random() < 0.6 else ())}))
    yield Act(
        at,
        "operate",
        number,
        random.choice(KINDS),
        target,
        random.choice((1, 1, 2)),
        max_concurrency=random.choice((None, None, 1, 2, 3)),
        max_failures=random.choice((None, None, 1, 2)),
    )
    for _ in range(random.choice((0, 0, 1, 2))):
        paused = at + random.expovariate(random.choice((5, 50)))
        yield Act(paused, "pause", number)
        yield Act(paused + random.expovariate(random.choice((1.5, 6))), "resume", number)
    if random.random() < 0.3:
        yield Act(at + random.expovariate(random.choice((4, 40))), "stop", number)
    if random.random() < 0.3:
        yield Act(at + random.expovariate(2), "retry_failed", number)


def _faults(schedule: Schedule, random: Random, seconds: float) -> Iterator[Fault]:
    """Draw what goes wrong: some of the processes die at a named place, others at any moment."""
    for who in (*schedule.control_names, *schedule.agent_names):
        points = AGENT_POINTS if who.startswith("agent") else CONTROL_POINTS
        if who != "swarm" and random.random() < 0.5:
            point = f"{random.choice(points)}:{random.choice((1, 1, 2, 3, 5, 8))}"
            yield Fault(0.0, "crash_at", who, random.uniform(0, 0.5), point)
    everybody = [*schedule.control_names, *schedule.control_names, *schedule.agent_names]
    for _ in range(random.choice((1, 2, 2, 3, 4))):
        who, at = random.choice(everybody), random.uniform(0.05, seconds)
        if random.random() < 0.7:
            yield Fault(at, "kill", who, random.choice((0.0, random.uniform(0, 0.8))))
        else:
            long = schedule.controls > 1 and who.startswith("control") and random.random() < 0.6
            bounds = _LONG_FREEZE if long else _SHORT_FREEZE
            yield Fault(at, "freeze", who, random.uniform(*bounds))
    yield from _faults_of_sync(schedule, random, seconds)
    if schedule.controls > 1 and random.random() < 0.25:
        yield Fault(random.uniform(0.1, seconds), "database", "mariadbd", random.uniform(0, 1.0))


def _faults_of_sync(schedule: Schedule, random: Random, seconds: float) -> Iterator[Fault]:
    """Draw what befalls connections that agents make, and the names they give."""
    names = [n for n, syncs in zip(schedule.agent_names, schedule.syncs, strict=True) if syncs]
    if not names:
        return
    if random.random() < 0.4:
        for _ in range(random.choice((1, 2, 3))):
            yield Fault(random.uniform(0.05, seconds), "cut", random.choice(names))
    if random.random() < CLAIM_SHARE:
        claimed = random.choice(
            [p for p, agent in enumerate(schedule.homes) if schedule.out(agent)]
        )
        who = "swarm" if schedule.swarm is not None else f"agent{schedule.homes[claimed]}"
        at = random.uniform(0.05, seconds)
        yield Fault(at, "claim", who, random.uniform(0.2, 3.0), node=claimed)
