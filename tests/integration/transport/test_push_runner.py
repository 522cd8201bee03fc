"""The delivery of one task: which addresses are tried, and what each ending is reported as."""

from dataclasses import replace

import pytest

from edgeplane.dispatch import runner
from edgeplane.dispatch.work import Delivery
from edgeplane.model.nodes import Node, NodeStatus, SubIP
from edgeplane.model.tasks import Outcome, Report
from edgeplane.transport.base import (
    Address,
    Busy,
    Outdated,
    Refused,
    Stale,
    Unanswered,
    Unreachable,
)
from edgeplane.transport.links import Links
from edgeplane.transport.routes import Routes
from edgeplane.transport.sync import SyncTransport
from edgeplane.wire import ExecuteReply
from kit import factories
from kit.agents import Hangup, Scripted, http, refusal, reply
from kit.ports import free_port


def a_delivery(*sub_ips, main_ip="192.0.2.1", port=9090, **task):
    """Make a delivery to a node with sub-IPs; one written ``-ip`` is disabled."""
    node = Node(
        id=1,
        name="edge",
        main_ip=main_ip,
        agent_port=port,
        enabled=True,
        status=NodeStatus.ONLINE,
        sub_ips=tuple(SubIP(ip=ip.lstrip("-"), enabled=ip[0] != "-") for ip in sub_ips),
        created_at=factories.NOW,
        updated_at=factories.NOW,
    )
    return Delivery(factories.a_task(**task), '{"b":1,"a":2}', node, epoch=7)


class Addresses:
    """A transport with an answer for each address."""

    def __init__(self, **answers):
        self.answers = {ip.replace("_", "."): answer for ip, answer in answers.items()}
        self.tried = []
        self.asked = []

    def shown(self, address):
        """Show it as it is."""
        return str(address)

    def committed(self, address, request_id, attempt):
        """Nobody is told."""

    async def deliver(self, address, request, seconds):
        """Answer as told."""
        self.tried.append(address)
        self.asked.append((request, seconds))
        answer = self.answers[f"ip{address.ip.rsplit('.', 1)[-1]}"]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def deliver_many(self, address, requests, seconds):
        """Nobody asks for it here."""
        raise NotImplementedError

    async def cancel(self, address, request_id, node_id, epoch, seconds, *, attempt=None):
        """Nobody asks for it here."""
        raise NotImplementedError

    async def close(self):
        """Nothing to end."""


def over(push):
    """Return the transport of the house, whose way to agents that are called is this one."""
    return Routes(push, SyncTransport(Links()))


async def deliver(transport, delivery):
    """Deliver one task; return its report."""
    (report,) = await runner.deliver(transport, [delivery])
    return report


DONE = ExecuteReply(request_id="r-1", status="success", message="done")


async def test_what_is_asked_is_the_task():
    """Id, type, payload, run, limit, node and epoch; an answer may take a second longer."""
    transport = Addresses(ip1=DONE)
    await deliver(transport, a_delivery(run=4, attempts=6, timeout_seconds=9, node_id=3))
    ((request, seconds),) = transport.asked
    assert bytes(request.payload) == b'{"b":1,"a":2}'
    assert (request.request_id, request.type, request.attempt) == ("r-1", "reload", 4)
    assert (request.timeout_seconds, request.node_id, request.epoch) == (9, 3, 7)
    assert seconds == 10.0
    assert transport.tried == [Address("192.0.2.1", 9090)]


async def test_further_addresses_are_tried_in_order_while_none_is_reached():
    """Main address, then enabled sub-IPs as given, until one is reached; disabled ones never."""
    away = Unreachable("away")
    transport = Addresses(ip1=away, ip9=away, ip5=DONE, ip7=DONE)
    delivery = a_delivery("192.0.2.9", "-192.0.2.2", "192.0.2.5", "192.0.2.7")
    report = await deliver(transport, delivery)
    assert report == Report(
        outcome=Outcome.SUCCEEDED, message="done", address="192.0.2.5:9090", answered=True
    )
    assert [address.ip for address in transport.tried] == ["192.0.2.1", "192.0.2.9", "192.0.2.5"]
    assert {address.port for address in transport.tried} == {9090}


@pytest.mark.parametrize(
    "ending",
    [
        Unanswered("no answer"),
        Busy("busy"),
        Stale("stale"),
        Refused("refused"),
        Outdated("outdated"),
        ExecuteReply(request_id="r-1", status="failed", message="no"),
        DONE,
    ],
    ids=lambda ending: type(ending).__name__,
)
async def test_an_agent_that_was_reached_is_the_only_one_asked(ending):
    """Whatever it says, nobody else is asked: it may have carried the task out."""
    transport = Addresses(ip1=ending, ip2=DONE)
    await deliver(transport, a_delivery("192.0.2.2"))
    assert len(transport.tried) == 1


@pytest.mark.parametrize(
    ("ending", "report"),
    [
        (DONE, Report(outcome=Outcome.SUCCEEDED, message="done", answered=True)),
        (
            ExecuteReply(request_id="r-1", status="failed", message="nginx -t: emerg"),
            Report(outcome=Outcome.FAILED, message="nginx -t: emerg", answered=True),
        ),
        (
            ExecuteReply(request_id="r-1", status="failed", message="no", output="[emerg]"),
            Report(outcome=Outcome.FAILED, message="no", output="[emerg]", answered=True),
        ),
        (Unanswered("late"), Report(outcome=Outcome.UNANSWERED, message="late")),
        (Busy("full", 7.0), Report(outcome=Outcome.BUSY, message="full", retry_after=7.0)),
        (Busy("full"), Report(outcome=Outcome.BUSY, message="full")),
        (Stale("newer"), Report(outcome=Outcome.BUSY, message="newer", stale=True)),
        (Outdated("newer"), Report(outcome=Outcome.REFUSED, message="newer")),
        (Refused("no"), Report(outcome=Outcome.REFUSED, message="no")),
        (Unreachable("away"), Report(outcome=Outcome.UNREACHABLE, message="away")),
    ],
    ids=lambda value: str(getattr(value, "outcome", "")),
)
async def test_each_ending_is_an_outcome_of_its_own(ending, report):
    """Failed, refused, busy, unanswered and unreachable stay apart; the words go with them."""
    found = await deliver(Addresses(ip1=ending), a_delivery())
    assert found == replace(report, address="192.0.2.1:9090")


async def test_what_an_ending_shows_of_the_agent_is_kept():
    """Whether a healthy one answered, and why not."""
    known, foreign = Refused("an unknown type"), Refused("status 404")
    known.answered = True
    foreign.fault = "no agent"
    for ending in (known, foreign):
        report = await deliver(Addresses(ip1=ending), a_delivery())
        assert (report.answered, report.fault) == (ending.answered, ending.fault)


async def test_a_node_with_no_way_there_tells_of_each_address():
    """All failures are in the one report, in the order they were tried."""
    transport = Addresses(ip1=Unreachable("first"), ip2=Unreachable("second"))
    report = await deliver(transport, a_delivery("192.0.2.2", "-192.0.2.3"))
    assert report == Report(
        outcome=Outcome.UNREACHABLE, message="first; second", address="192.0.2.2:9090"
    )


async def test_a_fault_of_ours_is_not_an_outcome():
    """An error that is no transport's is not dressed up as the agent's."""
    with pytest.raises(ZeroDivisionError):
        await deliver(Addresses(ip1=ZeroDivisionError()), a_delivery())


@pytest.mark.parametrize(
    ("step", "outcome", "words"),
    [
        (http(200, reply(status="success")), Outcome.SUCCEEDED, "done"),
        (http(200, reply(status="failed", message="no")), Outcome.FAILED, "no"),
        (http(200, reply(request_id="other")), Outcome.UNANSWERED, "another request"),
        (http(200, refusal(2002)), Outcome.REFUSED, "error code 2002"),
        (http(500, reply(status="success")), Outcome.BUSY, "status 500"),
        (http(401, refusal(1001)), Outcome.REFUSED, "status 401"),
        (http(409, refusal(3003)), Outcome.BUSY, "status 409"),
        (Hangup(), Outcome.UNANSWERED, "no answer"),
    ],
    ids=lambda value: str(value) if isinstance(value, Outcome) else "",
)
async def test_over_a_real_socket_the_agents_word_decides(agent, push, step, outcome, words):
    """``data.status`` under code 0 and HTTP 200 is a result; nothing else is."""
    agent.script.append(step)
    delivery = a_delivery(main_ip="127.0.0.1", port=agent.address.port)
    report = await deliver(over(push), delivery)
    assert report.outcome is outcome
    assert words in report.message


async def test_a_sub_ip_of_the_other_family_is_reached(push):
    """The main address refuses, a v6 sub-IP with the same port answers."""
    port = free_port()
    running = Scripted()
    await running.start("::1", port)
    try:
        delivery = a_delivery("-127.0.0.2", "::1", main_ip="127.0.0.1", port=port)
        report = await deliver(over(push), delivery)
        assert report.outcome is Outcome.SUCCEEDED
    finally:
        await running.stop()
    report = await deliver(over(push), delivery)
    assert report.outcome is Outcome.UNREACHABLE
    assert report.message.count("connection refused") == 2
    assert f"[::1]:{port}" in report.message
