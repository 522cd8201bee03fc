"""An agent that answers as scripted, byte by byte, on a loopback port."""

import asyncio
import contextlib
import json
import socket
from collections import deque
from typing import Any

from edgeplane.transport.base import Address
from edgeplane.wire import CANCEL_PATH, EXECUTE_PATH, HEALTH_PATH, ExecuteRequest


def request(request_id="r-1", **given):
    """Make a request to deliver."""
    return ExecuteRequest(request_id=request_id, type="reload", **given)


def reply(request_id="r-1", status="success", message="done", code=0):
    """Make the body of an agent's answer."""
    data = {"requestId": request_id, "status": status, "message": message}
    return json.dumps({"code": code, "message": "success", "data": data}).encode()


def http(status=200, body=None, *headers, version="1.1"):
    """Make an answer with a length."""
    content = reply() if body is None else body
    lines = [f"HTTP/{version} {status} Words", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def refusal(code, message="the agent's own words", data=None):
    """Make an error's body."""
    return json.dumps({"code": code, "message": message, "data": data}).encode()


def item(request_id, status="success", message="done"):
    """Make one result of a batch."""
    return {"requestId": request_id, "status": status, "message": message}


def refused(request_id, http_status, code, error="the agent's own words", **more):
    """Make one result of a batch that is a refusal."""
    return {
        "requestId": request_id,
        "httpStatus": http_status,
        "code": code,
        "error": error,
        **more,
    }


def results(*items):
    """Make the body of a batch's answer."""
    return json.dumps({"code": 0, "message": "success", "data": {"results": items}}).encode()


def state(request_id="r-1", told="cancelled"):
    """Make the body of a cancel's answer."""
    data = {"requestId": request_id, "state": told}
    return json.dumps({"code": 0, "message": "success", "data": data}).encode()


def well(**told):
    """Make the body in which an agent says that it is well."""
    data = {"version": "1.0", "uptimeSeconds": 1.5, **told}
    return json.dumps({"code": 0, "message": "success", "data": data}).encode()


class Hangup:
    """A step of the script: say this much and close, with a reset if asked."""

    def __init__(self, said=b"", *, reset=False):
        self.said = said
        self.reset = reset


class Silence:
    """A step of the script: read the request and say nothing more than this."""

    def __init__(self, said=b""):
        self.said = said


class Scripted:
    """Takes one step of its script for each request; without any left, it succeeds.

    Args:
        batches: whether it knows them; one from before does not, nor cancels.

    """

    def __init__(self, *, batches=True):
        self.batches = batches
        self.script: deque[Any] = deque()
        self.heads = []
        self.bodies = []
        self.connections = []
        self.gone = asyncio.Event()  #: a client has ended a connection
        self.asked = asyncio.Event()  #: a request has arrived
        self._server: Any = None
        self.address = Address("127.0.0.1", 0)  #: where it listens, once it does

    async def start(self, host="127.0.0.1", port=0):
        """Listen; return the address."""
        self._server = await asyncio.start_server(self._serve, host, port)
        return Address(host, self._server.sockets[0].getsockname()[1])

    async def stop(self):
        """Close every connection and the port."""
        self._server.close()
        for writer in self.connections:
            writer.transport.abort()
        for writer in self.connections:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await self._server.wait_closed()

    def hang_up(self):
        """Close all connections politely, as an agent does with idle ones."""
        for writer in self.connections:
            writer.close()

    async def _serve(self, reader, writer):
        self.connections.append(writer)
        try:
            while await self._step(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()

    async def _step(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        body = await reader.readexactly(int(lines.get("Content-Length", "0")))
        self.heads.append((head.split("\r\n")[0], lines))
        self.bodies.append(body)
        self.asked.set()
        path = head.split()[1]
        step = (
            self.script.popleft() if self.script else self._usual(path, json.loads(body or b"null"))
        )
        if isinstance(step, Hangup):
            return await self._hang_up(writer, step)
        if isinstance(step, Silence):
            writer.write(step.said)
            await reader.readexactly(1)
        writer.write(step)
        await writer.drain()
        return True

    def paths(self):
        """Return the paths that were asked, in order."""
        return [line.split()[1] for line, _ in self.heads]

    def _usual(self, path, asked):
        if path == HEALTH_PATH:
            return http(200, well())
        if path == EXECUTE_PATH:
            return http(200, reply(asked["requestId"]))
        if not self.batches:
            return http(404, refusal(3001, "path: nothing is here"))
        if path == CANCEL_PATH:
            return http(200, state(asked["requestId"]))
        return http(200, results(*(item(task["requestId"]) for task in asked["tasks"])))

    async def _hang_up(self, writer, step):
        writer.write(step.said)
        await writer.drain()
        if step.reset:
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        return False
