"""Effects: a line in a file each, which is also the agents' disk.

It outlives their deaths and the swarm's, though not the machine's: it is not synced.

One JSON object a line::

    {"event": "effect", "agent": "127.1.0.1", "requestId": "r1", "type": "reload",
     "nodeId": 7, "generation": null, "epoch": 3, "taken": 1234.4, "at": 1234.5}
    {"event": "killed", "agent": "127.1.0.1", "at": 1235.0}
    {"event": "back", "agent": "127.1.0.1", "at": 1236.0}

``at`` is this machine's monotonic clock, in seconds; ``taken`` is when the request was let in,
under its node's ``epoch``.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from edgeplane.swarm.addresses import address_of
from edgeplane.swarm.records import Asked


class _Line(Struct, rename="camel"):
    event: str
    agent: str
    at: float
    request_id: str = ""


class Effects:
    """Makes effects, and knows those of requests whose end is not in the journal yet."""

    def __init__(self, path: Path | None, begun: Iterable[tuple[int, str]] = ()) -> None:
        """Open the file, or keep no lines; ``begun``: whose effects to look for in it.

        Raises OSError where it cannot be opened, ValueError where it holds something else.
        """
        self._made: set[tuple[int, str]] = set()
        self._file = -1
        if path is not None:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o600)
            self._find(path, {(address_of(agent), name): (agent, name) for agent, name in begun})

    def make(self, asked: Asked, kind: str, taken: float) -> None:
        """Make the effect of a request, once; ``taken`` is when it was let in (monotonic)."""
        self._made.add((asked.agent, asked.request_id))
        self._append(
            {
                "event": "effect",
                "agent": address_of(asked.agent),
                "requestId": asked.request_id,
                "type": kind,
                "nodeId": asked.node_id,
                "generation": asked.generation,
                "epoch": asked.epoch,
                "taken": taken,
                "at": time.monotonic(),
            }
        )

    def made(self, agent: int, request_id: str) -> bool:
        """Whether a request that was begun has had its effect."""
        return (agent, request_id) in self._made

    def settle(self, agent: int, request_id: str) -> None:
        """Take note that the journal knows how a request ended."""
        self._made.discard((agent, request_id))

    def tell(self, event: str, agent: int) -> None:
        """Write down what befell an agent."""
        self._append({"event": event, "agent": address_of(agent), "at": time.monotonic()})

    def close(self) -> None:
        """Close the file; what is told after that leaves no line."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _append(self, line: dict[str, object]) -> None:
        if self._file >= 0:
            os.write(self._file, msgspec.json.encode(line) + b"\n")

    def _find(self, path: Path, wanted: dict[tuple[str, str], tuple[int, str]]) -> None:
        if not wanted:
            return
        with path.open("rb") as lines:
            for line in lines:
                told = msgspec.json.decode(line, type=_Line)
                key = wanted.get((told.agent, told.request_id))
                if key is not None:
                    self._made.add(key)
