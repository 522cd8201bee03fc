"""Health: nodes that nobody has seen for a while are asked, and what is observed is written.

Every replica does it, none leads: a node is taken by moving its next time on, so that no other
replica asks it too, and a replica that dies in between has merely left it out once. All that one
look writes is one transaction; no transaction is open while nodes are asked.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from random import Random

from edgeplane.dispatch import checks
from edgeplane.dispatch.checks import Answered, Asked, Looked, Probe
from edgeplane.dispatch.runner import ADDRESSES_SECONDS
from edgeplane.dispatch.sightings import Sightings
from edgeplane.model.errors import DatabaseAway
from edgeplane.model.nodes import Node
from edgeplane.observe.metrics import Metrics
from edgeplane.store import node_health
from edgeplane.store.database import Database
from edgeplane.store.node_health import Timing
from edgeplane.transport.base import Asking, TransportError, Unanswered, Unreachable
from edgeplane.transport.routes import called_at

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  #: between looks, where nothing calls for one sooner
BUSY_LOOK_SECONDS = 0.25  #: where more nodes are due than a look takes
MAX_TAKEN = 128  #: nodes in one look: a burst of them must not stop the event loop
#: Nodes asked at once. A node whose address swallows packets takes its place for 3 s: so many
#: nodes like that are bearable for each replica, three thousand at the usual interval.
MAX_OUT = 256
MAX_SIGHTINGS = 1000  #: written in one look
ANSWER_SECONDS = 5.0
FILL_SECONDS = 300.0  #: how often nodes are looked for that an older release has made

OUTCOMES = ("healthy", "unhealthy", "unanswered", "unreachable", "late")


class Health:
    """Looks after nodes; started and stopped once.

    Args:
        database: where they are.
        transport: the way to them.
        sightings: what deliveries show of them.
        tell: who hears of nodes that may be reached again.
        seconds: how long a node may go unseen before it is asked; 0: none ever is, and deliveries
            alone say how nodes are.
        metrics: where it is counted.

    """

    def __init__(
        self,
        database: Database,
        transport: Asking,
        sightings: Sightings,
        tell: Callable[[Iterable[int]], None],
        seconds: float,
        metrics: Metrics | None = None,
    ) -> None:
        self._database = database
        self._transport = transport
        self._sightings = sightings
        self._tell = tell
        self._jitter = Random()  # noqa: S311 (spreads probes, guards nothing)
        self._timing = Timing(interval=seconds, random=self._jitter) if seconds else None
        self._patience = min(ANSWER_SECONDS, seconds)
        metrics = metrics or Metrics()
        probes = metrics.counter("edgeplane_health_probes_total")
        self._probes = {outcome: probes.labels(outcome) for outcome in OUTCOMES}
        self._seconds = metrics.histogram("edgeplane_health_look_seconds")
        metrics.gauge("edgeplane_health_interval_seconds").set(seconds)
        metrics.follow("edgeplane_health_probes_out", lambda: len(self._out))
        self._answers: list[Answered] = []
        self._out: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()  #: a node is back
        self._more = False
        self._fill_at = 0.0
        self._started = time.monotonic()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start looking; once."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._supervise(), name="health")

    async def stop(self) -> None:
        """Stop looking and asking; what is not written yet shows again."""
        left = [*self._out, *([self._loop] if self._loop else [])]
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def answered(self) -> None:
        """Wait until all that are asked have answered, or have not in time."""
        while self._out:
            await asyncio.wait(self._out)

    async def _supervise(self) -> None:
        """Keep looking whatever goes wrong; that is told, and the next look comes."""
        while True:
            await self._wait()
            try:
                await self._fill()
                await self.look()
            except DatabaseAway:
                self._more = False
            except Exception:
                self._more = False
                log.exception("a look after the health of nodes failed; going on")

    async def _wait(self) -> None:
        seconds = BUSY_LOOK_SECONDS if self._more else LOOK_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * self._jitter.uniform(0.75, 1.25)):
                await self._news.wait()

    async def _fill(self) -> None:
        """Give a row to nodes without one: a release of before has made them since the upgrade."""
        if time.monotonic() >= self._fill_at:
            await self._database.step(node_health.fill)
            self._fill_at = time.monotonic() + FILL_SECONDS

    async def look(self) -> None:
        """Write what was observed, take nodes that are due, and begin to ask them."""
        self._news.clear()
        most = min(MAX_TAKEN, MAX_OUT - len(self._out)) if self._timing else 0
        sightings = self._sightings.take(MAX_SIGHTINGS)
        answers, self._answers = self._answers, []
        if not (sightings or answers) and not (most and await self._is_any_due()):
            self._more = False
            return
        begun = time.monotonic()
        asked = Asked(
            sightings=sightings,
            answers=answers,
            most=most,
            timing=self._timing,
            fair=begun - self._started >= checks.ABSENT_SECONDS,
        )
        try:
            looked = await self._database.step(lambda tx: checks.look(tx, asked))
        except BaseException:
            # Whether it was committed may be unknown: writing it twice does no harm.
            self._sightings.put_back(sightings)
            self._answers[:0] = answers
            raise
        self._seconds.observe(time.monotonic() - begun)
        self._take_in(looked)

    async def _is_any_due(self) -> bool:
        return await self._database.read(node_health.any_due)

    def _take_in(self, looked: Looked) -> None:
        for outcome in looked.counted:
            self._probes[outcome].inc()
        if looked.back:
            log.info("nodes that are back: %d", len(looked.back))
            self._tell(looked.back)
        self._more = looked.more or len(self._sightings) > 0
        for probe in looked.probes:
            running = asyncio.create_task(self._probe(probe))
            self._out.add(running)
            running.add_done_callback(self._out.discard)

    async def _probe(self, probe: Probe) -> None:
        """Ask one node, and keep what came of it for the next look."""
        try:
            outcome, words = await self._ask(probe.node)
        except Exception:
            log.exception("node %d could not be asked how it is", probe.node.id)
            return
        if outcome is None:
            return
        self._answers.append(Answered(probe.node.id, probe.taken.fence, outcome, words))
        if probe.taken.failing and words is None:
            self._news.set()  # what waits for a node that is back must not wait for a look

    async def _ask(self, node: Node) -> tuple[str | None, str | None]:
        """Ask at a node's addresses in order until one is reached; return outcome and words.

        The outcome is None where this process could not ask: that says nothing of the node.
        """
        failures: list[str] = []
        begun = time.monotonic()
        for address in called_at(node):
            if failures and time.monotonic() - begun > ADDRESSES_SECONDS:
                break
            try:
                await self._transport.health(address, self._patience)
            except Unreachable as error:
                failures.append(str(error))
            except TransportError as error:
                if error.answered:
                    return "healthy", None
                if error.fault is not None:
                    return "unhealthy", error.fault
                return ("unanswered", str(error)) if isinstance(error, Unanswered) else (None, None)
            else:
                return "healthy", None
        return "unreachable", "; ".join(failures)
