"""One request to a node: send its tasks, and say in a report for each what came of it."""

import time
from collections.abc import Sequence

from msgspec import Raw

from edgeplane.dispatch.work import Delivery
from edgeplane.model.tasks import Outcome, Report
from edgeplane.observe.crashpoints import crash_point
from edgeplane.transport.base import (
    AgentTransport,
    Busy,
    Ending,
    Outdated,
    Place,
    Refused,
    Stale,
    TransportError,
    Unanswered,
    Unreachable,
)
from edgeplane.transport.routes import addresses
from edgeplane.wire import ExecuteRequest

#: The agent keeps the task's own time limit; ours allows for the way there and back.
GRACE_SECONDS = 1.0
#: A node's further addresses are tried within this long: a probe must not outlast its interval.
ADDRESSES_SECONDS = 10.0

_OUTCOMES: dict[type[TransportError], Outcome] = {
    Unreachable: Outcome.UNREACHABLE,
    Unanswered: Outcome.UNANSWERED,
    Busy: Outcome.BUSY,
    Stale: Outcome.BUSY,
    Refused: Outcome.REFUSED,
    Outdated: Outcome.REFUSED,
}


#: How long a cancel may take to reach an agent; the task ends without it too.
CANCEL_SECONDS = 5.0


async def deliver(transport: AgentTransport, shipment: Sequence[Delivery]) -> list[Report]:
    """Send tasks of one node to its addresses in order, until one of them is reached.

    Returns:
        What came of each, in their order.

    """
    crash_point("deliver.before_send")
    seconds = max(delivery.task.timeout_seconds for delivery in shipment) + GRACE_SECONDS
    reports: list[Report | None] = [None] * len(shipment)
    failures: list[str] = []
    tried: str | None = None
    begun = time.monotonic()
    for address in addresses(shipment[0].node):
        if failures and time.monotonic() - begun > ADDRESSES_SECONDS:
            failures.append(f"{address} and what follows: not tried, out of time")
            break
        tried = transport.shown(address)
        left = [number for number, report in enumerate(reports) if report is None]
        requests = [_request(shipment[number]) for number in left]
        endings = await _send(transport, address, requests, seconds)
        for number, ending in zip(left, endings, strict=True):
            reached = not isinstance(ending, Unreachable)
            reports[number] = _report(ending, tried) if reached else None
        lost = [str(ending) for ending in endings if isinstance(ending, Unreachable)]
        if not lost:
            break
        failures.append(lost[0])
    away = Report(outcome=Outcome.UNREACHABLE, message="; ".join(failures), address=tried)
    return [report or away for report in reports]


async def withdraw(transport: AgentTransport, delivery: Delivery) -> str:
    """Ask a task's agent to let it have no effect; return how it stands there.

    Raises:
        TransportError: the agent could not be asked, or knows no cancels.

    """
    task = delivery.task
    return await transport.cancel(
        next(addresses(delivery.node)),
        task.request_id,
        task.node_id,
        delivery.epoch,
        CANCEL_SECONDS,
        attempt=task.run,
    )


async def _send(
    transport: AgentTransport, address: Place, requests: Sequence[ExecuteRequest], seconds: float
) -> Sequence[Ending]:
    if len(requests) > 1:
        return await transport.deliver_many(address, requests, seconds)
    try:
        return [await transport.deliver(address, requests[0], seconds)]
    except TransportError as error:
        return [error]


def _request(delivery: Delivery) -> ExecuteRequest:
    task = delivery.task
    return ExecuteRequest(
        request_id=task.request_id,
        type=task.kind.value,
        payload=Raw(delivery.payload.encode()),
        attempt=task.run,
        timeout_seconds=task.timeout_seconds,
        node_id=task.node_id,
        epoch=delivery.epoch,
        generation=task.generation,
    )


def _report(ending: Ending, address: str) -> Report:
    if isinstance(ending, TransportError):
        return Report(
            outcome=_OUTCOMES[type(ending)],
            message=str(ending),
            address=address,
            retry_after=ending.retry_after if isinstance(ending, Busy) else None,
            stale=isinstance(ending, Stale),
            answered=ending.answered,
            fault=ending.fault,
        )
    crash_point("deliver.after_answer")
    return Report(
        outcome=Outcome.SUCCEEDED if ending.status == "success" else Outcome.FAILED,
        message=ending.message,
        output=ending.output,
        address=address,
        answered=True,
    )
