"""What a run came to: counts, and how long answers took."""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Final

_PER_DECADE: Final = 40  #: steps of the latencies' scale: 6 % each
_LEAST: Final = 1e-5  #: seconds; the scale's beginning
_LATER: Final = frozenset({429, 503})
_STEPS: Final = 8 * _PER_DECADE


@dataclass(slots=True)
class Counts:
    """Plain numbers, by status in one case; all only grow, but ``connections``."""

    requests: int = 0
    effects: int = 0
    failures: int = 0  #: executions that were made to fail
    duplicates: int = 0  #: answered from the journal
    joined: int = 0  #: asked for while running
    recovered: int = 0  #: interrupted by a kill, and the effect was there
    stale_epochs: int = 0
    outdated: int = 0  #: configs older than one begun
    called_off: int = 0  #: cancelled, or overtaken by a later config, before taking effect
    refused: int = 0  #: for whatever other reason
    drops: int = 0
    zombies: int = 0
    kills: int = 0
    connections: int = 0  #: open now
    connections_made: int = 0
    most_connections: int = 0
    peak_per_second: int = 0
    exchanges: int = 0  #: of agents that connect out; so are those below
    lost_exchanges: int = 0  #: without a reply
    reconnects: int = 0
    unreached: int = 0  #: connections that could not be made
    put_off: int = 0  #: told to come later: 429 and 503
    turned_away: dict[int, int] = field(default_factory=dict)  #: by status


@dataclass
class Tally:
    """Counts of a run, and its latencies on a scale of fixed steps."""

    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._began = self._looked = time.monotonic()
        self._steps = [0] * _STEPS
        self._seen = 0

    def answered(self, seconds: float) -> None:
        """Count an answer that took so long from the request's arrival."""
        step = int(math.log10(max(seconds, _LEAST) / _LEAST) * _PER_DECADE)
        self._steps[min(step, _STEPS - 1)] += 1

    def connected(self) -> None:
        """Count a new connection."""
        counts = self.counts
        counts.connections += 1
        counts.connections_made += 1
        counts.most_connections = max(counts.most_connections, counts.connections)

    def turned_away(self, status: int) -> None:
        """Count an exchange that was answered with something else than a reply."""
        if status in _LATER:
            self.counts.put_off += 1
        else:
            told = self.counts.turned_away
            told[status] = told.get(status, 0) + 1

    def look(self) -> int:
        """Return the requests per second since the last look; to be called once a second."""
        now = time.monotonic()
        rate = round((self.counts.requests - self._seen) / max(now - self._looked, 1e-3))
        self._looked, self._seen = now, self.counts.requests
        self.counts.peak_per_second = max(self.counts.peak_per_second, rate)
        return rate

    def percentile(self, percent: float) -> float:
        """Return in how many milliseconds so many percent were answered, within 6 %."""
        left = sum(self._steps) * percent / 100
        for step, count in enumerate(self._steps):
            left -= count
            if count and left <= 0:
                return round(1000 * _LEAST * 10 ** ((step + 0.5) / _PER_DECADE), 3)
        return 0.0

    def summary(self) -> dict[str, object]:
        """Return everything, for people and programs."""
        latencies = {f"p{percent:g}": self.percentile(percent) for percent in (50, 90, 99, 99.9)}
        seconds = round(time.monotonic() - self._began, 3)
        return {**asdict(self.counts), "seconds": seconds, "latency_ms": latencies}
