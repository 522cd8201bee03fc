"""An agent that connects out, exchange by exchange, as the test says."""

import asyncio
import json
from typing import Any

import msgspec

from edgeplane.http1.outgoing import Answer, Connection
from edgeplane.wire import SYNC_PATH, SyncReply

TOKEN = "an-agent-token-for-the-tests"
_replies = msgspec.json.Decoder(SyncReply)


class SyncAgent:
    """One agent; each of its exchanges goes over a connection of its own."""

    def __init__(self, port: int, node: str = "node-1", session: str = "session-1") -> None:
        self.port = port
        self.node = node
        self.session = session
        self.exchange = 0
        self.connections: list[Connection] = []

    async def post(
        self,
        body: bytes,
        *,
        path: str = SYNC_PATH,
        method: str = "POST",
        token: str = TOKEN,
        seconds: float = 10.0,
    ) -> Answer:
        """Send whatever it is; return the answer."""
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(1 << 22), "127.0.0.1", self.port
        )
        self.connections.append(connection)
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: control\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return await connection.send(head.encode() + body, seconds)

    async def ask(self, **given: Any) -> Answer:
        """Make an exchange; return the answer, whatever it is."""
        self.exchange += 1
        body = {"node": self.node, "session": self.session, "exchange": self.exchange, **given}
        return await self.post(json.dumps(body).encode())

    async def sync(self, **given: Any) -> SyncReply:
        """Make an exchange that succeeds; return its reply."""
        answer = await self.ask(**given)
        assert answer.status == 200, answer.body
        return _replies.decode(msgspec.json.encode(json.loads(answer.body)["data"]))

    def hold(self, **given: Any) -> "asyncio.Task[SyncReply]":
        """Begin an exchange; the task brings its reply."""
        return asyncio.create_task(self.sync(**given))

    def restart(self, session: str) -> None:
        """Go on as a new process would."""
        self.cut()
        self.session, self.exchange = session, 0

    def cut(self) -> None:
        """End all connections."""
        for connection in self.connections:
            connection.abort()
        self.connections.clear()


def ended(request_id: str, attempt: int = 1, status: str = "success") -> dict[str, Any]:
    """Return a result as it is told."""
    result = {"requestId": request_id, "status": status, "message": f"{request_id} ended"}
    return {"attempt": attempt, "result": result}
