"""``python -m benchmarks.peers``: the same no-op work by Edgeplane and by others, side by side.

Each task is posted to an agent (a swarm without a journal) and its result stored in the same
MariaDB. The stack runs on one core; database, Redis, agents and load share the other. Every round
walks through all stacks; each is started anew, on empty tables.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

# The servers and processes are those of the tests' kit.
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from benchmarks import cores, stage
from benchmarks.figures import percentile, spread
from benchmarks.peers.environment import program
from benchmarks.peers.stacks import AGENTS, OURS, STACKS, Place, Stack
from benchmarks.peers.watching import Asked, Watch
from kit.servers import MariaDB, Redis
from kit.swarm import Swarm

_WARM = 100  #: tasks ahead: connections, tables, code
_RATE = "tasks_per_second"
_Figures = dict[str, list[float]]


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    program("python")
    os.sched_setaffinity(0, cores.OTHERS)
    found: dict[str, _Figures] = {stack.title: {} for stack in STACKS}
    try:
        with _place() as place:
            print(f"{asked.tasks} tasks of ours, fewer of slower ones; {asked.rate} a second")
            for number in range(1, asked.rounds + 1):
                for stack in STACKS:
                    round_ = _measure(stack, place, asked)
                    for name, value in round_.items():
                        found[stack.title].setdefault(name, []).append(value)
                    print(f"  round {number}: {_line(stack.title, found, last=True)}", flush=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(_report(found), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


@contextmanager
def _place() -> Iterator[Place]:
    """Start what all stacks share."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeplane-peers-")))
        folder.chmod(0o711)  # MariaDB's own user must reach its folder
        database, redis = MariaDB(folder / "db"), Redis(folder / "redis")
        for server in (database, redis):
            stack.callback(server.kill)
            server.start()
        swarm = Swarm(folder / "swarm", AGENTS, ["--no-journal"])
        stack.callback(swarm.kill)
        yield Place(folder, database, redis, swarm.up())


def _measure(stack: Stack, place: Place, asked: argparse.Namespace) -> dict[str, float]:
    """Run a stack: as fast as it goes, then at a pace all can keep."""
    count = max(_WARM, round(asked.tasks * stack.share))
    database = f"peer_{STACKS.index(stack)}"
    with (
        stack.running(place, database) as loader,
        contextlib.closing(Watch(place.database, database, stack.rows)) as watch,
    ):
        loader.burst(_WARM)
        watch.wait_until(_WARM)
        cpu, began = stage.family_cpu_seconds(loader.process), time.monotonic()
        with _beside(loader.burst, count):
            took = watch.wait_until(_WARM + count) - began
        cpu = stage.family_cpu_seconds(loader.process) - cpu
        tasks: Asked = Asked()
        with _beside(loader.paced, asked.rate, asked.rate * asked.seconds, tasks):
            waits = watch.follow(tasks)
    return {
        _RATE: count / took,
        "cpu_us": 1e6 * cpu / count,
        "p50_ms": percentile(waits, 50),
        "p99_ms": percentile(waits, 99),
    }


@contextmanager
def _beside(ask: Callable[..., None], *given: Any) -> Iterator[None]:
    """Let a loader ask in a thread of its own meanwhile."""
    thread = threading.Thread(target=ask, args=given)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _report(found: dict[str, _Figures]) -> str:
    """Show all, and how often faster ours was, round by round."""
    heads = ("tasks/s", "CPU a task, us", "p50, ms", "p99, ms", "ours by it")
    lines = [f"  {'':<30}{''.join(f'{head:>22}' for head in heads)}"]
    for title, figures in found.items():
        rates = zip(found[OURS][_RATE], figures[_RATE], strict=True)
        times = spread([ours / theirs for ours, theirs in rates], 1)
        lines.append(f"  {_line(title, found)}{times:>22}")
    return "\n".join(lines)


def _line(title: str, found: dict[str, _Figures], *, last: bool = False) -> str:
    cut = slice(-1, None) if last else slice(None)
    rate, cpu, p50, p99 = (
        spread(found[title][name][cut], digits)
        for name, digits in ((_RATE, 0), ("cpu_us", 0), ("p50_ms", 1), ("p99_ms", 1))
    )
    return f"{title:<30}{rate:>22}{cpu:>22}{p50:>22}{p99:>22}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--tasks", type=int, default=6_000, help="of ours (default 6000)")
    parser.add_argument("--rate", type=int, default=50, help="paced, a second (default 50)")
    parser.add_argument("--seconds", type=int, default=5, help="of that (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
