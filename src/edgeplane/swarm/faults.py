"""What goes wrong, and when: drawn from a seed, so that a run can be had again.

A fate belongs to the n-th request an agent gets; which other agents were asked meanwhile does not
matter.
"""

import math
import struct
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Final

_UNIT: Final = 2.0**-64
_NUMBERS: Final = struct.Struct("=6Q")


class Point(Enum):
    """Where in the life of a request an agent may be killed."""

    ON_ARRIVAL = 0  #: nothing is on record
    AFTER_BEGUN = 1  #: the journal has it as begun, and there is no effect
    AFTER_EFFECT = 2  #: there is an effect, and the journal does not say so
    BEFORE_ANSWER = 3  #: everything is on record, and nobody was told


_POINTS: Final = tuple(Point)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How agents misbehave; chances are from 0 to 1 and hold for each request."""

    latency: float = 0.0  #: mean seconds between begin and effect
    uniform: bool = False  #: latency is spread evenly up to twice its mean, not exponentially
    fail: float = 0.0  #: executed and reported as failed, with no effect
    drop: float = 0.0  #: the connection is cut where the answer was to be
    kill: float = 0.0  #: the agent loses its memory and all its connections
    down: float = 1.0  #: seconds until a killed agent is back
    zombie: float = 0.0  #: the answer comes after twice the request's time limit
    skew: float = 0.0  #: agents' wall clocks are off by up to so many seconds, either way
    seed: int = 0

    @property
    def calm(self) -> bool:
        """Whether nothing ever happens to a request."""
        return not (self.latency or self.fail or self.drop or self.kill or self.zombie)


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one request."""

    latency: float = 0.0
    fails: bool = False
    drops: bool = False
    late: bool = False
    dies: Point | None = None


_CALM: Final = Fate()


class Dice:
    """Draws fates."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._calm = faults.calm

    def fate(self, agent: int, turn: int) -> Fate:
        """Return what happens to the request an agent gets as its ``turn``-th."""
        if self._calm:
            return _CALM
        faults = self._faults
        die, where, drop, late, fail, wait = self._numbers(f"{agent}/{turn}")
        return Fate(
            latency=faults.latency * (2 * wait if faults.uniform else -math.log1p(-wait)),
            fails=fail < faults.fail,
            drops=drop < faults.drop,
            late=late < faults.zombie,
            dies=_POINTS[int(where * len(_POINTS))] if die < faults.kill else None,
        )

    def skew(self, agent: int) -> float:
        """Return by how many seconds an agent's wall clock is ahead."""
        if not self._faults.skew:
            return 0.0
        return self._faults.skew * (2 * self._numbers(f"{agent}/skew")[0] - 1)

    def _numbers(self, of: str) -> tuple[float, ...]:
        """Return numbers from 0 to just below 1."""
        text = f"{self._faults.seed}/{of}".encode()
        drawn = _NUMBERS.unpack(blake2b(text, digest_size=_NUMBERS.size).digest())
        return tuple((number >> 11 << 11) * _UNIT for number in drawn)
