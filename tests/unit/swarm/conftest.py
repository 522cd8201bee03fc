"""A swarm inside the test's own event loop."""

import asyncio
import socket
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from edgeplane.swarm import push
from edgeplane.swarm.addresses import address_of
from edgeplane.swarm.effects import Effects
from edgeplane.swarm.faults import Dice, Faults, Point
from edgeplane.swarm.fleet import Fleet
from edgeplane.swarm.journal import DurableJournal
from edgeplane.swarm.journal_file import JournalFile
from edgeplane.swarm.tally import Tally
from edgeplane.transport.base import Address
from edgeplane.transport.push import PushTransport
from edgeplane.wire import ExecuteReply, ExecuteRequest

TOKEN = "an-agent-token-for-tests"


class SmallSwarm:
    """Three agents with a real journal, listener and client; ``close`` keeps the files."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        file = JournalFile(folder / "journal.db")
        self.file = folder / "effects"
        self.effects = Effects(self.file, file.begun())
        self.journal = DurableJournal(file)
        self.tally = Tally()
        self.fleet = Fleet(3, self.journal, self.effects, faults, self.tally)
        self.client = PushTransport(TOKEN)
        self.port = 0
        self._end = lambda: None

    async def listen(self) -> "SmallSwarm":
        """Begin to accept."""
        listener = socket.create_server(("0.0.0.0", 0))
        self.port = listener.getsockname()[1]
        self.door = push.Door(self.fleet, TOKEN, self.tally)
        self._end = await push.listen(self.door, listener)
        return self

    async def ask(
        self, request_id: str, kind: str = "reload", agent: int = 1, **more
    ) -> ExecuteReply:
        """Deliver a request."""
        request = ExecuteRequest(request_id, kind, **more)
        return await self.client.deliver(Address(address_of(agent), self.port), request, 20)

    async def raw(self, sent: bytes, agent: int = 1) -> bytes:
        """Send bytes; return all that comes until the other end closes."""
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(address_of(agent), self.port)
            with closing(writer):
                writer.write(sent)
                return await reader.read()

    async def back(self, agent: int = 1) -> None:
        """Wait until a killed agent is there again."""
        async with asyncio.timeout(20):
            while not self.told("back", agent):
                await asyncio.sleep(0.002)

    def told(self, event: str, agent: int | None = None) -> list[str]:
        """Return the request ids of the lines about an event."""
        lines = map(msgspec.json.decode, self.file.read_bytes().splitlines())
        return [
            line.get("requestId", "")
            for line in lines
            if line["event"] == event and agent in {None, *_numbers(line["agent"])}
        ]

    async def close(self) -> None:
        """End everything."""
        await self.client.close()
        self._end()
        self.journal.close()
        self.effects.close()


def seed_that_kills(point: Point) -> int:
    """Return a seed that kills the first agent in its first turn, at a point, and nobody else."""
    for seed in range(10_000):
        dice = Dice(Faults(kill=0.3, seed=seed))
        others = [dice.fate(1, turn).dies for turn in (2, 3)] + [dice.fate(2, 1).dies]
        if dice.fate(1, 1).dies is point and others == [None] * 3:
            return seed
    raise AssertionError


def _numbers(address: str) -> list[int]:
    return [number for number in range(1, 4) if address_of(number) == address]


@pytest.fixture
async def swarm(tmp_path):
    """Return a function that starts a small swarm, each time on the same files."""
    made: list[SmallSwarm] = []

    async def start(**faults) -> SmallSwarm:
        if made:
            await made.pop().close()
        made.append(await SmallSwarm(tmp_path, Faults(**faults)).listen())
        return made[-1]

    yield start
    for left in made:
        await left.close()
