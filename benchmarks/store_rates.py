"""``python -m benchmarks.store_rates``: tasks claimed, begun and settled, with no network at all.

The engine's own turns (``dispatch/turns.py``), each one transaction: it settles what the turn
before began, claims due mailboxes and begins their tasks. The floor writes the same rows in the
same batches, with the driver alone: it reads nothing, and decides nothing. Both take tasks that are
in the tables already. MariaDB has the other core.
"""

import argparse
import contextlib
import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# The servers and processes are those of the tests' kit.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import uvloop
from sqlalchemy import make_url

from benchmarks import bare_rates, commands, cores
from benchmarks.figures import spread
from benchmarks.floors import new_task
from benchmarks.registering import register
from benchmarks.stores import Mariadb, Sqlite, Store
from edgeplane.dispatch.engine import MAX_CLAIM, MAX_RESULTS
from edgeplane.services.tasks import create_many
from edgeplane.settings import DispatchSettings
from edgeplane.store import migrate
from edgeplane.store.database import Database
from edgeplane.wire import MAX_BATCH
from kit.engines import Turner, came_back

_CREATED_AT_ONCE = 500
_DISPATCH = DispatchSettings()


@dataclass(frozen=True)
class Pass:
    """What one pass over all tasks came to."""

    per_second: float  #: tasks claimed, begun and settled
    floor: float
    cpu_us: float  #: of this process, per task
    turns: int


def main() -> int:
    asked = _arguments()
    return commands.run(
        asked,
        lambda: {
            engine: _measure(engine, folder, asked)
            for engine, folder in commands.folders("rates", asked)
        },
    )


def _measure(engine: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    told: dict[str, Any] = {}
    (folder / "control" / "state").mkdir(parents=True)
    with cores.starting_on(cores.OTHERS):
        store: Store = Sqlite(folder) if engine == "sqlite" else Mariadb(folder / "db")
    os.sched_setaffinity(0, cores.CONTROL)
    with contextlib.closing(store):
        print(f"{store.title}, claim + begin + settle of {asked.tasks} tasks, no network")
        for url in (store.control, store.floor):
            migrate.upgrade(make_url(url))
            register(url, asked.nodes, 9090)
        for per_node in (1, 16):
            nodes = max(1, min(asked.nodes, asked.tasks // per_node))
            done = [_pass(store, asked.tasks, nodes) for _ in range(asked.rounds + 1)][1:]
            print(_line(per_node, done), flush=True)
            told[f"{per_node} a node"] = [dataclasses.asdict(one) for one in done]
    return told


def _pass(store: Store, tasks: int, nodes: int) -> Pass:
    """Take all tasks through, by turns and by the floor."""
    for url in (store.control, store.floor):
        uvloop.run(_create(url, tasks, nodes))
    cpu = time.process_time()
    seconds, turns = uvloop.run(_take(store.control, tasks))
    cpu = time.process_time() - cpu
    return Pass(
        per_second=tasks / seconds,
        floor=tasks / bare_rates.take(make_url(store.floor), MAX_CLAIM, MAX_RESULTS),
        cpu_us=1e6 * cpu / tasks,
        turns=turns,
    )


async def _create(url: str, tasks: int, nodes: int) -> None:
    """Store tasks by the rule, spread over the nodes one after the other."""
    database = Database(make_url(url))
    ids = list(range(1, nodes + 1))
    try:
        for first in range(0, tasks, _CREATED_AT_ONCE):
            new = [new_task(n, ids) for n in range(first, min(first + _CREATED_AT_ONCE, tasks))]
            await database.create(partial(create_many, asked=new))
    finally:
        await database.close()


async def _take(url: str, tasks: int) -> tuple[float, int]:
    """Take turns until all is settled; return the seconds, and how many turns it took."""
    database = Database(make_url(url))
    turner = Turner(database, seconds=_DISPATCH.lease_seconds, max_batch=MAX_BATCH)
    turner.max_per_node = _DISPATCH.max_per_node
    settled = turns = 0
    back: list[Any] = []
    began = time.perf_counter()
    try:
        while settled < tasks:
            now, back = back[:MAX_RESULTS], back[MAX_RESULTS:]
            turn = await turner.take(now, claim=MAX_CLAIM)
            settled += len(turn.settled)
            back += [came_back(delivery) for delivery in turn.begun]
            turns += 1
            if not (turn.begun or turn.settled or back):
                raise RuntimeError(f"{tasks - settled} tasks are left, and none is due")
    finally:
        await database.close()
    return time.perf_counter() - began, turns


def _line(per_node: int, done: list[Pass]) -> str:
    share = spread([one.per_second / one.floor for one in done], 2)
    return (
        f"  {per_node:>2} a node: {spread([one.per_second for one in done], 0)} tasks/s,"
        f" bare statements {spread([one.floor for one in done], 0)}/s: {share} of them;"
        f" CPU {median(one.cpu_us for one in done):.0f} us a task;"
        f" {median(one.turns for one in done):.0f} commits"
    )


def _arguments() -> argparse.Namespace:
    parser = commands.parser("store_rates", __doc__)
    parser.add_argument("--tasks", type=int, default=20_000, help="in a round (default 20000)")
    parser.add_argument("--nodes", type=int, default=10_000, help="how many (default 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="how many (default 3)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
