"""The delivery of one task: send it to its node, and say in one report what came of it."""

import time
from collections.abc import Iterator

from msgspec import Raw

from edgeplane.dispatch.work import Delivery
from edgeplane.model.nodes import Node
from edgeplane.model.tasks import Outcome, Report
from edgeplane.observe.crashpoints import crash_point
from edgeplane.transport.base import (
    Address,
    AgentTransport,
    Busy,
    Outdated,
    Refused,
    Stale,
    TransportError,
    Unanswered,
    Unreachable,
)
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


async def deliver(transport: AgentTransport, delivery: Delivery) -> Report:
    """Send a task to its node's addresses in order, until one of them is reached."""
    crash_point("deliver.before_send")
    task = delivery.task
    request = ExecuteRequest(
        request_id=task.request_id,
        type=task.kind.value,
        payload=Raw(delivery.payload.encode()),
        attempt=task.run,
        timeout_seconds=task.timeout_seconds,
        node_id=task.node_id,
        epoch=delivery.epoch,
    )
    failures: list[str] = []
    begun = time.monotonic()
    for address in addresses(delivery.node):
        if failures and time.monotonic() - begun > ADDRESSES_SECONDS:
            failures.append(f"{address} and what follows: not tried, out of time")
            break
        try:
            reply = await transport.deliver(address, request, task.timeout_seconds + GRACE_SECONDS)
        except Unreachable as error:
            failures.append(str(error))
            continue
        except TransportError as error:
            retry_after = error.retry_after if isinstance(error, Busy) else None
            return Report(
                outcome=_OUTCOMES[type(error)], message=str(error), retry_after=retry_after
            )
        crash_point("deliver.after_answer")
        succeeded = reply.status == "success"
        return Report(
            outcome=Outcome.SUCCEEDED if succeeded else Outcome.FAILED, message=reply.message
        )
    return Report(outcome=Outcome.UNREACHABLE, message="; ".join(failures))


def addresses(node: Node) -> Iterator[Address]:
    """Yield a node's addresses: the main one, then its enabled sub-IPs."""
    yield Address(node.main_ip, node.agent_port)
    for sub in node.sub_ips:
        if sub.enabled:
            yield Address(sub.ip, node.agent_port)
