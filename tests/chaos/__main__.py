"""``python -m chaos``: schedules without end, or one again. ``make chaos`` calls it."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import SystemRandom

from chaos.many import Failure, play_many
from chaos.schedules import draw

_MOST = 10**9


def main() -> int:
    """Play until the time is over; return 1 if any schedule failed.

    Stopped by a signal, it lets the schedules that are under way end, and removes its servers.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asked = _asked()
    folder = Path(tempfile.mkdtemp(prefix="edgeplane-chaos-"))
    folder.chmod(0o755)  # MariaDB's own user goes in and out
    if asked.seed is not None:
        print(draw(asked.seed), flush=True)
        seeds = iter([asked.seed] * asked.times)
    else:
        seeds = _fresh(time.monotonic() + asked.seconds + 3600 * asked.hours)
    print(f"folders of schedules that fail are kept in {folder}", flush=True)
    try:
        return _play(seeds, folder, tell_every=0 if asked.seed is not None else 100)
    finally:
        with suppress(OSError):  # something is kept in it
            folder.rmdir()


def _play(seeds: Iterator[int], folder: Path, tell_every: int) -> int:
    begun, count, failures = time.monotonic(), 0, 0
    for result in play_many(seeds, folder):
        count += 1
        if isinstance(result, Failure):
            failures += 1
            print(result, flush=True)
        if tell_every and count % tell_every == 0:
            print(f"{count} schedules, {failures} failed", flush=True)
    print(f"{count} schedules in {time.monotonic() - begun:.0f} s, {failures} failed")
    return min(failures, 1)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--hours", type=float, default=0.0, help="how long to go on")
    parser.add_argument("--seconds", type=float, default=0.0, help="the same, in seconds")
    parser.add_argument("--seed", type=int, help="play this schedule alone")
    parser.add_argument("--times", type=int, default=1, help="so often: timing differs each time")
    return parser.parse_args()


def _fresh(end: float) -> Iterator[int]:
    """Yield seeds nobody has seen, until a moment of the monotonic clock."""
    random = SystemRandom()
    while time.monotonic() < end:
        yield random.randrange(_MOST)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
