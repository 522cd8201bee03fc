"""Plays many schedules side by side; most of the time each of them waits for something."""

import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from chaos.ground import Ground
from chaos.playing import play
from chaos.schedules import Schedule, draw

SIDE_BY_SIDE = 8
_SHOWN = 10  #: violations of one schedule


@dataclass(frozen=True, slots=True)
class Success:
    """A schedule that went well."""

    seed: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule after which something was wrong."""

    seed: int
    folder: Path
    violations: tuple[str, ...]

    def __str__(self) -> str:
        """Tell what was wrong, where to look, and how to play it again."""
        shown = self.violations[:_SHOWN]
        more = len(self.violations) - len(shown)
        lines = [*shown, *([f"and {more} more"] if more else [])]
        what = "".join(f"\n    {line}" for line in lines)
        again = f"again: make chaos SEED={self.seed}"
        return f"seed {self.seed} failed:{what}\n  everything of it: {self.folder}\n  {again}"


def play_many(seeds: Iterator[int], folder: Path) -> Iterator[Success | Failure]:
    """Play the schedules of these seeds, and yield what became of each as it ends.

    A seed is taken when there is room for it. The folder of a schedule that went well is removed.
    """
    shared = folder / "ground"
    shared.mkdir(mode=0o755)
    ground = Ground(shared)
    try:
        with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="schedule") as pool:
            playing: set[Future[Success | Failure]] = set()
            number = 0
            while True:
                while len(playing) < SIDE_BY_SIDE and (seed := next(seeds, None)) is not None:
                    number += 1
                    place = folder / f"{number}-seed{seed}"
                    playing.add(pool.submit(_play, draw(seed), ground, place))
                if not playing:
                    return
                ended, playing = wait(playing, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
    finally:
        ground.close()
        shutil.rmtree(shared)


def _play(schedule: Schedule, ground: Ground, folder: Path) -> Success | Failure:
    try:
        violations = play(schedule, ground, folder)
    except Exception as error:  # noqa: BLE001 (one that cannot be ended is a finding, not the end)
        violations = [f"the run could not be ended: {error!r}"]
    if violations:
        return Failure(schedule.seed, folder, tuple(violations))
    shutil.rmtree(folder)
    return Success(schedule.seed)
