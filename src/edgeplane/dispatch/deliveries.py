"""What is out: requests to agents under way, and what each of them brought back.

Purges of a node that begin together go in one request; a config task goes alone. No transaction is
open here, and nothing here is remembered for longer than a request takes.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from edgeplane.dispatch import runner
from edgeplane.dispatch.holdings import Holding
from edgeplane.dispatch.meters import Meters
from edgeplane.dispatch.sightings import Sightings
from edgeplane.dispatch.work import Delivery, Result, Room
from edgeplane.model.nodes import NodeTransport
from edgeplane.model.tasks import Lane, Outcome, Report, Task, lane_of
from edgeplane.transport.base import AgentTransport, Inbound, TransportError

log = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES_OUT = 64 << 20  #: of payload in deliveries that are out


class Deliveries:
    """Sends, and hands what came back to ``back``."""

    def __init__(
        self,
        transport: AgentTransport,
        most: int,
        back: Callable[[list[Result]], None],
        meters: Meters,
        sightings: Sightings,
    ) -> None:
        self._transport = transport
        self._most = most
        self._back = back
        self._meters = meters
        self._sightings = sightings
        self._out: dict[asyncio.Task[None], Sequence[Delivery]] = {}
        self._cancels: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many requests are out."""
        return len(self._out)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What runs here, to be ended or waited for."""
        return [*self._out, *self._cancels]

    def room(self) -> Room:
        """Return what may begin beside what is out."""
        out = [delivery for shipment in self._out.values() for delivery in shipment]
        return Room(
            deliveries=max(0, self._most - len(out)),
            payload_bytes=MAX_PAYLOAD_BYTES_OUT - sum(each.task.payload_bytes for each in out),
            probes=max(1, self._most // 4) - sum(each.probe for each in out),
        )

    def send(
        self, begun: Sequence[Delivery], batch: int, holding_of: Callable[[Task], Holding]
    ) -> None:
        """Send what began: purges of a node together, ``batch`` at most, the rest one by one."""
        for shipment in _shipments(begun, batch):
            holding = holding_of(shipment[0].task)
            holding.requests += 1
            holding.in_flight.update((each.task.id, each.task.attempts) for each in shipment)
            running = asyncio.create_task(self._deliver(shipment, holding))
            self._out[running] = shipment

    def acknowledge(self, results: Sequence[Result]) -> None:
        """Tell agents that connect out whose results are committed."""
        for result in results:
            node, task = result.delivery.node, result.task
            if node.transport is NodeTransport.SYNC:
                self._transport.committed(Inbound(node.id), task.request_id, task.run)

    def withdraw(self, deliveries: Sequence[Delivery]) -> None:
        """Ask agents not to do what was cancelled while it was out, if they have not done it."""
        for delivery in deliveries:
            asking = asyncio.create_task(self._withdraw(delivery))
            self._cancels.add(asking)
            asking.add_done_callback(self._cancels.discard)

    async def _withdraw(self, delivery: Delivery) -> None:
        task = delivery.task
        try:
            state = await runner.withdraw(self._transport, delivery)
        except TransportError as error:
            log.info("task %d: its agent was not told of the cancel: %s", task.id, error)
        else:
            log.info("task %d: cancelled at its agent: %s", task.id, state)

    async def _deliver(self, shipment: Sequence[Delivery], holding: Holding) -> None:
        try:
            begun = time.monotonic()
            reports = await self._reports(shipment, holding)
            seconds = time.monotonic() - begun
            for delivery, report in zip(shipment, reports, strict=True):
                self._meters.delivered(report, seconds)
                if delivery.node.transport is NodeTransport.PUSH:
                    self._sightings.delivered(delivery.task.node_id, report)
                _tell(delivery.task, report)
            results = [Result(*each) for each in zip(shipment, reports, strict=True)]
        finally:
            # Before the engine is woken, or it would find the place still taken.
            current = asyncio.current_task()
            assert current is not None
            del self._out[current]
            holding.requests -= 1
        self._back(results)

    async def _reports(self, shipment: Sequence[Delivery], holding: Holding) -> list[Report]:
        try:
            if time.monotonic() < holding.trusted_until:
                return await runner.deliver(self._transport, shipment)
        except Exception as error:
            log.exception("delivery of task %d failed", shipment[0].task.id)
            why = f"delivery failed inside the control plane: {type(error).__name__}"
            return [Report(outcome=Outcome.UNANSWERED, message=why)] * len(shipment)
        why = "the lease lapsed before the task was sent"
        return [Report(outcome=Outcome.LOST, message=why)] * len(shipment)


def _shipments(begun: Sequence[Delivery], batch: int) -> Iterator[list[Delivery]]:
    purges: dict[int, list[Delivery]] = {}
    for delivery in begun:
        if lane_of(delivery.task.kind) is Lane.PURGE and not delivery.probe:
            purges.setdefault(delivery.task.node_id, []).append(delivery)
        else:
            yield [delivery]
    for together in purges.values():
        several = iter(together)
        while shipment := list(itertools.islice(several, batch)):
            yield shipment


def _tell(task: Task, report: Report) -> None:
    if report.outcome is Outcome.SUCCEEDED:
        log.debug("Task %d dispatched successfully: %s", task.id, report.message)
    else:
        log.warning(
            "task %d (%s) at node %d, attempt %d %s: %s",
            task.id,
            task.kind.value,
            task.node_id,
            task.attempts,
            report.outcome.value,
            report.message,
        )
