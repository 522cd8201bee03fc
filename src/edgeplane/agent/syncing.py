"""The agent's side of the sync transport: it connects out, tells what has ended, and asks for work.

An exchange is a request that the control plane holds until there is something to do. One is open
at all times; a second one, newer, goes out when something ends meanwhile. All that goes wrong ends
the *talk* with this control plane, and another begins a while later with the next one.
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from ssl import SSLContext
from typing import Final

import msgspec

from edgeplane.agent.comeback import Comeback, News, Refused, within
from edgeplane.agent.control_urls import ControlUrl
from edgeplane.agent.executions import Executions
from edgeplane.agent.orders import Orders
from edgeplane.agent.outbox import Load, Outbox
from edgeplane.agent.requests import Reply, read_error, read_reply
from edgeplane.agent.uplink import NotReached, ReplyLost, Uplink
from edgeplane.http1.outgoing import Answer
from edgeplane.model.errors import DomainError
from edgeplane.observe.crashpoints import crash_point
from edgeplane.wire import SyncRequest

MAX_OPEN: Final = 2  #: exchanges at the same time
MOMENT_SECONDS: Final = 0.02  #: after a reply, for what has just begun: it may end at once
LEISURE_SECONDS: Final = 0.02  #: after a reply that has nothing in it: it may come at once
FIRST_SECONDS: Final = 60.0  #: for the first answer in a talk
TURN_SECONDS: Final = 10.0  #: the same, where there is another control plane to turn to
SILENCE_SECONDS: Final = 4.0  #: beyond what a reply says
LAST_SECONDS: Final = 2.0  #: for what is told before the agent ends

_OK: Final = 200

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who connects out, and where to."""

    node: str  #: the name of its node
    urls: Sequence[ControlUrl]
    token: str
    version: str
    tls: SSLContext | None  #: for https; None where no URL needs it


class Syncing:
    """One agent that connects out, from its start to its end.

    Args:
        speaker: who it is.
        executions: carries out what is asked.
        on_node: called with the id of its node, once, when a control plane has told it.

    """

    def __init__(
        self, speaker: Speaker, executions: Executions, on_node: Callable[[int], None]
    ) -> None:
        self._speaker = speaker
        self._executions = executions
        self._on_node: Callable[[int], None] | None = on_node
        self._stirred = asyncio.Event()  #: an exchange is answered, or something is to be told
        self._outbox = Outbox(self._stirred.set)
        self._orders = Orders(executions, self._outbox)
        self._comeback = Comeback(SystemRandom())
        self._news = News(_log)
        self._session = secrets.token_hex(16)
        self._exchanges = 0
        self._again = False  #: a reply was lost: what it brought has to be sent again
        self._first = FIRST_SECONDS if len(speaker.urls) == 1 else TURN_SECONDS
        self._patience = self._first  #: for the answer of an exchange
        self._pause = 0.0  #: before the next exchange
        self._begun: Sequence[asyncio.Task[None]] = ()  #: by the last reply
        self._connected = False
        self._uplink = self._uplink_to(speaker.urls[0])

    async def run(self, asked_to_stop: asyncio.Event, grace: float) -> None:
        """Talk until asked to stop; then let what runs finish, for ``grace`` seconds, and tell."""
        talking = asyncio.create_task(self._talk_for_ever(), name="sync")
        await asked_to_stop.wait()
        _log.info("stopping; what runs may finish")
        self._orders.close()
        talking.cancel()
        await asyncio.wait((talking,))
        await self._executions.close(grace)
        await self._orders.ended(LAST_SECONDS)
        await self._tell_the_rest()

    async def _talk_for_ever(self) -> None:
        for url in itertools.cycle(self._speaker.urls):
            self._uplink = self._uplink_to(url)
            try:
                await self._talk()
            except (NotReached, ReplyLost, Refused) as trouble:
                self._news.bad(url, trouble)
                seconds = self._comeback.seconds(trouble)
            except Exception as fault:  # noqa: BLE001  a fault of ours must not leave a node alone
                _log.exception("the exchange with %s failed unexpectedly", url)
                seconds = self._comeback.seconds(ReplyLost(str(fault)))
            finally:
                self._uplink.close()
                self._outbox.nothing_arrived()
            await asyncio.sleep(seconds)

    async def _talk(self) -> None:
        """Exchange after exchange with one control plane; ends with what has gone wrong."""
        self._connected = False
        self._patience = max(self._first, self._patience)
        opened: set[asyncio.Task[None]] = set()
        try:
            while True:
                exchange = asyncio.create_task(self._exchange(self._outbox.load()))
                exchange.add_done_callback(lambda _: self._stirred.set())
                opened.add(exchange)
                await self._until_due(opened)
        finally:
            for exchange in opened:
                exchange.cancel()
            await asyncio.gather(*opened, return_exceptions=True)

    async def _until_due(self, opened: set[asyncio.Task[None]]) -> None:
        """Return when it is time for another exchange; raise what one has ended in."""
        while True:
            self._stirred.clear()
            for exchange in [one for one in opened if one.done()]:
                opened.remove(exchange)
                exchange.result()
            if not opened:
                await self._rest()
                return
            if self._outbox.untold and len(opened) < MAX_OPEN:
                return
            await self._stirred.wait()

    async def _rest(self) -> None:
        """Wait as long as the reply says, and a moment for what it began, to tell that too."""
        await asyncio.sleep(self._pause)
        if running := [job for job in self._begun if not job.done()]:
            await asyncio.wait(running, timeout=MOMENT_SECONDS)

    async def _exchange(self, load: Load) -> None:
        """Tell what there is, wait for the reply, and begin what it asks for."""
        again, self._again = self._again, False
        body = self._body(load, again=again)
        if load.results:
            crash_point("agent.before_tell")
        try:
            reply = _read(await self._uplink.post(body, self._patience))
        except (NotReached, Refused):
            self._again = self._again or again
            raise
        except BaseException:  # the reply is lost, with a connection that ended or that we end
            self._again = True
            raise
        self._outbox.arrived(load, reply.acknowledged)
        if load.results:
            crash_point("agent.after_tell")
        self._follow(reply)

    def _body(self, load: Load, *, again: bool) -> bytes:
        self._exchanges += 1
        return _encoder.encode(
            SyncRequest(
                node=self._speaker.node,
                session=self._session,
                exchange=self._exchanges,
                again=again,
                version=self._speaker.version,
                results=load.results,
                cancels=load.cancels,
            )
        )

    def _follow(self, reply: Reply) -> None:
        """Do what a reply asks for, and keep to its times."""
        self._comeback.replied(reply)
        self._patience = within(reply.wait_seconds) + SILENCE_SECONDS
        self._pause = within(reply.pause_seconds)
        if not self._connected:
            self._connected = True
            self._news.good(f"connected to control plane {self._uplink.url}")
        if self._on_node is not None:
            self._on_node(reply.node_id)
            self._on_node = None
        self._begun = self._orders.take(reply.tasks, reply.cancels)
        if not (reply.tasks or reply.cancels or reply.acknowledged):
            self._pause = max(self._pause, LEISURE_SECONDS)

    async def _tell_the_rest(self) -> None:
        """Tell what is not acknowledged, and wait a little for a sign that it has arrived."""
        self._uplink = self._uplink_to(self._uplink.url)
        with suppress(NotReached, ReplyLost, Refused, TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                while self._outbox.untold:
                    await self._tell_for_sure()
        self._uplink.close()

    async def _tell_for_sure(self) -> None:
        """Tell, and have it answered at once: an exchange is, when there is a newer one."""
        self._again = False  # nothing is begun any more
        telling = asyncio.create_task(self._exchange(self._outbox.load()))
        newer = asyncio.create_task(self._exchange(Load([], [])))
        try:
            await telling
        finally:
            telling.cancel()
            newer.cancel()
            await asyncio.gather(telling, newer, return_exceptions=True)

    def _uplink_to(self, url: ControlUrl) -> Uplink:
        return Uplink(url, self._speaker.token, self._speaker.tls)


def _read(answer: Answer) -> Reply:
    """Return a reply; raise Refused for an error, ReplyLost for what is not understood."""
    if answer.status != _OK:
        raise Refused(answer.status, read_error(answer.body), answer.retry_after)
    try:
        return read_reply(answer.body)
    except DomainError as error:
        raise ReplyLost(f"its answer is not understood: {error.message}") from error
