"""The agents, and the life of a request at one of them, whichever way it came.

A step that waits (for the journal, for the time an execution takes) names the step that follows.
Each looks first whether its agent still has the life it was begun in: a killed one forgets.
"""

import asyncio
import time
from functools import partial
from typing import Final

from edgeplane.agent.journal_file import Standing
from edgeplane.model.errors import (
    AlreadyExists,
    DatabaseError,
    DomainError,
    TooMany,
    WrongState,
)
from edgeplane.model.tasks import DEFAULT_TIMEOUT_SECONDS, TaskKind
from edgeplane.swarm.addresses import address_of
from edgeplane.swarm.agents import Agent, Outdated, Run, Tell, Unavailable
from edgeplane.swarm.effects import Effects
from edgeplane.swarm.faults import Dice, Fate, Faults, Point
from edgeplane.swarm.records import Asked, Found, Journal, Status
from edgeplane.swarm.tally import Tally
from edgeplane.wire import ExecuteReply, ExecuteRequest, payload_digest

MAX_RUNNING: Final = 256  #: requests one agent carries out at once


class Fleet:
    """All agents of a swarm."""

    def __init__(
        self, count: int, journal: Journal, effects: Effects, faults: Faults, tally: Tally
    ) -> None:
        """Make agents numbered from 1; to be called with the event loop running."""
        self._journal = journal
        self._effects = effects
        self._faults = faults
        self._dice = Dice(faults)
        self._counts = tally.counts
        self._loop = asyncio.get_running_loop()
        self._agents = {
            address_of(number): Agent(number, self._dice.skew(number), journal.epochs(number))
            for number in range(1, count + 1)
        }

    def at(self, address: str) -> Agent | None:
        """Return the agent of an address."""
        return self._agents.get(address)

    def journal_size(self, agent: Agent) -> tuple[int, int]:
        """Return the entries of an agent's journal, and the bytes of everybody's."""
        return self._journal.entries(agent.number), self._journal.bytes_on_disk()

    def execute(self, agent: Agent, request: ExecuteRequest, tell: Tell) -> None:
        """Carry a well-formed request out, or give the answer it has had.

        ``tell`` is called once, or never where the agent is killed meanwhile: then all its lines
        are cut.
        """
        self._counts.requests += 1
        agent.turn += 1
        fate = self._dice.fate(agent.number, agent.turn)
        if fate.dies is Point.ON_ARRIVAL:
            self.kill(agent)
            return
        if fate.drops or fate.late:
            tell = self._faulty(fate, request, tell)
        self._follow(agent, request, fate, tell)

    def kill(self, agent: Agent) -> None:
        """Let an agent die; it comes back by itself."""
        self._counts.kills += 1
        agent.life += 1
        agent.up = False
        agent.running = {}
        self._effects.tell("killed", agent.number)
        for line in list(agent.lines):
            line.cut()
        self._loop.call_later(self._faults.down, self._revive, agent)

    def _revive(self, agent: Agent) -> None:
        agent.epochs = self._journal.epochs(agent.number)
        agent.up = True
        self._effects.tell("back", agent.number)

    def _faulty(self, fate: Fate, request: ExecuteRequest, tell: Tell) -> Tell:
        """Return a way of answering that never answers, or too late."""

        def cut(reply: ExecuteReply | DomainError | None) -> None:
            del reply
            self._counts.drops += 1
            tell(None)

        def late(reply: ExecuteReply | DomainError | None) -> None:
            self._counts.zombies += 1
            self._loop.call_later(2 * _limit(request), tell, reply)

        return cut if fate.drops else late

    def _follow(self, agent: Agent, request: ExecuteRequest, fate: Fate, tell: Tell) -> None:
        """Refuse an epoch that is past for its node; keep one that is new."""
        node_id, epoch = request.node_id or 0, request.epoch
        admit = partial(self._admit, agent, request, fate, tell, agent.life)
        if epoch is not None:
            followed = agent.epochs.get(node_id, 0)
            if epoch < followed:
                self._counts.stale_epochs += 1
                words = f"stale epoch {epoch} for node {node_id}: this agent follows {followed}"
                tell(WrongState(words))
                return
            agent.epochs[node_id] = epoch
            if epoch > followed and request.request_id in agent.running:
                # It is answered without a begin of its own.
                self._journal.raise_epoch(agent.number, node_id, epoch, admit)
                return
        admit(True)

    def _admit(
        self,
        agent: Agent,
        request: ExecuteRequest,
        fate: Fate,
        tell: Tell,
        life: int,
        kept: bool | None,
    ) -> None:
        """Join a run that answers this request too, or begin one."""
        if life != agent.life:
            return
        if not kept:
            self._refuse(tell, DatabaseError("journal cannot be written"))
            return
        digest = payload_digest(request.type, bytes(request.payload))
        run = agent.running.get(request.request_id)
        if run is None:
            self._start(agent, request, fate, tell, digest)
            return
        same = run.asked.digest == digest
        if same and (request.attempt <= run.attempt or (run.begun and not run.decided)):
            run.attempt = max(run.attempt, request.attempt)
            run.waiting.append(tell)
            self._counts.joined += 1
        elif run.begun and not same:
            self._refuse(tell, _different(request))
        else:  # what it leaves in the journal says how to go on
            run.after.append(partial(self._follow, agent, request, fate, tell))

    def _start(
        self, agent: Agent, request: ExecuteRequest, fate: Fate, tell: Tell, digest: bytes
    ) -> None:
        if len(agent.running) >= MAX_RUNNING:
            words = f"{MAX_RUNNING} tasks are running; ask again"
            self._refuse(tell, TooMany(words, retry_after=1))
            return
        config = request.type == TaskKind.APPLY_CONFIG
        asked = Asked(
            agent=agent.number,
            request_id=request.request_id,
            digest=digest,
            attempt=request.attempt,
            node_id=request.node_id or 0,
            epoch=request.epoch,
            # Not every control plane numbers its configs.
            generation=getattr(request, "generation", None) if config else None,
            at=time.time() + agent.skew,
        )
        run = Run(request, asked, fate, agent.life, request.attempt, waiting=[tell])
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
            self._end(agent, run, _different(request))
        elif found.standing is Standing.ANSWERED:
            self._counts.duplicates += 1
            self._last(agent, run, ExecuteReply(request.request_id, found.status, found.message))
        elif found.outdated_by and not self._effects.made(agent.number, request.request_id):
            outdated = Outdated(run.asked.generation or 0, found.outdated_by, run.asked.node_id)
            self._end(agent, run, outdated)
        elif run.fate.dies is Point.AFTER_BEGUN:
            self.kill(agent)
        else:
            run.begun = True
            self._wait(agent, run)

    def _wait(self, agent: Agent, run: Run) -> None:
        """Take as long as an execution does, and no longer than this one may."""
        limit, latency = _limit(run.request), run.fate.latency
        if latency > limit:
            late = Unavailable(f"timed out after {limit} s")
            self._loop.call_later(limit, self._end, agent, run, late)
        elif latency:
            self._loop.call_later(latency, self._carry_out, agent, run)
        else:
            self._carry_out(agent, run)

    def _carry_out(self, agent: Agent, run: Run) -> None:
        """Make the effect, or find the one an interrupted run made."""
        if run.life != agent.life:
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
            self._effects.make(number, request.request_id, request.type, run.asked.generation)
        run.decided = True
        if run.fate.dies is Point.AFTER_EFFECT:
            self.kill(agent)
            return
        message = f"{request.type} done" if status == "success" else "failed, as it was to"
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
            self.kill(agent)
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
                self._refuse(tell, reply)
        for step in run.after:
            step()

    def _refuse(self, tell: Tell, error: DomainError) -> None:
        if isinstance(error, Outdated):
            self._counts.outdated += 1
        else:
            self._counts.refused += 1
        tell(error)


def _limit(request: ExecuteRequest) -> int:
    """Return how many seconds a request may take."""
    return request.timeout_seconds or DEFAULT_TIMEOUT_SECONDS


def _different(request: ExecuteRequest) -> AlreadyExists:
    return AlreadyExists(f"requestId: {request.request_id} was used for another type or payload")
