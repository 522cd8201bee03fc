"""Presence: who is there. This replica, among others; and the agents that are connected to it.

An agent that comes is admitted in a transaction that takes its node's mailbox over for this
replica; one that goes gives it free for whoever it goes to. While this replica runs it says so;
one that says nothing any more loses its agents' mailboxes to the others.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Final

from edgeplane.model.errors import (
    DatabaseAway,
    DomainError,
    Internal,
    NotFound,
    TooMany,
    WrongState,
)
from edgeplane.model.nodes import NodeTransport
from edgeplane.observe.crashpoints import crash_point
from edgeplane.store import presence
from edgeplane.store.database import Database
from edgeplane.store.workers import Tx
from edgeplane.transport.links import Links

MOST_WAITING: Final = 20_000  #: agents that wait to be admitted
MOST_AT_ONCE: Final = 500  #: comings and goings in one transaction
BEAT_SECONDS: Final = 2.0
SILENT_SECONDS: Final = 8.0  #: a replica not heard of for so long is taken for dead
COMPARE_SECONDS: Final = 5.0  #: between looks at whether the table still says the same

_AGAIN_SECONDS: Final = 0.5  #: after a transaction that failed

log = logging.getLogger(__name__)
_Waiting = tuple[str, "asyncio.Future[int]"]


class Presence:
    """Admits agents, lets them go, and keeps this replica known.

    Args:
        database: where it is written.
        links: to the agents that are connected here.
        replica: this process's own name.
        tell: told the nodes that have news.

    """

    def __init__(
        self,
        database: Database,
        links: Links,
        replica: str,
        tell: Callable[[Iterable[int]], None],
    ) -> None:
        self._database = database
        self._links = links
        self._replica = replica
        self._tell = tell
        self._coming: list[_Waiting] = []
        self._going: set[int] = set()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._compare_at = 0.0
        self._heard_at = 0.0  #: the loop's time of the last beat that was committed
        self._jitter = Random()  # noqa: S311  spreads beats, guards nothing
        links.ended = self._let_go

    def start(self) -> None:
        """Start both loops; once."""
        if not self._tasks:
            self._heard_at = asyncio.get_running_loop().time()
            self._tasks = [
                asyncio.create_task(self._run(self._doorkeep), name="presence"),
                asyncio.create_task(self._run(self._beat), name="beat"),
            ]

    async def stop(self) -> None:
        """Stop, and give all mailboxes free at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, future in self._coming:
            future.cancel()
        with contextlib.suppress(DatabaseAway):
            await self._database.write(lambda tx: presence.leave(tx, self._replica))

    async def admit(self, name: str) -> int:
        """Admit the agent of the node of this name; return the node's id, once it is committed.

        Raises:
            NotFound: no node has that name.
            WrongState: the node is called by push.
            TooMany: too many wait already.
            DatabaseError: it could not be written.

        """
        if len(self._coming) >= MOST_WAITING:
            raise TooMany("too many agents are coming; come back later", retry_after=5)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._coming.append((name, future))
        self._news.set()
        return await future

    def _let_go(self, node_id: int) -> None:
        self._going.add(node_id)
        self._news.set()

    async def _run(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step again and again; an error of one is told, and the next comes."""
        while True:
            try:
                await step()
            except DatabaseAway:
                await asyncio.sleep(self._jitter.uniform(0, _AGAIN_SECONDS))
            except Exception:
                log.exception("presence failed; going on")
                await asyncio.sleep(self._jitter.uniform(0, 2 * _AGAIN_SECONDS))

    async def _doorkeep(self) -> None:
        """Admit those who have come and let go those who went, together."""
        await self._news.wait()
        coming, self._coming = self._coming[:MOST_AT_ONCE], self._coming[MOST_AT_ONCE:]
        going = {n for n in list(self._going)[:MOST_AT_ONCE] if n not in self._links}
        self._going -= going
        self._going = {n for n in self._going if n not in self._links}
        names = {name for name, _ in coming}
        try:
            found = await self._database.write(lambda tx: self._change(tx, names, going))
        except BaseException as error:
            self._going |= going
            told = error if isinstance(error, DomainError) else Internal("could not be admitted")
            for _, future in coming:
                if not future.done():
                    future.set_exception(told)
            raise
        crash_point("attach.after_commit")
        if not (self._coming or self._going):
            self._news.clear()
        for name, future in coming:
            if not future.done():
                _answer(future, name, found.get(name))
        # Behind those whose links are opened now: what waits for them is due.
        asyncio.get_running_loop().call_soon(self._tell, {node.id for node in found.values()})

    def _change(self, tx: Tx, names: set[str], going: set[int]) -> dict[str, presence.Named]:
        found = presence.named(tx, names) if names else {}
        come = {n.id for n in found.values() if n.transport is NodeTransport.SYNC}
        presence.detach(tx, going - come, self._replica)
        presence.attach(tx, come, self._replica)
        return found

    async def _beat(self) -> None:
        """Say that this replica runs, take note of those that do not; compare now and then."""
        loop = asyncio.get_running_loop()
        try:
            lost = await self._database.write(self._say)
        except DatabaseAway:
            if loop.time() - self._heard_at > SILENT_SECONDS:
                self._send_away()
            raise
        self._heard_at = loop.time()
        if lost:
            log.warning("replicas not heard of for %g s: %s", SILENT_SECONDS, ", ".join(lost))
            self._tell(())
        if loop.time() >= self._compare_at:
            self._compare_at = loop.time() + COMPARE_SECONDS
            await self._compare()
        await asyncio.sleep(BEAT_SECONDS * self._jitter.uniform(0.8, 1.2))

    def _say(self, tx: Tx) -> list[str]:
        presence.beat(tx, self._replica)
        return [each for each in presence.bury(tx, SILENT_SECONDS) if each != self._replica]

    async def _compare(self) -> None:
        """End links whose nodes are another replica's by now, or called by push, or deleted."""
        linked = {link.node_id for link in self._links}
        attached = await self._database.read(lambda tx: presence.attached(tx, self._replica))
        for node_id in linked - attached:
            if link := self._links.of(node_id):
                self._links.close(link, "is served elsewhere now, or not by sync any more")
        self._going |= {n for n in attached - linked if n not in self._links}
        if self._going:
            self._news.set()

    def _send_away(self) -> None:
        """Let agents try another replica: this one can promise nothing."""
        for link in self._links:
            self._links.close(link, "this control plane cannot reach its database")


def _answer(future: "asyncio.Future[int]", name: str, node: presence.Named | None) -> None:
    if node is None:
        future.set_exception(
            NotFound(f"node: no node is named {name}: create it, with transport sync")
        )
    elif node.transport is not NodeTransport.SYNC:
        future.set_exception(
            WrongState(
                f"node: {name} is set to push: `edgeplane node update {name} --transport sync`"
            )
        )
    else:
        future.set_result(node.id)
