"""The agents, and what comes in at them, whichever way it came."""

import asyncio
from functools import partial

from edgeplane.agent.refusals import different
from edgeplane.model.errors import (
    DatabaseError,
    DomainError,
)
from edgeplane.swarm.addresses import address_of
from edgeplane.swarm.agents import Agent, Tell, TellCancel, limit
from edgeplane.swarm.effects import Effects
from edgeplane.swarm.faults import Dice, Fate, Faults, Point
from edgeplane.swarm.lives import Lives
from edgeplane.swarm.records import Journal
from edgeplane.swarm.tally import Tally
from edgeplane.wire import (
    CANCELLED,
    CancelReply,
    CancelRequest,
    CancelState,
    ExecuteReply,
    ExecuteRequest,
    payload_digest,
)


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
        self._lives = Lives(journal, effects, tally.counts, self.kill)
        self._agents = {
            address_of(number): Agent(number, self._dice.skew(number), journal.epochs(number))
            for number in range(1, count + 1)
        }

    def at(self, address: str) -> Agent | None:
        """Return the agent of an address."""
        return self._agents.get(address)

    def everyone(self) -> list[Agent]:
        """Return all agents."""
        return list(self._agents.values())

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

    def cancel(self, agent: Agent, order: CancelRequest, tell: TellCancel) -> None:
        """Keep a request from its effect, if it has none yet; ``tell`` how it stands."""
        if (stale := agent.follow(order)) is not None:
            self._counts.stale_epochs += 1
            tell(stale)
            return
        run = agent.running.get(order.request_id)
        if run is None or run.decided:
            asked = partial(self._cancelled, order, tell, run is not None)
            self._journal.cancel(agent.number, order, asked)
            return
        run.attempt = max(run.attempt, order.attempt or 0)
        run.after.append(partial(self.cancel, agent, order, tell))
        self._lives.call_off(agent, run, CANCELLED)

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
        agent.back()

    def _faulty(self, fate: Fate, request: ExecuteRequest, tell: Tell) -> Tell:
        """Return a way of answering that never answers, or too late."""

        def cut(reply: ExecuteReply | DomainError | None) -> None:
            del reply
            self._counts.drops += 1
            tell(None)

        def late(reply: ExecuteReply | DomainError | None) -> None:
            self._counts.zombies += 1
            self._loop.call_later(2 * limit(request), tell, reply)

        return cut if fate.drops else late

    def _cancelled(
        self, order: CancelRequest, tell: TellCancel, runs: bool, state: CancelState | None
    ) -> None:
        if state is None:
            tell(DatabaseError("journal cannot be written"))
        else:
            tell(CancelReply(order.request_id, "running" if runs else state))

    def _follow(self, agent: Agent, request: ExecuteRequest, fate: Fate, tell: Tell) -> None:
        """Go on with a request whose epoch is not past."""
        node_id = request.node_id or 0
        before = agent.epochs.get(node_id, 0)
        if (stale := agent.follow(request)) is not None:
            self._counts.stale_epochs += 1
            tell(stale)
            return
        admit = partial(self._admit, agent, request, fate, tell, agent.life)
        epoch = agent.epochs.get(node_id, 0)
        if epoch > before and request.request_id in agent.running:
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
            self._lives.refuse(tell, DatabaseError("journal cannot be written"))
            return
        digest = payload_digest(request.type, bytes(request.payload))
        run = agent.running.get(request.request_id)
        if run is None:
            self._lives.start(agent, request, fate, tell, digest)
            return
        same = run.asked.digest == digest
        if same and (request.attempt <= run.attempt or (run.begun and not run.decided)):
            run.attempt = max(run.attempt, request.attempt)
            run.waiting.append(tell)
            self._counts.joined += 1
        elif run.begun and not same:
            self._lives.refuse(tell, different(request.request_id))
        else:  # what it leaves in the journal says how to go on
            run.after.append(partial(self._follow, agent, request, fate, tell))
