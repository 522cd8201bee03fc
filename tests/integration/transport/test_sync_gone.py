"""Agents that have left before their exchange is looked at: nothing is theirs by it any more."""

import asyncio
import json
import socket

import pytest

from edgeplane.transport.link import Pace
from edgeplane.transport.links import Links
from edgeplane.transport.sync_door import SyncDoor
from edgeplane.wire import SYNC_PATH
from kit.sync_agent import TOKEN

PATIENCE = 10


class Place:
    """A door on a free port that admits node 7, when the test lets it."""

    def __init__(self):
        self.links = Links(Pace(hold=(60.0, 60.0)))
        self.door = SyncDoor(self.links, TOKEN, self.admit)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.admitted = 0
        self.gone = asyncio.Queue()
        self.links.ended = self.gone.put_nowait

    async def admit(self, name):
        """Admit whoever comes."""
        assert name == "node-1"
        self.admitted += 1
        self.asked.set()
        await self.open.wait()
        return 7

    def call(self, exchange=1):
        """Connect and send an exchange, without a turn of the loop between; return the socket."""
        made = socket.create_connection(self.listener.getsockname())
        body = json.dumps({"node": "node-1", "session": "session-1", "exchange": exchange}).encode()
        head = (
            f"POST {SYNC_PATH} HTTP/1.1\r\nHost: control\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        made.sendall(head.encode() + body)
        return made

    async def until(self, condition):
        """Wait until something holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
async def place():
    """A door."""
    made = Place()
    await made.door.listen(made.listener)
    yield made
    await made.door.stop()


async def test_who_has_left_meanwhile_is_not_admitted(place):
    """A process that stood still reads an old exchange first; its agent is elsewhere by now."""
    place.open.set()
    place.call().close()
    await place.until(lambda: place.door.exchanges == 1 and not place.door.connections)
    assert place.admitted == 0
    assert len(place.links) == 0


async def test_who_leaves_while_it_is_admitted_is_let_go(place):
    """Once, and at once: its mailbox is this replica's, and the agent nobody's."""
    with place.call():
        await asyncio.wait_for(place.asked.wait(), PATIENCE)
    await place.until(lambda: not place.door.connections)
    place.open.set()
    assert await asyncio.wait_for(place.gone.get(), PATIENCE) == 7
    await asyncio.sleep(0)
    assert (place.admitted, len(place.links)) == (1, 0)


async def test_who_has_closed_its_end_holds_nothing(place):
    """A task put into that exchange would be sent to nobody."""
    place.open.set()
    with place.call() as first:
        await place.until(lambda: len(place.links) == 1)
        link = place.links.of(7)
        await place.until(lambda: link.held is None)  # the first is answered at once
        first.setblocking(False)
        with place.call(exchange=2) as second:
            await place.until(lambda: link.held is not None)
            second.shutdown(socket.SHUT_WR)
            await place.until(lambda: link.held is None)
    assert place.gone.empty()
