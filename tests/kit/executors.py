"""An executor that does what the test says, and what a test asks of it."""

import asyncio
import threading

import msgspec

from edgeplane.agent.executors.base import Outcome
from edgeplane.wire import ExecuteRequest

WAIT = 10


class ScriptedExecutor:
    """Returns the outcomes it was given, in order; stays in its gate while that is closed."""

    name = "scripted"

    def __init__(self):
        self.outcomes = []
        self.recovered = None
        self.executed = []
        self.asked_to_recover = []
        self.effects = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.recovery = threading.Event()
        self.recovery.set()
        self.after_permit = threading.Event()
        self.after_permit.set()

    def execute(self, request, permit):
        """Make the effect, once let through and permitted."""
        self.executed.append((request.request_id, request.attempt))
        self.entered.release()
        assert self.gate.wait(WAIT)
        if not permit.take():
            return Outcome("failed", "abandoned")
        self.entered.release()
        assert self.after_permit.wait(WAIT)
        self.effects.append(request.request_id)
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome("success", "made")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def recover(self, request):
        """Say what the test says."""
        self.asked_to_recover.append(request.request_id)
        self.entered.release()
        assert self.recovery.wait(WAIT)
        if isinstance(self.recovered, Exception):
            raise self.recovered
        return self.recovered

    def close(self):
        """Hold nothing."""


def asking(request_id="r1", payload=b"{}", kind="reload", **more):
    """Make a request to execute."""
    return ExecuteRequest(request_id, kind, msgspec.Raw(payload), **more)


async def entered(executor):
    """Wait until the executor has got to its next place."""
    assert await asyncio.to_thread(executor.entered.acquire, timeout=WAIT)


async def end(executions):
    """End executions and their journal, as a process would."""
    await executions.close(WAIT)
    await executions._journal.close()
