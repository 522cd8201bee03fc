"""The sync transport's other end: agents that connect out, and ask what there is to do.

Each holds one exchange open. What it is told to do it does, waits a moment for what ends at once,
and tells of it with the next exchange; what ends later it tells in a newer exchange on a second
connection, whereupon the older one is answered. The words are in docs/agent-protocol.md.
"""

from contextlib import suppress
from functools import partial
from secrets import token_hex
from typing import Final

from edgeplane.model.errors import DomainError
from edgeplane.swarm import replies
from edgeplane.swarm.addresses import address_of, name_of
from edgeplane.swarm.agents import Agent
from edgeplane.swarm.controls import Control
from edgeplane.swarm.outbound import Outbound, connect
from edgeplane.swarm.syncing import Syncing, Task, Timer
from edgeplane.swarm.telling import Telling
from edgeplane.wire import CancelReply, ExecuteReply, SyncReply, SyncRequest

MOMENT_SECONDS: Final = 0.02  #: for what has just begun
GRACE_SECONDS: Final = 4.0  #: beyond the time an exchange may be held
IDLE_SECONDS: Final = 10.0  #: for a second connection that is not used
FIRST_WAIT_SECONDS: Final = 60.0  #: before a control plane has said how long it holds
FIRST_RECONNECT_SECONDS: Final = 5.0  #: and within what agents may return

_OK: Final = 200


class SyncAgent:
    """One agent's end: its connections, and where it is in the protocol.

    At any time it has an exchange out, or is connecting, or ``_timer`` says when it goes on; or it
    is dead, and its fleet lets it come back.
    """

    __slots__ = (
        "_again", "_agent", "_connecting", "_control", "_exchange", "_failures", "_fresh", "_lines",
        "_reconnect", "_rest_until", "_resting", "_session", "_shared", "_soon", "_telling",
        "_timer", "_tried", "_wait",
    )  # fmt: skip

    def __init__(self, shared: Syncing, agent: Agent) -> None:
        self._shared = shared
        self._agent = agent
        self._lines: list[Outbound] = []
        self._telling = Telling()
        self._timer: Timer | None = None
        self._control = 0  #: which control plane is called
        self._failures = 0  #: returns in a row that brought no reply
        self._wait = FIRST_WAIT_SECONDS
        self._reconnect = FIRST_RECONNECT_SECONDS
        self._forget()
        agent.lines.add(self)
        agent.back = self.start

    def start(self, delay: float = 0.0) -> None:
        """Begin a life, with a session of its own."""
        self._forget()
        self._timer = self._shared.loop.call_later(delay, self._go)

    def cut(self) -> None:
        """End all as a process does that dies."""
        self._cut_lines()
        self._forget()

    def look(self, now: float) -> None:
        """End what is late, and a connection that is not needed; ``now`` is the loop's time."""
        for line in self._lines:
            if line.busy:
                if now > line.deadline:
                    line.cut()
            elif len(self._lines) > 1 and now - line.idle_since > IDLE_SECONDS:
                line.transport.close()

    def opened(self) -> None:
        """Count a connection."""
        self._shared.tally.connected()

    def answered(self, line: Outbound, status: int, body: bytes) -> None:
        """Do what a reply says, and rest; come back later after any other answer."""
        if line not in self._lines:
            return
        line.idle_since = self._shared.loop.time()
        reply = replies.read(body) if status == _OK else None
        if reply is None:
            self._turned_away(line, status)
            return
        self._failures = self._tried = 0
        self._wait, self._reconnect = reply.wait_seconds, reply.reconnect_seconds
        self._telling.acknowledge(reply.acknowledged)
        newest = line.exchange == self._exchange
        if newest:
            self._stop_waiting()
            self._resting = True
            self._rest_until = line.idle_since + reply.pause_seconds
            self._fresh = len(reply.tasks) + len(reply.cancels)
        life = self._agent.life
        self._do(reply, line.exchange)
        if life != self._agent.life:
            return
        if newest and self._resting:
            self._rest(reply.pause_seconds)
        elif not newest:
            self._prolong()
            self._speak_up()

    def lost(self, line: Outbound) -> None:
        """Come back, if an answer was due."""
        self._shared.tally.counts.connections -= 1
        if line not in self._lines:
            return
        self._lines.remove(line)
        if line.busy:
            self._again = True
            self._shared.tally.counts.lost_exchanges += 1
            self._come_back()
        else:
            self._speak_up()

    def _forget(self) -> None:
        self._stop_waiting()
        self._session = token_hex(8)
        self._exchange = 0
        self._again = False  #: a reply was lost
        self._connecting: Task | None = None
        self._tried = 0  #: control planes in a row that were not reached
        self._fresh = 0  #: what was begun with the newest reply, and has not ended
        self._rest_until = 0.0  #: the loop's time until which it was told to pause
        self._soon = False  #: it is to speak up in this turn of the loop
        self._telling.clear()

    def _stop_waiting(self) -> None:
        self._resting = False  #: between a reply and the next exchange
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut_lines(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            line.cut()

    def _do(self, reply: SyncReply, exchange: int) -> None:
        """Let the agent do all of it, or what there is before it is killed."""
        agent, fleet, now = self._agent, self._shared.fleet, self._shared.loop.time()
        life = agent.life
        for order in reply.cancels:
            fleet.cancel(agent, order, partial(self._hear_cancel, life, exchange))
        for task in reply.tasks:
            hear = partial(self._hear, (task.request_id, task.attempt), (life, exchange, now))
            wrong = replies.malformed(task)
            if wrong is not None:
                hear(wrong)
                continue
            fleet.execute(agent, task, hear)
            if agent.life != life:
                return

    def _hear(
        self,
        fence: tuple[str, int],
        begun: tuple[int, int, float],
        reply: ExecuteReply | DomainError | None,
    ) -> None:
        """Take how a run ended, to tell it; with None, lose the connection in its place.

        ``begun``: in which life, with which exchange's reply, and when.
        """
        life, exchange, arrived = begun
        if life != self._agent.life:
            return
        if reply is None:
            self._drop()
            return
        self._telling.add(fence, reply, arrived)
        self._one_ended(exchange)

    def _hear_cancel(self, life: int, exchange: int, reply: CancelReply | DomainError) -> None:
        """Take how a cancelled request stands; who was refused is nobody to tell."""
        if life != self._agent.life:
            return
        if isinstance(reply, CancelReply):
            self._telling.answer(reply)
        self._one_ended(exchange)

    def _one_ended(self, exchange: int) -> None:
        """Go on, if it was the last that is waited for."""
        if exchange == self._exchange:
            self._fresh -= 1
        if not self._resting:
            self._speak_up()
        elif self._timer and not self._fresh and self._shared.loop.time() >= self._rest_until:
            self._go()

    def _rest(self, pause: float) -> None:
        """Wait as long as was told, and a moment for what has just begun."""
        if pause <= 0 and not self._fresh:
            self._go()
            return
        seconds = pause + (MOMENT_SECONDS if self._fresh else 0)
        self._timer = self._shared.loop.call_later(seconds, self._go)

    def _speak_up(self) -> None:
        """Tell what there is to tell while an exchange is held; many ends make one exchange."""
        if not self._soon and self._timer is None and self._owes:
            self._soon = True
            self._shared.loop.call_soon(self._tell_now, self._session)

    def _tell_now(self, session: str) -> None:
        if session != self._session:
            return
        self._soon = False
        if self._timer is None and self._owes:
            self._go()

    @property
    def _owes(self) -> bool:
        """Whether a newer exchange is worth its while."""
        return self._again or self._telling.anything

    def _go(self) -> None:
        """Make the next exchange: on a connection that is there, or on a new one.

        With two that are busy it waits: the older is answered at once.
        """
        self._stop_waiting()
        if self._connecting is not None:
            return
        for line in self._lines:
            if line.open and not line.busy:
                self._send(line)
                return
        if not self._lines or (len(self._lines) == 1 and self._shared.room):
            control = self._shared.controls[self._control]
            connecting = self._connect(control, self._session)
            self._connecting = self._shared.loop.create_task(connecting)

    def _prolong(self) -> None:
        """Allow what was sent before this reply came the time that it gives."""
        deadline = self._shared.loop.time() + self._wait + GRACE_SECONDS
        for line in self._lines:
            if line.busy:
                line.deadline = max(line.deadline, deadline)

    def _send(self, line: Outbound) -> None:
        self._exchange += 1
        self._fresh = 0
        shared = self._shared
        results, cancels = self._telling.take(shared.loop.time(), shared.tally)
        who, session, number = name_of(self._agent.number), self._session, self._exchange
        again, self._again = self._again, False
        line.again = again or bool(cancels)
        request = SyncRequest(who, session, number, again, shared.version, results, cancels)
        shared.tally.counts.exchanges += 1
        deadline = shared.loop.time() + self._wait + GRACE_SECONDS
        line.send(shared.message(self._control, request), self._exchange, deadline)

    async def _connect(self, control: Control, session: str) -> None:
        """Open a connection and use it, in the life it was begun in."""
        source = (address_of(self._agent.number), 0) if control.on_loopback else None
        line = None
        with suppress(OSError):
            line = await connect(self, control.address, control.port, source)
        if session != self._session:
            if line is not None:
                line.cut()
            return
        self._connecting = None
        if line is None:
            self._unreached()
            return
        if self._exchange and not self._lines:
            self._shared.tally.counts.reconnects += 1
        self._lines.append(line)
        if self._timer is None:
            self._go()

    def _unreached(self) -> None:
        """Try the next control plane, and wait once all have been tried."""
        self._shared.tally.counts.unreached += 1
        self._tried += 1
        self._turn_to_next()
        if self._timer is None:
            others_left = self._tried % len(self._shared.controls)
            (self._go if others_left else self._come_back)()

    def _turn_to_next(self) -> None:
        """Call the next control plane from now on, if there is another."""
        controls = len(self._shared.controls)
        if controls > 1 and self._connecting is None:
            self._control = (self._control + 1) % controls
            self._cut_lines()

    def _drop(self) -> None:
        """Lose the connection as if what was to be told had been on its way."""
        self._again = True
        self._cut_lines()
        self._come_back()

    def _turned_away(self, line: Outbound, status: int) -> None:
        """Come back later, and no sooner than asked."""
        self._shared.tally.turned_away(status)
        self._again = self._again or line.again
        if line.exchange == self._exchange:
            self._turn_to_next()
            self._come_back(self._shared.delay_after(status, line.retry_after, self._reconnect))
        else:
            self._speak_up()

    def _come_back(self, delay: float | None = None) -> None:
        """Go on later; as long as nobody said when, ever later."""
        self._stop_waiting()
        if delay is None:
            delay = self._shared.delay(self._reconnect, self._failures)
            self._failures += 1
        self._timer = self._shared.loop.call_later(delay, self._go)
