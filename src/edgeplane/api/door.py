"""The outermost layer: bounds on bodies, a request id on every answer, and the hot route.

``POST /agent-tasks/create`` is answered here, without the framework between: the same reading,
rules and envelope at three times the rate (docs/adr/0002). Everything else goes on to the routes.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from fastapi import Response

from edgeplane.api import errors, metrics, tasks
from edgeplane.api.envelope import JSON, refuse
from edgeplane.api.parts import Parts
from edgeplane.api.tally import Tally
from edgeplane.model.errors import DomainError, Invalid, NotAllowed, TooLarge, TooMany
from edgeplane.observe.metrics import CONTENT_TYPE
from edgeplane.services.monitoring import Monitoring
from edgeplane.wire import MAX_BODY_BYTES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 30.0  #: how long a body may take to arrive
MAX_BODIES_BYTES = 128 << 20  #: of bodies that are here and not answered yet, of all requests
_TIMEOUT = 408
_JSON = (b"content-type", JSON.encode())


class _ClientGone(Exception):
    """The client went away before its body was here."""


class Door:
    """An ASGI application around the routes."""

    def __init__(self, app: App, parts: Parts) -> None:
        self._app = app
        self._parts = parts
        self._bodies = _Bodies()
        self._tally = Tally(parts.metrics)
        self._monitoring = Monitoring(parts.database, parts.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.monotonic()
        request_id = secrets.token_hex(8)
        held = _Held(self._bodies)
        answer = _Answer(send, request_id, held)
        try:
            if scope["path"] == tasks.CREATE_PATH and scope["method"] == "POST":
                body = await _read_body(scope, receive, held)
                await self._create(scope, body, answer)
            elif scope["path"] == metrics.PATH:
                await self._metrics(scope, answer)
            else:
                again = _replay(await _read_body(scope, receive, held), receive)
                await self._app(scope, again, answer)
        except _ClientGone:
            return
        except DomainError as error:
            await answer.whole(refuse(error))
        except Exception as error:  # noqa: BLE001 (the last stop: told and logged)
            if not answer.started:
                await answer.whole(errors.unexpected(error, request_id))
        finally:
            held.release()
            self._tally.answered(scope["path"], answer.status, time.monotonic() - begun)

    async def _create(self, scope: Scope, body: bytes, answer: "_Answer") -> None:
        if scope["query_string"]:
            raise Invalid("no query parameters are known here")
        authorization = _header(scope["headers"], b"authorization")
        created = await tasks.create_hot(self._parts, authorization, body)
        await answer.bytes(200, created)

    async def _metrics(self, scope: Scope, answer: "_Answer") -> None:
        peer = scope["client"][0] if scope["client"] else None
        token = self._parts.metrics_token
        metrics.check_caller(token, scope["method"], peer, dict(scope["headers"]))
        await answer.whole(Response(await self._monitoring.text(), media_type=CONTENT_TYPE))


class _Bodies:
    """How many bytes of bodies are here, of all requests that are under way."""

    size = 0


class _Held:
    """One request's part of them."""

    def __init__(self, bodies: _Bodies) -> None:
        self._bodies = bodies
        self._size = 0

    def add(self, part: bytes) -> None:
        """Count a part; raise TooMany when there is no room for it."""
        if self._bodies.size + len(part) > MAX_BODIES_BYTES:
            raise TooMany("too many large requests are under way", retry_after=1)
        self._bodies.size += len(part)
        self._size += len(part)

    def release(self) -> None:
        """Let go of all."""
        self._bodies.size -= self._size
        self._size = 0


class _Answer:
    """Sends an answer, with its request id."""

    def __init__(self, send: Send, request_id: str, held: _Held) -> None:
        self._send = send
        self._held = held
        self._request_id = (b"x-request-id", request_id.encode())
        self.status = 0  #: once it has started

    @property
    def started(self) -> bool:
        """Whether the client was sent anything."""
        return bool(self.status)

    async def __call__(self, message: Message) -> None:
        """Pass on what the routes send; an answer may go on for as long as its reader stays."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._held.release()
            message["headers"] = [*message.get("headers", ()), self._request_id]
        await self._send(message)

    async def whole(self, response: Response) -> None:
        """Send a response made elsewhere."""
        await self(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": list(response.raw_headers),
            }
        )
        await self._send({"type": "http.response.body", "body": bytes(response.body)})

    async def bytes(self, status: int, body: bytes) -> None:
        """Send a body of ours."""
        self.status = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    _JSON,
                    (b"content-length", str(len(body)).encode()),
                    self._request_id,
                ],
            }
        )
        await self._send({"type": "http.response.body", "body": body})


class _TooSlow(NotAllowed):
    """A body that did not arrive in time."""

    status = _TIMEOUT


async def _read_body(scope: Scope, receive: Receive, held: _Held) -> bytes:
    """Read a body whole, within its bounds of size and time."""
    declared = _header(scope["headers"], b"content-length")
    if declared is not None and declared.isdigit() and int(declared[:12]) > MAX_BODY_BYTES:
        raise TooLarge(f"body: at most {MAX_BODY_BYTES} bytes")
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                part, more = await _receive(receive)
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise TooLarge(f"body: at most {MAX_BODY_BYTES} bytes")
                held.add(part)
                parts.append(part)
    except TimeoutError:
        raise _TooSlow(f"body: did not arrive within {BODY_SECONDS:g} s") from None
    return b"".join(parts)


async def _receive(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise _ClientGone
    return message.get("body", b""), message.get("more_body", False)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand the body on, once, as if it came now; after it, what really comes."""
    left = [body]

    async def again() -> Message:
        if not left:
            return await receive()
        return {"type": "http.request", "body": left.pop(), "more_body": False}

    return again


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None
