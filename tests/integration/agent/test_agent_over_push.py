"""The control plane's transport and the real agent, face to face."""

import pytest

from edgeplane.transport.base import Address, Outdated, Refused, Stale
from edgeplane.transport.push import PushTransport
from edgeplane.wire import ExecuteReply
from kit.executors import asking


@pytest.fixture
async def push(agent):
    """Make a transport that the agent knows."""
    transport = PushTransport(agent.token)
    yield transport
    await transport.close()


@pytest.fixture
def address(agent):
    """Where the agent is."""
    return Address("127.0.0.1", agent.port)


def _config(request_id, **more):
    return asking(request_id, kind="apply_config", **more)


async def test_a_batch_brings_a_result_or_an_error_for_each(push, address):
    """Of the kind it would have had alone; asked again, the same."""
    await push.deliver(address, _config("p-known", node_id=1, epoch=5, generation=7), 10)
    asked = [
        _config("p-new", node_id=1, epoch=5, generation=7),
        _config("p-known"),
        _config("p-known", payload=b'{"other":1}'),
        _config("p-stale", node_id=1, epoch=4),
        _config("p-old", node_id=1, epoch=5, generation=6),
    ]
    for _ in range(2):
        new, known, other, stale, old = await push.deliver_many(address, asked, 10)
        assert isinstance(new, ExecuteReply)
        assert isinstance(known, ExecuteReply)
        assert (new.status, known.status) == ("success", "success")
        assert [type(one) for one in (other, stale, old)] == [Refused, Stale, Outdated]
    for one, request in ((other, asked[2]), (stale, asked[3]), (old, asked[4])):
        with pytest.raises(type(one)) as alone:
            await push.deliver(address, request, 10)
        assert str(alone.value) == str(one)


async def test_a_malformed_task_fails_alone(push, address):
    """The others of its batch are carried out."""
    asked = [asking("p-good"), asking("p-bad", kind="reboot"), asking("p-good-too")]
    good, bad, good_too = await push.deliver_many(address, asked, 10)
    assert (good.status, good_too.status) == ("success", "success")
    assert type(bad) is Refused
    assert "type: must be one of" in str(bad)


async def test_hundreds_of_tasks_make_one_effect_each(agent, push, address):
    """In as few requests as may be."""
    ids = [f"p-many{number}" for number in range(250)]
    before = push.requests_sent
    found = await push.deliver_many(address, [asking(name) for name in ids], 30)
    assert push.requests_sent - before == 3
    failed = [one for one in found if not isinstance(one, ExecuteReply)]
    again = await push.deliver_many(address, [asking(name) for name in ids], 30)
    assert len(failed) <= 250 - 100  # more than may run at once were told to come back
    assert all(one.status == "success" for one in again)
    assert all((agent.files / f"cmdb_reload_{name}.txt").exists() for name in ids)


async def test_a_cancel_keeps_what_comes_late_from_its_effect(agent, push, address):
    """And leaves alone what has ended."""
    assert await push.cancel(address, "p-late", 1, 5, 10) == "unknown"
    reply = await push.deliver(address, asking("p-late", node_id=1, epoch=5), 10)
    assert (reply.status, reply.message) == ("failed", "cancelled before it took effect")
    assert not (agent.files / "cmdb_reload_p-late.txt").exists()
    await push.deliver(address, asking("p-done"), 10)
    assert await push.cancel(address, "p-done", None, None, 10) == "done"
    with pytest.raises(Stale):
        await push.cancel(address, "p-late", 1, 4, 10)
