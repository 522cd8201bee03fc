"""Following an event stream of an application in this process."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

PATIENCE = 15.0


class Follower:
    """A stream as a client has it: what came, the last id taken, whether it has ended."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.last_id: int | None = None
        self.ended = False
        self.answered = asyncio.Event()
        self.text = ""
        self.room = asyncio.Event()  #: cleared, nothing more is taken
        self.room.set()
        self.stuck = asyncio.Event()  #: something waits to be taken
        self._blocks: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._sent_request = False

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()

    async def receive(self) -> dict[str, Any]:
        """Give the application the request, then its end."""
        if not self._sent_request:
            self._sent_request = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """Take what the application sends."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.answered.set()
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        if not self.room.is_set():
            self.stuck.set()
            await self.room.wait()
        self.text += message.get("body", b"").decode()
        self.ended = not message.get("more_body", False)
        while "\n\n" in self.text:
            block, _, self.text = self.text.partition("\n\n")
            self._take(block)

    def _take(self, block: str) -> None:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        self._blocks.put_nowait(fields)

    async def block(self) -> dict[str, str]:
        """Return the next block, whatever it is."""
        async with asyncio.timeout(PATIENCE):
            fields = await self._blocks.get()
        if "id" in fields:
            self.last_id = int(fields["id"])
        return fields

    async def next(self) -> dict[str, Any]:
        """Return the data of the next event."""
        while (fields := await self.block()).get("data", "{}") == "{}":
            pass
        found: dict[str, Any] = json.loads(fields["data"])
        return found

    async def take(self, number: int) -> list[tuple[str, int]]:
        """Return type and task of the next events."""
        found = [await self.next() for _ in range(number)]
        return [(event["type"], event["taskId"]) for event in found]


@asynccontextmanager
async def following(
    app: Any, token: str | None, query: str = "", last: int | None = None
) -> AsyncIterator[Follower]:
    """Follow; the stream has begun when this is entered, or was refused."""
    follower = Follower()
    headers = [(b"host", b"control.test")]
    if token:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    if last is not None:
        headers.append((b"last-event-id", str(last).encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/v1/events",
        "raw_path": b"/api/v1/events",
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.7", 40_000),
        "server": ("control.test", 80),
    }
    serving = asyncio.create_task(app(scope, follower.receive, follower.send))
    try:
        if not (await _begun(follower, serving)):
            await serving
        yield follower
    finally:
        follower.leave()
        follower.room.set()
        async with asyncio.timeout(PATIENCE):
            await serving


async def _begun(follower: Follower, serving: "asyncio.Task[None]") -> bool:
    answered = asyncio.create_task(follower.answered.wait())
    await asyncio.wait({answered, serving}, return_when=asyncio.FIRST_COMPLETED)
    answered.cancel()
    return follower.status == 200
