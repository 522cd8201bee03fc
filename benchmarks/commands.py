"""What the commands that measure both engines have in common: options, folders, and their end."""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """Make the parser of ``python -m benchmarks.NAME``, with the options all of them take."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=text)
    made.add_argument("--engine", choices=["sqlite", "mariadb", "both"], default="both")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return made


def engines(asked: argparse.Namespace) -> list[str]:
    """Return the engines that are asked for."""
    return ["sqlite", "mariadb"] if asked.engine == "both" else [asked.engine]


def folders(name: str, asked: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Yield each engine that is asked for, with a folder that is gone afterwards."""
    for engine in engines(asked):
        with tempfile.TemporaryDirectory(prefix=f"edgeplane-{name}-") as place:
            folder = Path(place)
            folder.chmod(0o711)  # MariaDB's own user must reach its folder
            yield engine, folder


def run(asked: argparse.Namespace, measure: Callable[[], Any]) -> int:
    """Measure, write the figures where that is asked for, and return the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        told = measure()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0
