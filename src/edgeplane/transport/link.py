"""A link: what is between this process and an agent that is connected to it.

It knows what its agent is asked, what it has told, and the exchange it holds open. It outlives
connections: what was asked and not answered is asked again over the next one, which is harmless,
because an agent acts once for a request id. Nothing here is durable, and nothing needs to be.
"""

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from edgeplane.transport.answers import read_result
from edgeplane.transport.base import Ending, Unanswered, Unreachable
from edgeplane.wire import (
    MAX_BATCH,
    MAX_BODY_BYTES,
    MAX_TOLD,
    CancelRequest,
    CancelState,
    ExecuteReply,
    ExecuteRequest,
    SyncReply,
    SyncRequest,
    Told,
)

Fence = tuple[str, int]  #: a request id and the number of its run

_MAX_EARLY: Final = 256  #: results of a link that nobody here has asked for
_EARLY_SECONDS: Final = 30.0  #: how long one is kept for whoever asks
_MAX_FORMER: Final = 8
_RIVAL_SECONDS: Final = 10  #: between the tries of an agent whose node another one speaks for
_AROUND_TASK: Final = 512  #: bytes of a task beside its payload, at most


@dataclass(frozen=True, slots=True)
class Pace:
    """How often agents come, in seconds; each is spread at random, so that they do not gather."""

    #: How long an exchange is held with nothing to do: an agent notices by its end that a control
    #: plane stands still while its kernel goes on, and has to within the time of a repair.
    hold: tuple[float, float] = (5.0, 8.0)
    absence: float = 5.0  #: how long an agent may stay away between exchanges
    returns: float = 400.0  #: agents a second that may come back at once
    least_return: float = 1.0
    most_return: float = 30.0


_random = Random()  # noqa: S311  spreads agents, guards nothing


class Paced(Protocol):
    """Whoever says how often agents come."""

    pace: Pace

    @property
    def reconnect(self) -> float:
        """Within how many seconds agents whose connection is lost may all come back."""


class Held(Protocol):
    """An exchange that waits for its reply."""

    def reply(self, reply: SyncReply) -> None:
        """Answer it; where its connection has ended, nothing happens."""

    def refuse(self, words: str, again: int) -> None:
        """Answer that its agent has no link, or none any more, and when to come again."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A run that an agent is asked for, and whoever waits for it."""

    request: ExecuteRequest
    future: "asyncio.Future[Ending]"
    sent: bool = False


@dataclass(slots=True)
class _Early:
    """A result that nobody has asked for here yet."""

    reply: ExecuteReply
    since: float


class Link:
    """One connected agent."""

    __slots__ = (
        "_acknowledged", "_asked", "_cancels", "_early", "_flushing", "_greeted", "_paced",
        "_settling", "_uncancelled", "_unsent", "adrift", "exchange", "former", "held",
        "held_until", "name", "node_id", "peer", "session", "since", "wait",
    )  # fmt: skip

    def __init__(self, paced: Paced, node_id: int, name: str, session: str, peer: str) -> None:
        self._paced = paced
        self.node_id = node_id
        self.name = name
        self.session = session
        self.peer = peer
        self.exchange = 0
        self.held: Held | None = None
        self.held_until = 0.0
        self.since = _now()  #: the loop's time of what last passed
        self.wait = paced.pace.hold[0]  #: seconds its exchange may be held
        self.former: tuple[str, ...] = ()  #: sessions that spoke for the node before
        self._asked: dict[Fence, _Asked] = {}
        self._unsent: dict[Fence, _Asked] = {}
        self._cancels: dict[str, tuple[CancelRequest, asyncio.Future[CancelState]]] = {}
        self._uncancelled: list[CancelRequest] = []
        self._early: dict[Fence, _Early] = {}
        self._settling: set[Fence] = set()  #: told, and not committed yet
        self._acknowledged: dict[Fence, None] = {}
        self._flushing = False
        self.adrift = False  #: its connection was lost: meanwhile its agent may be another's
        self._greeted = False  #: this session has had a reply: it knows its node and its times

    # the engine's side

    def ask(self, request: ExecuteRequest) -> "asyncio.Future[Ending]":
        """Ask the agent for a run; the future brings how it ends."""
        fence = _fence(request)
        future: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        early = self._early.pop(fence, None)
        if early is not None:
            self._settling.add(fence)
            future.set_result(early.reply)
            return future
        if former := self._asked.get(fence):
            self.give_up(former.request, "it was asked for again")
        self._acknowledged.pop(fence, None)  # asked for anew: an old word on it is no answer
        self._settling.discard(fence)
        self._asked[fence] = self._unsent[fence] = _Asked(request, future)
        self._flush_soon()
        return future

    def give_up(self, request: ExecuteRequest, why: str) -> None:
        """Wait no longer for a run, as this very request has asked for it."""
        fence = _fence(request)
        asked = self._asked.get(fence)
        if asked is None or asked.request is not request:
            return
        del self._asked[fence]
        self._unsent.pop(fence, None)
        if not asked.future.done():
            asked.future.set_result(self._without_word(asked, why))

    def cancel(self, order: CancelRequest) -> "asyncio.Future[CancelState]":
        """Have the agent keep a request from its effect; the future brings how it stands."""
        future: asyncio.Future[CancelState] = asyncio.get_running_loop().create_future()
        self._cancels[order.request_id] = (order, future)
        self._uncancelled.append(order)
        self._flush_soon()
        return future

    def forget_cancel(self, request_id: str) -> None:
        """Wait no longer for a cancel."""
        self._cancels.pop(request_id, None)

    def committed(self, fence: Fence) -> None:
        """Note that a result is committed: the agent need not tell it again."""
        self._settling.discard(fence)
        self._acknowledged[fence] = None
        if len(self._acknowledged) > MAX_TOLD:  # it is told again, and acknowledged then
            del self._acknowledged[next(iter(self._acknowledged))]

    # the agent's side

    def hear(self, request: SyncRequest, held: Held) -> None:
        """Take an exchange: what has ended, and where to send what there is to do."""
        self.since = _now()
        self.adrift = False
        self._take(request)
        if request.exchange <= self.exchange:
            held.reply(self._reply([], []))
            return
        self.exchange = request.exchange
        if request.again:
            self._send_again()
        until = self.since + self.wait  # as its agent was told; another is assigned with each reply
        self.let_go()
        self.held, self.held_until = held, until
        self._flush()
        if not self._greeted:
            self.let_go()

    def restart(self, session: str, peer: str) -> None:
        """Go on with an agent that has started anew, or with another that speaks for its node."""
        self.former = (*self.former[-_MAX_FORMER:], self.session)
        self.refuse(f"node: another agent speaks for {self.name} now, from {peer}", _RIVAL_SECONDS)
        self.session, self.peer, self.exchange = session, peer, 0
        self._greeted = False
        self._early.clear()
        self._acknowledged.clear()
        self._send_again()

    def let_go(self) -> None:
        """Answer the exchange that is held with nothing to do."""
        if held := self._release():
            held.reply(self._reply([], []))

    def refuse(self, words: str, again: int) -> None:
        """Answer the exchange that is held with a refusal, and when to come again."""
        if held := self._release():
            held.refuse(words, again)

    def lost(self, held: Held) -> None:
        """Note that the connection of an exchange has ended."""
        if self.held is held:
            self._release()
            self.adrift = True

    def look(self, now: float) -> bool:
        """Answer what was held long enough; return whether the agent is still there."""
        if self.held is None:
            return now - self.since < self._paced.pace.absence
        if now >= self.held_until:
            self.let_go()
        return True

    def end(self) -> None:
        """Tell whoever waits that the agent is gone."""
        for asked in list(self._asked.values()):
            self.give_up(asked.request, f"{self.peer} went away")
        for _, future in self._cancels.values():
            future.cancel()
        self._cancels.clear()

    # inside

    def _take(self, request: SyncRequest) -> None:
        for told in request.results:
            read = read_result(told.result)
            if read is not None:
                self._hear_result((read[0], told.attempt), read[1])
        for state in request.cancels:
            known = self._cancels.pop(state.request_id, None)
            if known is not None and not known[1].done():
                known[1].set_result(state.state)
        if self._early:
            self._forget_early()

    def _hear_result(self, fence: Fence, ending: Ending) -> None:
        """Give a result to whoever waits for it, or keep it for a while."""
        asked = self._asked.pop(fence, None)
        if asked is not None:
            self._unsent.pop(fence, None)
            if not asked.future.done():
                self._settling.add(fence)
                asked.future.set_result(ending)
        elif fence in self._settling or fence in self._acknowledged:
            return
        elif isinstance(ending, ExecuteReply):
            self._early.setdefault(fence, _Early(ending, self.since))
        else:  # refused to somebody else: whoever asks now may be answered otherwise
            self.committed(fence)

    def _forget_early(self) -> None:
        """Acknowledge what nobody asks for: its task has ended otherwise, or runs anew."""
        for fence, early in list(self._early.items()):
            if len(self._early) <= _MAX_EARLY and self.since - early.since < _EARLY_SECONDS:
                return
            del self._early[fence]
            self.committed(fence)

    def _send_again(self) -> None:
        self._unsent = dict(self._asked)
        self._uncancelled = [order for order, _ in self._cancels.values()]

    def _flush_soon(self) -> None:
        """Send once all that is asked for in this turn of the loop is together."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.held is None or not (self._unsent or self._uncancelled):
            return
        cancels, self._uncancelled = self._uncancelled[:MAX_BATCH], self._uncancelled[MAX_BATCH:]
        tasks = self._next_tasks()
        if held := self._release():
            held.reply(self._reply(tasks, cancels))

    def _next_tasks(self) -> list[ExecuteRequest]:
        found: list[ExecuteRequest] = []
        size = 0
        for asked in self._unsent.values():
            size += len(memoryview(asked.request.payload)) + _AROUND_TASK
            if found and (size > MAX_BODY_BYTES or len(found) >= MAX_BATCH):
                break
            asked.sent = True
            found.append(asked.request)
        for request in found:
            del self._unsent[_fence(request)]
        return found

    def _release(self) -> Held | None:
        held, self.held = self.held, None
        self.since = _now()
        return held

    def _reply(self, tasks: list[ExecuteRequest], cancels: list[CancelRequest]) -> SyncReply:
        acknowledged = [Told(*fence) for fence in self._acknowledged]
        self._acknowledged.clear()
        self.wait = _random.uniform(*self._paced.pace.hold)
        self._greeted = True
        return SyncReply(
            self.node_id, tasks, cancels, acknowledged, self.wait, 0.0, self._paced.reconnect
        )

    def _without_word(self, asked: _Asked, why: str) -> Ending:
        if asked.sent:
            return Unanswered(f"sent to {self.peer}, and no answer: {why}")
        return Unreachable(f"agent unreachable: not sent to {self.peer}: {why}")


def _fence(request: ExecuteRequest) -> Fence:
    return request.request_id, request.attempt


def _now() -> float:
    return asyncio.get_running_loop().time()
