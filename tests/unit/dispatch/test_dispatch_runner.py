"""The delivery of one task: what is sent, to which addresses, and what is made of the answer."""

import asyncio
from dataclasses import replace

import pytest

from edgeplane.dispatch import runner
from edgeplane.dispatch.work import Delivery
from edgeplane.model.nodes import Node, NodeStatus, SubIP
from edgeplane.model.tasks import Outcome, TaskKind
from edgeplane.transport.base import Busy, Refused, Stale, Unanswered, Unreachable
from kit.engines import Call, ScriptedTransport
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
    id=3,
    node_id=7,
    kind=TaskKind.APPLY_CONFIG,
    attempts=4,
    run=2,
    timeout_seconds=20,
    payload=None,
    generation=41,
)
DELIVERY = Delivery(TASK, '{"b": 1, "a": 18446744073709551617}', NODE, epoch=99)


async def deliver(script):
    """Deliver to a transport that follows a script; return the report and the calls."""
    transport = ScriptedTransport(at_once=script)
    async with asyncio.timeout(5):
        (report,) = await runner.deliver(transport, [DELIVERY])
        return report, transport.calls


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
    assert (request.node_id, request.epoch, request.generation) == (7, 99, 41)


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


def shipment(number):
    """Make deliveries of several tasks of one node."""
    tasks = [TASK._replace(id=n, request_id=f"r-{n}", timeout_seconds=n) for n in range(1, number)]
    return [replace(DELIVERY, task=task) for task in tasks]


async def test_tasks_that_go_together_have_a_report_each():
    """In their order; the longest limit is the one that counts."""
    transport = ScriptedTransport()
    endings = {"r-1": Call.succeed, "r-2": Call.fail, "r-3": breaking_with(Busy("HTTP 429", 2.0))}
    transport.at_once = lambda call: endings[call.request.request_id](call)
    found = await runner.deliver(transport, shipment(4))
    assert [report.outcome for report in found] == [
        Outcome.SUCCEEDED,
        Outcome.FAILED,
        Outcome.BUSY,
    ]
    assert found[2].retry_after == 2.0
    assert transport.batches == [(["r-1", "r-2", "r-3"], 4.0)]


async def test_only_what_did_not_arrive_goes_to_the_next_address():
    """What one address has answered for is not asked for again elsewhere."""
    transport = ScriptedTransport()

    def script(call):
        if call.address.ip == "192.0.2.1" or call.request.request_id == "r-1":
            call.succeed()
        else:
            call.break_with(Unreachable("refused"))

    transport.at_once = script
    found = await runner.deliver(transport, shipment(4))
    assert {report.outcome for report in found} == {Outcome.SUCCEEDED}
    assert [ids for ids, _ in transport.batches] == [["r-1", "r-2", "r-3"], ["r-2", "r-3"]]


async def test_a_cancel_names_the_run_and_the_owner():
    """So that an older owner cannot cancel, and a later run is not meant."""
    transport = ScriptedTransport()
    assert await runner.withdraw(transport, DELIVERY) == "cancelled"
    assert transport.cancels == [(TASK.request_id, 7, 99, 2)]


async def test_a_fault_is_not_taken_for_an_answer():
    """What no transport may raise is the engine's to tell."""
    with pytest.raises(ZeroDivisionError):
        await deliver(breaking_with(ZeroDivisionError()))
