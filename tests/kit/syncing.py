"""A control plane's sync listener that does what a test says, exchange by exchange."""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec

from edgeplane.wire import SYNC_PATH, SyncRequest, Told

_SECONDS = 20.0


@dataclass(eq=False)
class Exchange:
    """An exchange that waits for its reply, and the connection it came on."""

    request: SyncRequest
    head: str
    writer: asyncio.StreamWriter

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """What is told, by request id."""
        read = [msgspec.json.decode(told.result) for told in self.request.results]
        return {one["requestId"]: one for one in read}

    def reply(
        self,
        *tasks: str,
        cancels: tuple[str, ...] = (),
        acknowledged: tuple[Told, ...] = (),
        pause: float = 0.0,
        wait: float = 30.0,
        reconnect: float = 0.01,
        **more: Any,
    ) -> None:
        """Ask for a reload under each of these ids; ``more`` goes into each task."""
        asked = [{"requestId": name, "type": "reload", "nodeId": 7, **more} for name in tasks]
        data = {
            "nodeId": 7,
            "tasks": asked,
            "cancels": [{"requestId": name} for name in cancels],
            "acknowledged": acknowledged,
            "waitSeconds": wait,
            "pauseSeconds": pause,
            "reconnectSeconds": reconnect,
        }
        self.answer(200, msgspec.json.encode({"code": 0, "message": "success", "data": data}))

    def answer(self, status: int, body: bytes = b"{}", *headers: str) -> None:
        """Answer anything."""
        lines = (f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}", *headers)
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def cut(self) -> None:
        """End its connection with a reset."""
        self.writer.transport.abort()


class SyncControl:
    """The listener; exchanges wait in a queue, in the order they came."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[Exchange] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self.port = 0

    async def listen(self, port: int = 0, address: str = "127.0.0.1") -> "SyncControl":
        """Begin to accept."""
        self._server = await asyncio.start_server(self._serve, address, port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def exchange(self) -> Exchange:
        """Wait for the next exchange."""
        async with asyncio.timeout(_SECONDS):
            return await self._came.get()

    @property
    def waiting(self) -> int:
        """How many exchanges have come that no test has looked at."""
        return self._came.qsize()

    async def close(self) -> None:
        """End everything."""
        assert self._server is not None
        self._server.close()
        for writer in self._connections:
            writer.transport.abort()
        await asyncio.gather(*filter(None, self._connections.values()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = asyncio.current_task()
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                assert head.startswith(f"POST {SYNC_PATH} HTTP/1.1\r\n")
                length = int(head.lower().partition("content-length:")[2].split()[0])
                request = msgspec.json.decode(await reader.readexactly(length), type=SyncRequest)
                self._came.put_nowait(Exchange(request, head, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
