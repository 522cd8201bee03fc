"""``python -m benchmarks.kept``: what agents cost that have nothing to do, and how soon they have.

One control plane, a swarm of agents without a journal. Every agent is given a task once, so that
its connection is kept; then tasks come one at a time, for an agent at random, while all others
idle. The floor of the memory is the control plane's own client with as many connections, alone.
"""

import argparse
import asyncio
import contextlib
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The servers and processes are those of the tests' kit.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import uvloop
from msgspec import Raw
from sqlalchemy import make_url

from benchmarks import commands, cores, effects, load, stage
from benchmarks.effects import Effects
from benchmarks.figures import percentile
from benchmarks.load import Door
from benchmarks.registering import register
from benchmarks.stores import Mariadb, Sqlite, Store, View
from edgeplane.model.clock import new_request_id
from edgeplane.store import migrate
from edgeplane.swarm.addresses import address_of
from edgeplane.transport.base import Address
from edgeplane.transport.push import PushTransport
from edgeplane.wire import ExecuteRequest
from kit.processes import AGENT_TOKEN, ControlPlane
from kit.swarm import Swarm

_CONCURRENCY = 64
_SECONDS = 31.0
_METRICS = ("connections_idle", "connections_made_total", "requests_sent_total")


@dataclass(frozen=True)
class Transport:
    """How agents are reached, and what is to be told the swarm for it."""

    swarm: tuple[str, ...]


#: Another transport is another entry here.
TRANSPORTS = {"push": Transport(swarm=("--no-journal",))}


@dataclass
class Idle:
    """What is measured, while it runs."""

    control: ControlPlane
    swarm: Swarm
    view: View
    effects: Effects
    ids: list[int]

    def door(self, ids: list[int]) -> Door:
        """Return the way in, for tasks of these nodes in turn."""
        return Door(self.control.port, self.control.token, ids)

    def metrics(self) -> dict[str, float]:
        """Return what the control plane counts of its connections."""
        url = f"http://127.0.0.1:{self.control.port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()
        found = re.findall(r"^edgeplane_(\S+) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found if name in _METRICS}


def main() -> int:
    asked = _arguments()
    if asked.bare:
        return uvloop.run(_bare(*asked.bare))
    os.sched_setaffinity(0, cores.OTHERS)
    return commands.run(
        asked,
        lambda: {
            engine: _measure(engine, folder, asked)
            for engine, folder in commands.folders("kept", asked)
        },
    )


def _measure(engine: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    store: Store = Sqlite(folder) if engine == "sqlite" else Mariadb(folder / "db")
    with (
        contextlib.closing(store),
        _running(store, folder, asked.nodes, TRANSPORTS[asked.transport]) as idle,
    ):
        print(f"{store.title}, {asked.nodes} agents, {asked.transport}", flush=True)
        told = {**_connections(idle, asked.nodes), **_latency(idle, asked.tasks)}
        print(_lines(told), flush=True)
        return told


def _connections(idle: Idle, count: int) -> dict[str, float]:
    """Give every agent its connection; return what that came to."""
    # As many tasks for one agent first: what grows with tasks has grown.
    uvloop.run(load.run(idle.door(idle.ids[:1]), idle.view, count, _CONCURRENCY))
    before, first = stage.rss_mib(idle.control), idle.metrics()
    uvloop.run(load.run(idle.door(idle.ids), idle.view, count, _CONCURRENCY))
    after, second = stage.rss_mib(idle.control), idle.metrics()
    more = second["connections_idle"] - first["connections_idle"]
    return {
        "connections": second["connections_idle"],
        "resident_mib": after,
        "kib_per_connection": 1024 * (after - before) / max(1.0, more),
        "bare_kib_per_connection": _bare_kib(idle.swarm.port, count),
    }


def _latency(idle: Idle, tasks: int) -> dict[str, float]:
    """Give one agent at a time a task."""
    idle.effects.new()
    first = idle.metrics()
    dice = random.Random(1)
    ids = [dice.choice(idle.ids) for _ in range(tasks)]
    sent, answered = uvloop.run(_one_by_one(idle.door(ids), tasks))
    done = _effects_of(idle, sent)
    last = idle.metrics()
    made = last["connections_made_total"] - first["connections_made_total"]
    requests = last["requests_sent_total"] - first["requests_sent_total"]
    from_post, from_answer = effects.waits(sent, done), effects.waits(answered, done)
    return {
        "reused_share": 1 - made / requests,
        "requests": requests,
        "post_to_agent_p50_ms": percentile(from_post, 50),
        "post_to_agent_p99_ms": percentile(from_post, 99),
        "accepted_to_agent_p50_ms": percentile(from_answer, 50),
        "accepted_to_agent_p99_ms": percentile(from_answer, 99),
    }


def _effects_of(idle: Idle, sent: dict[str, float]) -> dict[str, float]:
    """Wait until every one of these tasks has had its effect; return when."""
    found: dict[str, float] = {}
    end = time.monotonic() + _SECONDS
    while not sent.keys() <= found.keys():
        if time.monotonic() > end:
            break  # whoever asks says what is missing
        found |= idle.effects.new()
        time.sleep(0.01)
    return found


async def _one_by_one(door: Door, tasks: int) -> tuple[dict[str, float], dict[str, float]]:
    """Ask for tasks with pauses between; return when each was sent, and when answered."""
    connection = await door.connect()
    sent, answered = {}, {}
    for number in range(tasks):
        await asyncio.sleep(random.uniform(*load.PAUSE_SECONDS))
        at = time.monotonic()
        made = await door.create(connection, number)
        sent[made.request_id], answered[made.request_id] = at, time.monotonic()
    connection.abort()
    return sent, answered


@contextmanager
def _running(store: Store, folder: Path, count: int, transport: Transport) -> Iterator[Idle]:
    """Start a swarm and a control plane that has its nodes."""
    with ExitStack() as stack:
        swarm = Swarm(folder / "swarm", count, transport.swarm).up()
        stack.callback(swarm.kill)
        (folder / "control" / "state").mkdir(parents=True)
        migrate.upgrade(make_url(store.control))
        ids = register(store.control, count, swarm.port)
        control = ControlPlane(folder / "control", store.env)
        stack.callback(control.kill)
        with cores.starting_on(cores.CONTROL):
            control.up()
        view = store.view()
        stack.callback(view.close)
        yield Idle(control, swarm, view, Effects(swarm.effects), ids)


def _bare_kib(port: int, count: int) -> float:
    """Return what a connection costs the client alone, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.kept", "--bare", str(port), str(count)]
    with cores.starting_on(cores.CONTROL):
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


async def _bare(port: int, count: int) -> int:
    """Connect to so many agents, print the memory a connection took, in KiB."""
    transport = PushTransport(AGENT_TOKEN)

    async def deliver(number: int) -> None:
        request = ExecuteRequest(new_request_id(), "purge_cache", Raw(b'{"urls":["/*"]}'))
        await transport.deliver(Address(address_of(number), port), request, _SECONDS)

    for _ in range(count):
        await deliver(1)
    before = stage.rss_mib_of(os.getpid())
    for first in range(1, count + 1, _CONCURRENCY):
        some = range(first, min(first + _CONCURRENCY, count + 1))
        await asyncio.gather(*(deliver(number) for number in some))
    print(1024 * (stage.rss_mib_of(os.getpid()) - before) / count)
    await transport.close()
    return 0


def _lines(told: dict[str, float]) -> str:
    return (
        f"  {told['connections']:.0f} connections kept; control plane resident"
        f" {told['resident_mib']:.0f} MiB, {told['kib_per_connection']:.1f} KiB for each connection"
        f" (its client alone: {told['bare_kib_per_connection']:.1f} KiB)\n"
        f"  {100 * told['reused_share']:.2f} % of {told['requests']:.0f} requests on a kept"
        " connection\n"
        f"  POST sent to the agent has it: p50 {told['post_to_agent_p50_ms']:.2f} ms,"
        f" p99 {told['post_to_agent_p99_ms']:.2f} ms; from the answer (accepted) on:"
        f" p50 {told['accepted_to_agent_p50_ms']:.2f} ms,"
        f" p99 {told['accepted_to_agent_p99_ms']:.2f} ms\n"
    )


def _arguments() -> argparse.Namespace:
    parser = commands.parser("kept", __doc__)
    parser.add_argument("--nodes", type=int, default=5_000, help="how many (default 5000)")
    parser.add_argument("--tasks", type=int, default=1_000, help="one by one (default 1000)")
    parser.add_argument("--transport", choices=sorted(TRANSPORTS), default="push")
    parser.add_argument("--bare", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
