"""The delivery of one task: what is sent, to which addresses, and what is made of the answer."""

import asyncio

import pytest

from edgeplane.dispatch import runner
from edgeplane.dispatch.work import Delivery
from edgeplane.model.nodes import Node, NodeStatus, SubIP
from edgeplane.model.tasks import Outcome, TaskKind
from edgeplane.transport.base import Busy, Refused, Stale, Unanswered, Unreachable
from kit.engines import ScriptedTransport
from kit.factories import NOW, a_task

NODE = Node(
    id=7,
    name="edge",
    main_ip="2001:db8::1",
    agent_port=9191,
    enabled=True,
    status=NodeStatus.ONLINE,
    sub_ips=(
        SubIP(ip="192.0.2.1", enabled=True),
        SubIP(ip="192.0.2.2", enabled=False),
        SubIP(ip="192.0.2.3", enabled=True),
    ),
    created_at=NOW,
    updated_at=NOW,
)
TASK = a_task(
    id=3, node_id=7, kind=TaskKind.APPLY_CONFIG, attempts=4, run=2, timeout_seconds=20, payload=None
)
DELIVERY = Delivery(TASK, '{"b": 1, "a": 18446744073709551617}', NODE, epoch=99)


async def deliver(script):
    """Deliver to a transport that follows a script; return the report and the calls."""
    transport = ScriptedTransport(at_once=script)
    async with asyncio.timeout(5):
        return await runner.deliver(transport, DELIVERY), transport.calls


def breaking_with(error):
    """Make a script in which nothing arrives."""
    return lambda call: call.break_with(error)


async def test_a_task_is_sent_as_it_was_accepted():
    """Payload byte for byte; the run is the agent's attempt; the epoch is the owner's."""
    report, (call,) = await deliver(lambda call: call.succeed("applied"))
    assert (report.outcome, report.message) == (Outcome.SUCCEEDED, "applied")
    request = call.request
    assert bytes(request.payload) == DELIVERY.payload.encode()
    assert (request.request_id, request.type) == (TASK.request_id, "apply_config")
    assert (request.attempt, request.timeout_seconds) == (2, 20)
    assert (request.node_id, request.epoch) == (7, 99)


async def test_a_failure_told_by_the_agent_is_a_failure():
    """Not a success because an answer came."""
    report, _ = await deliver(lambda call: call.fail("nginx -t"))
    assert (report.outcome, report.message) == (Outcome.FAILED, "nginx -t")


async def test_addresses_are_tried_in_order_until_one_is_reached():
    """The main one, then enabled sub-IPs; once one is reached no other is asked."""

    def script(call):
        if call.address.ip == "192.0.2.1":
            call.succeed()
        else:
            call.break_with(Unreachable("refused"))

    report, calls = await deliver(script)
    assert report.outcome is Outcome.SUCCEEDED
    assert [str(call.address) for call in calls] == ["[2001:db8::1]:9191", "192.0.2.1:9191"]


async def test_a_node_is_unreachable_when_no_address_is_reached():
    """Every address's reason is told, in order."""
    report, calls = await deliver(lambda call: call.break_with(Unreachable(f"{call.address}: no")))
    assert report.outcome is Outcome.UNREACHABLE
    assert report.message == "[2001:db8::1]:9191: no; 192.0.2.1:9191: no; 192.0.2.3:9191: no"
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unanswered("cut off"), Outcome.UNANSWERED),
        (Busy("HTTP 503"), Outcome.BUSY),
        (Stale("a newer owner"), Outcome.BUSY),
        (Refused("HTTP 401"), Outcome.REFUSED),
    ],
)
async def test_what_was_reached_is_not_asked_elsewhere(error, outcome):
    """It may have been done there: another address could do it twice."""
    report, calls = await deliver(breaking_with(error))
    assert (report.outcome, report.message) == (outcome, str(error))
    assert len(calls) == 1


async def test_the_time_an_agent_asks_for_is_passed_on():
    """Retry-After of a 429; nothing where it sent none."""
    assert (await deliver(breaking_with(Busy("HTTP 429", 7.5))))[0].retry_after == 7.5
    assert (await deliver(breaking_with(Busy("HTTP 503"))))[0].retry_after is None


async def test_a_fault_is_not_taken_for_an_answer():
    """What no transport may raise is the engine's to tell."""
    with pytest.raises(ZeroDivisionError):
        await deliver(breaking_with(ZeroDivisionError()))
