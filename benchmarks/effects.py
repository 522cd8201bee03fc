"""When the agents of a swarm had what they were sent: by the lines of their effects."""

import json
from collections.abc import Mapping
from pathlib import Path


class Effects:
    """Reads a swarm's file on, and on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = 0

    def new(self) -> dict[str, float]:
        """Return the time of each effect since last asked, by request id; monotonic."""
        found = {}
        with self._file.open("rb") as lines:
            lines.seek(self._at)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                told = json.loads(line)
                if told["event"] == "effect":
                    found[told["requestId"]] = float(told["at"])
        return found


def waits(asked: Mapping[str, float], effects: Mapping[str, float]) -> list[float]:
    """Return the seconds to each effect from when it was asked for; 0 where it came before.

    Raises:
        RuntimeError: what was asked for had no effect.

    """
    if missing := asked.keys() - effects.keys():
        raise RuntimeError(f"{len(missing)} of {len(asked)} tasks had no effect at their agents")
    return [max(0.0, effects[name] - at) for name, at in asked.items()]
