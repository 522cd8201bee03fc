"""``python -m benchmarks.lists``: how long a page of a long history takes, filter by filter.

The tables are filled past the API, then every list is asked as the API asks it: one page in one
read transaction, from handing it in to having it back. HTTP and JSON are not in it. One at a time,
nothing else running; what is asked for is drawn at random, the same for both engines.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

# The servers and processes are those of the tests' kit.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import uvloop
from sqlalchemy import make_url

from benchmarks import commands
from benchmarks.figures import percentile
from benchmarks.filling import MARIADB_OPTIONS, History, fill
from benchmarks.stores import Mariadb, Sqlite
from edgeplane.model.paging import MAX_OFFSET, PageRequest
from edgeplane.model.progress import OperationState
from edgeplane.model.tasks import TaskKind, TaskStatus
from edgeplane.store import attempts, operations, task_lists, tasks
from edgeplane.store.database import Database
from edgeplane.store.task_lists import TaskFilter
from edgeplane.store.workers import Tx

Look = Callable[[Tx], Any]
Ask = Callable[[PageRequest], Look]
#: Draws what to ask for.
Draw = Callable[[random.Random, History], Ask]

_WARM = 5  #: looks ahead of each figure: statements are compiled once
_WORST_FREE_BYTES_A_ROW = 1_500


@dataclass(frozen=True)
class Figure:
    """What one list took, asked in one way, in milliseconds."""

    engine: str
    what: str
    way: str
    p50: float
    p99: float
    most: float


def main() -> int:
    asked = _arguments()
    return commands.run(asked, lambda: _figures(asked))


def _figures(asked: argparse.Namespace) -> list[dict[str, Any]]:
    figures = []
    for engine, folder in commands.folders("lists", asked):
        with _filled(engine, folder, asked.rows) as (url, history):
            figures += uvloop.run(_measure(engine, url, history, asked))
    return [vars(figure) for figure in figures]


@contextmanager
def _filled(engine: str, folder: Path, rows: int) -> Iterator[tuple[str, History]]:
    """Make the tables; say how long that took."""
    if shutil.disk_usage(folder).free < rows * _WORST_FREE_BYTES_A_ROW:
        raise SystemExit(f"{folder}: not enough room for {rows} tasks: set TMPDIR to another")
    if engine == "sqlite":
        (folder / "control" / "state").mkdir(parents=True)
    store = Sqlite(folder) if engine == "sqlite" else Mariadb(folder / "db", MARIADB_OPTIONS)
    with contextlib.closing(store):
        began = time.perf_counter()
        history = fill(store, rows, lambda part: print(f"  filling: {part}", flush=True))
        took = time.perf_counter() - began
        print(f"{store.title}, {rows} tasks, filled in {took:.0f} s", flush=True)
        yield store.control, history


async def _measure(
    engine: str, url: str, history: History, asked: argparse.Namespace
) -> list[Figure]:
    figures = []
    database = Database(make_url(url))
    print(f"  {'milliseconds, p50 / p99':<34}" + "".join(f"{way:>20}" for way in _WAYS))
    try:
        for what, draw in _LISTS.items():
            row = []
            for way, page in _WAYS.items():
                dice = random.Random(f"{what} {way}")
                took = await _time(database, draw, page, history, (dice, asked))
                row.append(
                    Figure(
                        engine, what, way, percentile(took, 50), percentile(took, 99),
                        1000 * max(took),
                    )
                )  # fmt: skip
            told = "".join(f"{f'{each.p50:.1f} / {each.p99:.1f}':>20}" for each in row)
            print(f"  {what:<34}{told}", flush=True)
            figures += row
    finally:
        await database.close()
    worst = max(figures, key=lambda figure: figure.p99)
    print(f"  the worst p99: {worst.p99:.1f} ms, {worst.what}, {worst.way}\n", flush=True)
    return figures


async def _time(
    database: Database,
    draw: Draw,
    page: Callable[[random.Random, History, int], PageRequest],
    history: History,
    how: tuple[random.Random, argparse.Namespace],
) -> list[float]:
    """Look again and again, each time for something else; return the seconds each look took."""
    dice, asked = how
    took = []
    for number in range(_WARM + asked.looks):
        look = draw(dice, history)(page(dice, history, asked.page_size))
        began = time.perf_counter()
        await database.read(look)
        if number >= _WARM:
            took.append(time.perf_counter() - began)
        await asyncio.sleep(0)
    return took


def _first(_dice: random.Random, _history: History, size: int) -> PageRequest:
    return PageRequest(size=size)


def _numbered(dice: random.Random, _history: History, size: int) -> PageRequest:
    """Ask for one of the deeper half of the pages that have a number, or the deepest."""
    deepest = MAX_OFFSET // size + 1
    return PageRequest(size=size, page=dice.choice([deepest, dice.randint(deepest // 2, deepest)]))


def _by_cursor(dice: random.Random, history: History, size: int) -> PageRequest:
    """Go on from anywhere in the history."""
    return PageRequest(size=size, before=dice.randint(1, history.tasks))


_WAYS = {"first page": _first, "deep page": _numbered, "deep cursor": _by_cursor}


def _tasks_of(**which: Any) -> Draw:
    """Ask for tasks; ``which`` says what is drawn: a node, a kind, a status."""

    def draw(dice: random.Random, history: History) -> Ask:
        wanted = TaskFilter(**{name: value(dice, history) for name, value in which.items()})
        return lambda page: lambda tx: task_lists.list_page(tx, wanted, page)

    return draw


def _attempts(dice: random.Random, history: History) -> Ask:
    task_id = dice.randint(1, history.tasks)

    def look(tx: Tx, page: PageRequest) -> Any:
        task = tasks.get(tx, task_id)
        assert task is not None
        return attempts.list_page(tx, task, page)

    return lambda page: lambda tx: look(tx, page)


def _operations(dice: random.Random, _history: History) -> Ask:
    state = dice.choice([None, *OperationState])
    return lambda page: lambda tx: operations.list_page(tx, state, page)


def _node(dice: random.Random, history: History) -> int:
    return dice.randint(1, history.nodes)


def _operation(dice: random.Random, history: History) -> int:
    return dice.randint(1, history.operations)


def _lists() -> dict[str, Draw]:
    kinds: dict[str, Any] = {kind: (lambda *_, k=kind: k) for kind in TaskKind}
    statuses: dict[str, Any] = {status: (lambda *_, s=status: s) for status in TaskStatus}
    found = {"tasks": _tasks_of()}
    found |= {f"tasks type={name}": _tasks_of(kind=kind) for name, kind in kinds.items()}
    found |= {f"tasks status={name}": _tasks_of(status=one) for name, one in statuses.items()}
    found |= {
        f"tasks {kind} {status}": _tasks_of(kind=kinds[kind], status=statuses[status])
        for kind, status in product(kinds, statuses)
    }
    any_kind, any_status = _one_of(TaskKind), _one_of(TaskStatus)
    return found | {
        "tasks nodeId": _tasks_of(node_id=_node),
        "tasks nodeId, type": _tasks_of(node_id=_node, kind=any_kind),
        "tasks nodeId, status": _tasks_of(node_id=_node, status=any_status),
        "tasks nodeId, type, status": _tasks_of(node_id=_node, kind=any_kind, status=any_status),
        "operation's tasks": _tasks_of(operation_id=_operation),
        "operation's tasks status": _tasks_of(operation_id=_operation, status=any_status),
        "operations": _operations,
        "attempts": _attempts,
    }


def _one_of(words: Any) -> Callable[[random.Random, History], Any]:
    return lambda dice, _history: dice.choice(list(words))


_LISTS = _lists()


def _arguments() -> argparse.Namespace:
    parser = commands.parser("lists", __doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="tasks (default 10000000)")
    parser.add_argument("--looks", type=int, default=200, help="for each figure (default 200)")
    parser.add_argument("--page-size", type=int, default=20, help="from 1 to 100 (default 20)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
