"""``python -m benchmarks.idle``: a fleet that is connected, and has next to nothing to do.

One control plane, and a swarm whose agents connect out: what they cost while nothing happens, how
soon an agent has a task that is created meanwhile, and how they come back after a crash of the
control plane. Control plane on one core, swarm and load on the other.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

# The servers and processes are those of the tests' kit.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import msgspec
import uvloop
from sqlalchemy import make_url

from benchmarks import cores, stage, watching
from benchmarks.figures import percentile
from benchmarks.load import Door
from benchmarks.registering import register
from benchmarks.stores import Mariadb, Sqlite, Store
from edgeplane.store import migrate
from kit.processes import ControlPlane
from kit.swarm import Swarm

SETTLE_SECONDS = 5.0  #: after all have connected, and before anything is measured
AFTER_SECONDS = 15.0  #: for a node to be shown offline wrongly, once all are back
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    agents: int
    seconds: int  #: without anything to do
    rate: int  #: creates per second
    creating: int  #: seconds of creates


@dataclass
class Fleet:
    """What is measured, while it runs."""

    control: ControlPlane
    swarm: Swarm
    door: Door


@dataclass(frozen=True)
class Created:
    """One create; monotonic clock."""

    sent: float
    answered: float


class _Line(msgspec.Struct, rename="camel"):
    event: str
    request_id: str = ""
    taken: float = 0.0


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.sched_setaffinity(0, cores.OTHERS)
    plan = Plan(asked.agents, asked.seconds, asked.rate, asked.creating)
    try:
        for engine in ["sqlite", "mariadb"] if asked.engine == "both" else [asked.engine]:
            with tempfile.TemporaryDirectory(prefix="edgeplane-idle-") as name:
                folder = Path(name)
                folder.chmod(0o711)  # MariaDB's own user must reach its folder
                _measure(engine, folder, plan)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _measure(engine: str, folder: Path, plan: Plan) -> None:
    store: Store = Sqlite(folder) if engine == "sqlite" else Mariadb(folder / "db")
    with contextlib.closing(store), _running(store, folder, plan.agents) as fleet:
        print(f"{store.title}, {plan.agents} agents that connect out")
        before = stage.rss_mib(fleet.control)
        fleet.swarm.up()
        seconds, _ = watching.until_connected(fleet.control, plan.agents)
        print(f"  all connected in {seconds:.1f} s", flush=True)
        time.sleep(SETTLE_SECONDS)
        _tell_idle(fleet, plan, before)
        _tell_creates(fleet, plan)
        _tell_crash(fleet, plan)
        fleet.swarm.stop()
        told = fleet.swarm.summary()
        lost = {name: told[name] for name in ("lost_exchanges", "unreached", "turned_away")}
        print(f"  the swarm made {told['exchanges']} exchanges; {lost}")
        print(f"  {os.getloadavg()[0]:.1f} is the machine's load average\n", flush=True)


def _tell_idle(fleet: Fleet, plan: Plan, before: float) -> None:
    """Show what the agents cost while nothing happens."""
    cpu = [stage.cpu_seconds(process) for process in (fleet.control, fleet.swarm)]
    begun = time.monotonic()
    time.sleep(plan.seconds)
    took = time.monotonic() - begun
    shares = [
        100 * (stage.cpu_seconds(process) - spent) / took
        for process, spent in zip((fleet.control, fleet.swarm), cpu, strict=True)
    ]
    rss = stage.rss_mib(fleet.control)
    each = 1024 * (rss - before) / plan.agents
    print(
        f"  idle for {took:.0f} s: control plane {shares[0]:.1f} % of a core, swarm"
        f" {shares[1]:.1f} %; resident {rss:.0f} MiB, {each:.1f} KiB an agent"
        f" ({before:.0f} MiB before); swarm {stage.rss_mib(fleet.swarm):.0f} MiB",
        flush=True,
    )


def _tell_creates(fleet: Fleet, plan: Plan) -> None:
    """Show how soon an agent has what is created for it."""
    created = uvloop.run(_create(fleet.door, plan))
    arrived = _arrivals(fleet.swarm, created)
    answer = [arrived[name] - one.answered for name, one in created.items()]
    post = [arrived[name] - one.sent for name, one in created.items()]
    print(
        f"  {len(created)} creates at {plan.rate}/s, to agents at random:"
        f" accepted to the agent has it p50 {percentile(answer, 50):.1f} ms,"
        f" p99 {percentile(answer, 99):.1f} ms;"
        f" from the POST p50 {percentile(post, 50):.1f} ms, p99 {percentile(post, 99):.1f} ms",
        flush=True,
    )


def _tell_crash(fleet: Fleet, plan: Plan) -> None:
    """Show how the agents come back to a control plane that was killed and started again."""
    fleet.control.kill()
    begun = time.monotonic()
    with cores.starting_on(cores.CONTROL):
        fleet.control.up()
    serving = time.monotonic() - begun
    seconds, most = watching.until_connected(fleet.control, plan.agents)
    back = serving + seconds
    until = time.monotonic() + AFTER_SECONDS
    while time.monotonic() < until:
        most = max(most, watching.offline(fleet.control))
        time.sleep(_LOOK_SECONDS)
    print(
        f"  kill -9 of the control plane: it served again after {serving:.1f} s, all agents were"
        f" back after {back:.1f} s; nodes shown offline meanwhile, at most: {most}",
        flush=True,
    )


async def _create(door: Door, plan: Plan) -> dict[str, Created]:
    """Create tasks at a slow rate, each when its time has come."""
    made: dict[str, Created] = {}
    connections = [await door.connect() for _ in range(16)]
    free = asyncio.Queue[int]()
    for number in range(len(connections)):
        free.put_nowait(number)

    async def create(number: int) -> None:
        place = await free.get()
        sent = time.monotonic()
        node = random.randrange(plan.agents)
        await door.create(connections[place], node, f"idle-{number}")
        made[f"idle-{number}"] = Created(sent, time.monotonic())
        free.put_nowait(place)

    begun = asyncio.get_running_loop().time()
    tasks = []
    for number in range(plan.rate * plan.creating):
        due = begun + number / plan.rate
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        tasks.append(asyncio.create_task(create(number)))
    await asyncio.gather(*tasks)
    for connection in connections:
        connection.abort()
    return made


def _arrivals(swarm: Swarm, created: dict[str, Created]) -> dict[str, float]:
    """Return when each request came to its agent, once all have."""
    until = time.monotonic() + 60
    while True:
        lines = swarm.effects.read_bytes().splitlines()
        read = [msgspec.json.decode(line, type=_Line) for line in lines]
        found = {line.request_id: line.taken for line in read if line.event == "effect"}
        if created.keys() <= found.keys():
            return found
        if time.monotonic() > until:
            raise RuntimeError(f"{len(created.keys() - found.keys())} tasks have had no effect")
        time.sleep(_LOOK_SECONDS)


@contextmanager
def _running(store: Store, folder: Path, count: int) -> Iterator[Fleet]:
    """Start a control plane that knows the agents; they do not run yet."""
    (folder / "control" / "state").mkdir(parents=True)
    control = ControlPlane(folder / "control", store.env)
    with ExitStack() as stack:
        swarm = Swarm(folder / "swarm", count, control=f"http://127.0.0.1:{control.sync_port}")
        stack.callback(stage.end, swarm)
        migrate.upgrade(make_url(store.control))
        ids = register(store.control, count, swarm.port, "sync")
        stack.callback(stage.end, control)
        with cores.starting_on(cores.CONTROL):
            control.up()
        yield Fleet(control, swarm, Door(control.port, control.token, ids))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--agents", type=int, default=10_000, help="how many (default 10000)")
    parser.add_argument("--seconds", type=int, default=60, help="of idling (default 60)")
    parser.add_argument("--rate", type=int, default=50, help="creates a second (default 50)")
    parser.add_argument("--creating", type=int, default=20, help="seconds of them (default 20)")
    parser.add_argument("--engine", choices=["sqlite", "mariadb", "both"], default="sqlite")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
