"""The life of a request at an agent, from its begin to its answer.

A step that waits (for the journal, for the time an execution takes) names the step that follows.
Each looks first whether its agent still has the life it was begun in: a killed one forgets.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from edgeplane.agent.journal_file import Standing
from edgeplane.agent.refusals import Outdated, Unavailable, different, outdated
from edgeplane.model.errors import DatabaseError, DomainError, TooMany
from edgeplane.model.tasks import TaskKind
from edgeplane.swarm.agents import Agent, Run, Tell, limit
from edgeplane.swarm.effects import Effects
from edgeplane.swarm.faults import Fate, Point
from edgeplane.swarm.records import Asked, Found, Journal, Status
from edgeplane.swarm.tally import Counts
from edgeplane.wire import ExecuteReply, ExecuteRequest

MAX_RUNNING: Final = 256  #: requests one agent carries out at once


class Lives:
    """Carries requests out."""

    def __init__(
        self, journal: Journal, effects: Effects, counts: Counts, kill: Callable[[Agent], None]
    ) -> None:
        """``kill`` is called where a request's fate is that its agent dies."""
        self._journal = journal
        self._effects = effects
        self._counts = counts
        self._kill = kill
        self._loop = asyncio.get_running_loop()

    def start(
        self, agent: Agent, request: ExecuteRequest, fate: Fate, tell: Tell, digest: bytes
    ) -> None:
        """Begin a run, if there is room."""
        if len(agent.running) >= MAX_RUNNING:
            words = f"{MAX_RUNNING} tasks are running; ask again"
            self.refuse(tell, TooMany(words, retry_after=1))
            return
        config = request.type == TaskKind.APPLY_CONFIG and request.node_id is not None
        asked = Asked(
            agent=agent.number,
            request_id=request.request_id,
            digest=digest,
            attempt=request.attempt,
            node_id=request.node_id or 0,
            epoch=request.epoch,
            generation=request.generation if config else None,
            at=time.time() + agent.skew,
        )
        taken = time.monotonic()
        run = Run(request, asked, fate, agent.life, request.attempt, taken, waiting=[tell])
        agent.running[request.request_id] = run
        self._journal.begin(asked, partial(self._begun, agent, run))

    def _begun(self, agent: Agent, run: Run, found: Found | None) -> None:
        """Go on with what the journal says."""
        if run.life != agent.life:
            return
        request = run.request
        if found is None:
            self._end(agent, run, DatabaseError("journal cannot be written"))
        elif found.standing is Standing.DIFFERENT:
            self._end(agent, run, different(request.request_id))
        elif found.standing is Standing.ANSWERED:
            self._counts.duplicates += 1
            self._last(agent, run, ExecuteReply(request.request_id, found.status, found.message))
        elif found.outdated_by and not self._effects.made(agent.number, request.request_id):
            generation, node_id = run.asked.generation or 0, run.asked.node_id
            self._end(agent, run, Outdated(generation, found.outdated_by, node_id))
        elif run.fate.dies is Point.AFTER_BEGUN:
            self._kill(agent)
        else:
            run.begun = True
            self._go_on(agent, run, found.message)

    def _go_on(self, agent: Agent, run: Run, called_off: str) -> None:
        """Begin to carry out what the journal has as begun, unless it was called off."""
        words = called_off or run.called_off
        if words and not self._effects.made(agent.number, run.request.request_id):
            self.call_off(agent, run, words)
            return
        if run.asked.generation is not None:
            self._overtake(agent, run.asked.generation, run.asked.node_id)
        self._wait(agent, run)

    def _overtake(self, agent: Agent, generation: int, node_id: int) -> None:
        """Let no earlier config take effect after this one."""
        for old in list(agent.running.values()):
            earlier = old.asked.generation
            if earlier is not None and earlier < generation and old.asked.node_id == node_id:
                self.call_off(agent, old, outdated(earlier, generation, node_id))

    def call_off(self, agent: Agent, run: Run, words: str) -> None:
        """Let a run have no effect, if it has none yet."""
        run.called_off = words
        if run.begun and not run.decided:
            self._counts.called_off += 1
            self._finish(agent, run, "failed", words)

    def _wait(self, agent: Agent, run: Run) -> None:
        """Take as long as an execution does, and no longer than this one may."""
        most, latency = limit(run.request), run.fate.latency
        if latency > most:
            late = Unavailable(f"timed out after {most} s")
            self._loop.call_later(most, self._give_up, agent, run, late)
        elif latency:
            self._loop.call_later(latency, self._carry_out, agent, run)
        else:
            self._carry_out(agent, run)

    def _give_up(self, agent: Agent, run: Run, error: DomainError) -> None:
        if not run.decided:
            self._end(agent, run, error)

    def _carry_out(self, agent: Agent, run: Run) -> None:
        """Make the effect, or find the one an interrupted run made."""
        if run.life != agent.life or run.decided:
            return
        request, number = run.request, agent.number
        status: Status = "success"
        if self._effects.made(number, request.request_id):
            self._counts.recovered += 1
        elif run.fate.fails:
            self._counts.failures += 1
            status = "failed"
        else:
            self._counts.effects += 1
            self._effects.make(run.asked, request.type, run.taken)
        if run.fate.dies is Point.AFTER_EFFECT:
            self._kill(agent)
            return
        message = f"{request.type} done" if status == "success" else "failed, as it was to"
        self._finish(agent, run, status, message)

    def _finish(self, agent: Agent, run: Run, status: Status, message: str) -> None:
        run.decided = True
        done = partial(self._done, agent, run, status, message)
        self._journal.finish(run.asked, run.attempt, status, message, done)

    def _done(
        self, agent: Agent, run: Run, status: Status, message: str, kept: bool | None
    ) -> None:
        """Answer, now that the end is on record."""
        if kept:
            self._effects.settle(agent.number, run.request.request_id)
        if run.life != agent.life:
            return
        if not kept:
            self._end(agent, run, DatabaseError("journal cannot be written"))
            return
        self._last(agent, run, ExecuteReply(run.request.request_id, status, message))

    def _last(self, agent: Agent, run: Run, reply: ExecuteReply) -> None:
        if run.fate.dies is Point.BEFORE_ANSWER:
            self._kill(agent)
        else:
            self._end(agent, run, reply)

    def _end(self, agent: Agent, run: Run, reply: ExecuteReply | DomainError) -> None:
        """Tell whoever waits, and let come what waited for the end."""
        if run.life != agent.life:
            return
        del agent.running[run.request.request_id]
        for tell in run.waiting:
            if isinstance(reply, ExecuteReply):
                tell(reply)
            else:
                self.refuse(tell, reply)
        for step in run.after:
            step()

    def refuse(self, tell: Tell, error: DomainError) -> None:
        """Answer with an error, and count it."""
        if isinstance(error, Outdated):
            self._counts.outdated += 1
        else:
            self._counts.refused += 1
        tell(error)
