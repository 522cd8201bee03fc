"""A transport, and an agent that answers it as scripted."""

import pytest

from edgeplane.transport.push import PushTransport
from kit.agents import Scripted, request

TOKEN = "an-agent-token-for-the-tests"


@pytest.fixture
async def agent():
    """Run an agent with a script."""
    running = Scripted()
    running.address = await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def push():
    """Make a transport; end its connections."""
    transport = PushTransport(TOKEN, connect_seconds=2.0)
    yield transport
    await transport.close()


@pytest.fixture
def ask(agent, push):
    """Deliver to the scripted agent what its next step answers."""

    async def deliver(*steps, request_id="r-1", seconds=10.0, **given):
        agent.script.extend(steps)
        return await push.deliver(agent.address, request(request_id, **given), seconds)

    return deliver
