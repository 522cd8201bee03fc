"""``python -m benchmarks.fleet``: a fleet of simulated agents, one task for each of them.

First as single creates, then as one operation on all of them.

One control plane, one swarm; the floor beside it in each round is the control plane's own HTTP
client against a second swarm just like it (both on one would need as many files as a process may
have). Control plane and floor run on one core, the rest on the other.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

# The servers and processes are those of the tests' kit.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import uvloop
from sqlalchemy import make_url

from benchmarks import commands, cores, effects, floors, load, stage, watching
from benchmarks.effects import Effects
from benchmarks.figures import percentile, spread
from benchmarks.floors import Client, Run
from benchmarks.load import Door
from benchmarks.registering import register
from benchmarks.stores import Mariadb, Sqlite, Store, View
from edgeplane.store import migrate
from kit.processes import AGENT_TOKEN, ControlPlane
from kit.swarm import Swarm

CONCURRENCY = 64  #: creates open at once, and deliveries of the floor
OUT = 512  #: deliveries out at once as delivered, and of the floor beside an operation
_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Round:
    """What one round came to."""

    per_second: float  #: tasks, from the first POST until the last success was committed
    floor: float  #: deliveries per second
    p50: float  #: milliseconds from a row's creation to its end, by the rows
    p99: float
    answered_p50: float  #: milliseconds from a POST to its answer
    applied_p50: float  #: milliseconds from that answer to the effect at the agent
    applied_p99: float
    cpu_us: float  #: of the control plane, per task


@dataclass(frozen=True)
class Fan:
    """What one operation on all agents came to."""

    seconds: float  #: from the POST until every success was committed
    floor: float  #: seconds of the bare client for the same deliveries
    applied_p50: float  #: milliseconds from the POST's answer to the effect at an agent
    applied_p99: float


@dataclass
class Fleet:
    """What is measured, while it runs."""

    control: ControlPlane
    swarm: Swarm
    other: Swarm  #: the floor's
    door: Door
    view: View
    effects: Effects


def main() -> int:
    asked = _arguments()
    os.sched_setaffinity(0, cores.OTHERS)
    return commands.run(
        asked,
        lambda: {
            engine: _measure(engine, folder, asked.nodes, asked.rounds, asked.transport)
            for engine, folder in commands.folders("fleet", asked)
        },
    )


def _measure(engine: str, folder: Path, count: int, rounds: int, transport: str) -> dict[str, Any]:
    store: Store = Sqlite(folder) if engine == "sqlite" else Mariadb(folder / "db")
    with contextlib.closing(store), _running(store, folder, count, transport) as fleet:
        print(f"{store.title}, {count} nodes by {transport}, {CONCURRENCY} creates at once")
        uvloop.run(load.run(fleet.door, fleet.view, count, CONCURRENCY))  # connections are made
        fleet.effects.new()
        done = []
        for number in range(1, rounds + 1):
            done.append(_round(fleet, count))
            print(_line(f"round {number}", done[-1:]), flush=True)
        print(_line("median", done))
        fans = [_fan_out(fleet, count) for _ in range(rounds)]
        print(_fans(count, fans), flush=True)
        rss = stage.rss_mib(fleet.control), stage.rss_mib(fleet.swarm)
        print(f"  resident: control plane {rss[0]:.0f} MiB, swarm {rss[1]:.0f} MiB")
        fleet.swarm.stop()
        made = fleet.swarm.summary()
        print(f"  the swarm had {made['requests']} requests and made {made['effects']} effects")
        print(f"  {os.getloadavg()[0]:.1f} is the machine's load average\n", flush=True)
    told: dict[str, Any] = {"nodes": count, "resident_mib": rss}
    return told | {"rounds": [*map(asdict, done)], "operations": [*map(asdict, fans)]}


def _round(fleet: Fleet, count: int) -> Round:
    cpu = stage.cpu_seconds(fleet.control)
    done = uvloop.run(load.run(fleet.door, fleet.view, count, CONCURRENCY))
    cpu = stage.cpu_seconds(fleet.control) - cpu
    waits = fleet.view.waits(done.first_id)
    applied = effects.waits(done.accepted, fleet.effects.new())
    client = Client(port=fleet.other.port, token=AGENT_TOKEN, addresses=count, swarm=True)
    floor = floors.measure(client, Run(count, CONCURRENCY))
    return Round(
        per_second=count / done.seconds,
        floor=count / floor.seconds,
        p50=percentile(waits, 50),
        p99=percentile(waits, 99),
        answered_p50=percentile(done.create_seconds, 50),
        applied_p50=percentile(applied, 50),
        applied_p99=percentile(applied, 99),
        cpu_us=1e6 * cpu / count,
    )


def _fan_out(fleet: Fleet, count: int) -> Fan:
    """Ask for one operation on all nodes."""
    asked = {"type": "purge_cache", "payload": {"urls": ["/*"]}, "target": {"all": True}}
    begun = time.monotonic()
    made = fleet.control.call("POST", "/operations/create", asked)["data"]
    accepted = time.monotonic()
    while made["counts"]["success"] < count:
        time.sleep(_LOOK_SECONDS)
        made = fleet.control.call("GET", f"/operations/{made['id']}")["data"]
    seconds = time.monotonic() - begun
    names = {f"op{made['id']}-n{node_id}": accepted for node_id in fleet.door.node_ids}
    applied = effects.waits(names, fleet.effects.new())
    client = Client(port=fleet.other.port, token=AGENT_TOKEN, addresses=count, swarm=True)
    return Fan(
        seconds=seconds,
        floor=floors.measure(client, Run(count, OUT)).seconds,
        applied_p50=percentile(applied, 50),
        applied_p99=percentile(applied, 99),
    )


def _fans(count: int, fans: Sequence[Fan]) -> str:
    times = spread([fan.seconds / fan.floor for fan in fans], 1)
    return (
        f"  one operation on all {count} nodes, {len(fans)} times: POST to every success committed"
        f" {spread([fan.seconds for fan in fans], 2)} s;"
        f" bare client {spread([fan.floor for fan in fans], 2)} s: {times} times that;"
        f" accepted to applied p50 {median(fan.applied_p50 for fan in fans):.0f} ms,"
        f" p99 {spread([fan.applied_p99 for fan in fans], 0)} ms"
    )


@contextmanager
def _running(store: Store, folder: Path, count: int, transport: str) -> Iterator[Fleet]:
    """Start a swarm and a control plane that has its nodes."""
    (folder / "control" / "state").mkdir(parents=True)
    control = ControlPlane(folder / "control", store.env)
    with ExitStack() as stack:
        other = Swarm(folder / "other", count).up()
        stack.callback(other.kill)
        url = f"http://127.0.0.1:{control.sync_port}" if transport == "sync" else None
        swarm = Swarm(folder / "swarm", count, control=url)
        migrate.upgrade(make_url(store.control))
        ids = register(store.control, count, swarm.port, transport)
        stack.callback(control.kill)
        with cores.starting_on(cores.CONTROL):
            control.up()
        swarm.up()
        stack.callback(swarm.kill)
        if transport == "sync":
            watching.until_connected(control, count)
        view = store.view()
        stack.callback(view.close)
        door = Door(control.port, control.token, ids)
        yield Fleet(control, swarm, other, door, view, Effects(swarm.effects))


def _line(title: str, done: Sequence[Round]) -> str:
    def middle(name: str) -> float:
        return float(median(getattr(one, name) for one in done))

    share = median(one.per_second / one.floor for one in done)
    return (
        f"  {title:<8} {middle('per_second'):6.0f} tasks/s = {share:.2f} of the floor"
        f" ({middle('floor'):.0f}/s); created to success p50 {middle('p50'):.0f} ms,"
        f" p99 {middle('p99'):.0f} ms; accepted to applied p50 {middle('applied_p50'):.1f} ms,"
        f" p99 {middle('applied_p99'):.0f} ms; create answered p50 {middle('answered_p50'):.1f} ms;"
        f" CPU {middle('cpu_us'):.0f} us a task"
    )


def _arguments() -> argparse.Namespace:
    parser = commands.parser("fleet", __doc__)
    parser.add_argument("--nodes", type=int, default=1_000, help="how many (default 1000)")
    parser.add_argument("--transport", choices=["push", "sync"], default="push")
    parser.add_argument("--rounds", type=int, default=3, help="how many (default 3)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
