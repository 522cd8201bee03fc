"""What all agents share that connect out; how they begin, and who looks after them."""

import asyncio
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from random import Random
from typing import Final, Protocol

import msgspec

from edgeplane.swarm.controls import Control
from edgeplane.swarm.fleet import Fleet
from edgeplane.swarm.tally import Tally
from edgeplane.wire import SyncRequest

SWEEP_SECONDS: Final = 1.0
STARTS_PER_SECOND: Final = 2_000
MOST_RETURN_SECONDS: Final = 10.0  #: or what a control plane says, where that is longer
STRANGER_SECONDS: Final = (15.0, 30.0)  #: what a person has to mend is asked again so much later

_OF_PEOPLE: Final = frozenset({401, 404})

_encoder: Final = msgspec.json.Encoder()

Timer = asyncio.TimerHandle
Task = asyncio.Task[None]


class Client(Protocol):
    """One agent's end, as seen from here."""

    def start(self, delay: float = 0.0) -> None:
        """Begin, after so many seconds."""

    def look(self, now: float) -> None:
        """End what is late."""

    def cut(self) -> None:
        """End everything."""


class Syncing:
    """Shared by all of them.

    Args:
        fleet: who carries out what is asked.
        controls: who is called; the next where one is not reached.
        tally: where exchanges and connections are counted.
        most: connections; past it, agents make do with one each.
        seed: of when they come.

    """

    def __init__(
        self, fleet: Fleet, controls: Sequence[Control], tally: Tally, *, most: int, seed: int = 0
    ) -> None:
        self.fleet = fleet
        self.controls = controls
        self.tally = tally
        self.loop = asyncio.get_running_loop()
        self.random = Random(seed)  # noqa: S311  spreads agents, guards nothing
        self.version = version("edgeplane")
        self._most = most
        self._clients: list[Client] = []

    @property
    def room(self) -> bool:
        """Whether one more connection may be open."""
        return self.tally.counts.connections < self._most

    def message(self, control: int, request: SyncRequest) -> bytes:
        """Return an exchange as it is sent to a control plane."""
        body = _encoder.encode(request)
        return b"%s%d\r\n\r\n%s" % (self.controls[control].head, len(body), body)

    def delay(self, reconnect: float, failures: int) -> float:
        """Return in how many seconds to come back: at first at any time within ``reconnect``.

        After so many failures in a row it is at intervals that double.
        """
        most = min(max(MOST_RETURN_SECONDS, reconnect), reconnect * 2 ** min(failures, 10))
        return self.random.uniform(most / 2 if failures else 0, most)

    def delay_after(self, status: int, retry_after: int | None, reconnect: float) -> float:
        """Return in how many seconds to come back after an answer that is no reply."""
        if status in _OF_PEOPLE or retry_after is None:
            return self.random.uniform(*STRANGER_SECONDS)
        return retry_after + self.random.uniform(0, max(retry_after / 2, reconnect))

    def start(self, clients: Iterable[Client]) -> None:
        """Let them begin, spread over time."""
        self._clients = list(clients)
        spread = len(self._clients) / STARTS_PER_SECOND
        for client in self._clients:
            client.start(self.random.uniform(0, spread))
        self._sweep()

    def end(self) -> None:
        """Cut all of them off."""
        for client in self._clients:
            client.cut()

    def _sweep(self) -> None:
        """Look at all; that costs less than a timer for each."""
        now = self.loop.time()
        for client in self._clients:
            client.look(now)
        self.loop.call_later(SWEEP_SECONDS, self._sweep)
