"""``python -m benchmarks``: measure, print, end everything that was started."""

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

# The servers and processes are those of the tests' kit.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from benchmarks import commands, printing, rounds
from benchmarks.stores import Mariadb, Sqlite, Store


def main() -> int:
    asked = _arguments()
    plan = rounds.QUICK if asked.quick else rounds.FULL
    if asked.rounds:
        plan = dataclasses.replace(plan, rounds=asked.rounds)
    print(printing.method(plan), flush=True)
    return commands.run(asked, lambda: _measure(plan, commands.engines(asked)))


def _measure(plan: rounds.Plan, engines: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edgeplane-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # MariaDB's own user must reach its folder
        seconds = rounds.agent_starts(plan.agent_starts, folder / "starts")
        print(printing.starts(seconds), flush=True)
        told: dict[str, Any] = {"agent_start_seconds": seconds}
        for engine in engines:
            (folder / engine).mkdir(mode=0o711)
            store: Store
            store = (
                Sqlite(folder / engine) if engine == "sqlite" else Mariadb(folder / engine / "db")
            )
            with contextlib.closing(store):
                report = rounds.measure(store, folder / engine, plan)
            print(printing.report(report), flush=True)
            told[engine] = dataclasses.asdict(report)
    return told


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: a trial")
    parser.add_argument("--rounds", type=int, help="how many rounds (default 3)")
    parser.add_argument("--engine", choices=["sqlite", "mariadb", "both"], default="both")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
