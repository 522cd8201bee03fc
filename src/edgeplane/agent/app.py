"""The HTTP door: requests become calls, answers become envelopes; no rule of execution lives here.

Plain ASGI, because an agent answers a few paths and should start at once and stay small.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from edgeplane.agent.batches import Batches
from edgeplane.agent.executions import Executions
from edgeplane.agent.refusals import Outdated
from edgeplane.agent.requests import read_batch, read_cancel, read_request
from edgeplane.model.errors import (
    DomainError,
    Internal,
    Invalid,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
    WrongMethod,
)
from edgeplane.observe.crashpoints import crash_point
from edgeplane.wire import (
    BATCH_PATH,
    CANCEL_PATH,
    EXECUTE_PATH,
    HEALTH_PATH,
    MAX_BODY_BYTES,
    HealthReply,
    envelope,
    error_envelope,
)

MAX_CONCURRENT: Final = 256
BODY_SECONDS: Final = 10.0

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Headers = Iterable[tuple[bytes, bytes]]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class _DisconnectedError(Exception):
    """The connection ended before the request did, or before its answer."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class AgentApp:
    """What is answered below ``/agent/v1`` to whoever shows the token.

    Args:
        executions: carries requests out.
        token: what the bearer must equal.
        health: tells how the agent is.
        body_seconds: how long a body may take to arrive.

    """

    def __init__(
        self,
        executions: Executions,
        token: str,
        health: Callable[[], HealthReply],
        *,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._executions = executions
        self._batches = Batches(executions)
        self._token = token.encode("utf-8")
        self._health = health
        self._body_seconds = body_seconds
        self._busy = 0
        self._routes: dict[str, tuple[str, Callable[[Scope, Receive], Awaitable[_Answer]]]] = {
            EXECUTE_PATH: ("POST", self._execute),
            BATCH_PATH: ("POST", self._execute_batch),
            CANCEL_PATH: ("POST", self._cancel),
            HEALTH_PATH: ("GET", self._tell_health),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            answer = await self._answer(scope, receive)
        except _DisconnectedError:
            return
        length = str(len(answer.body)).encode("ascii")
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", length),
                    *answer.headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer.body})
        if scope["path"] in {EXECUTE_PATH, BATCH_PATH}:
            # The event loop has written the bytes out by its next turn.
            asyncio.get_running_loop().call_soon(crash_point, "agent.after_answer")

    async def _answer(self, scope: Scope, receive: Receive) -> _Answer:
        try:
            method, handler = self._route(scope["path"])
            if scope["method"] != method:
                return _refusal(
                    WrongMethod(f"method: {scope['path']} takes {method}"),
                    (b"allow", method.encode("ascii")),
                )
            self._check_bearer(scope["headers"])
            return await handler(scope, receive)
        except TooMany as error:
            return _refusal(error, (b"retry-after", str(error.retry_after).encode("ascii")))
        except Unauthenticated as error:
            return _refusal(error, (b"www-authenticate", b"Bearer"))
        except DomainError as error:
            return _refusal(error)
        except _DisconnectedError:
            raise
        except Exception:  # noqa: BLE001  whatever it is, the caller gets an envelope
            mark = secrets.token_hex(8)
            _log.exception("request %s failed unexpectedly", mark)
            return _refusal(
                Internal("internal error; the agent's log has it under this answer's X-Request-Id"),
                (b"x-request-id", mark.encode("ascii")),
            )

    def _route(self, path: str) -> tuple[str, Callable[[Scope, Receive], Awaitable[_Answer]]]:
        route = self._routes.get(path)
        if route is None:
            raise NotFound("path: nothing is here")
        return route

    def _check_bearer(self, headers: _Headers) -> None:
        scheme, _, shown = _header(headers, b"authorization").partition(b" ")
        right = hmac.compare_digest(shown.strip(), self._token)
        if scheme.lower() != b"bearer" or not right:
            raise Unauthenticated("unauthorized")

    async def _execute(self, scope: Scope, receive: Receive) -> _Answer:
        return await self._posted(
            scope, receive, lambda body: self._executions.execute(read_request(body))
        )

    async def _execute_batch(self, scope: Scope, receive: Receive) -> _Answer:
        return await self._posted(
            scope, receive, lambda body: self._batches.execute(read_batch(body))
        )

    async def _cancel(self, scope: Scope, receive: Receive) -> _Answer:
        return await self._posted(
            scope, receive, lambda body: self._executions.cancel(read_cancel(body))
        )

    async def _posted(
        self, scope: Scope, receive: Receive, act: Callable[[bytes], Coroutine[Any, Any, object]]
    ) -> _Answer:
        """Answer with what an act makes of the body, while there is room."""
        if self._busy >= MAX_CONCURRENT:
            raise TooMany(f"{MAX_CONCURRENT} requests are under way; ask again", retry_after=1)
        self._busy += 1
        try:
            body = await self._read_body(scope["headers"], receive)
            reply = await _while_there(receive, act(body))
        finally:
            self._busy -= 1
        return _Answer(200, envelope(reply))

    async def _tell_health(self, scope: Scope, receive: Receive) -> _Answer:  # noqa: ARG002  every handler's shape
        return _Answer(200, envelope(self._health()))

    async def _read_body(self, headers: _Headers, receive: Receive) -> bytes:
        declared = _header(headers, b"content-length")
        if declared.isdigit() and int(declared[:20]) > MAX_BODY_BYTES:
            raise _too_large()
        try:
            async with asyncio.timeout(self._body_seconds):
                return await _joined_body(receive)
        except TimeoutError:
            raise Invalid(f"body: did not arrive within {self._body_seconds:g} s") from None


async def _joined_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        chunk: bytes = message.get("body", b"")
        if message["type"] != "http.request":
            raise _DisconnectedError
        body = body + chunk if body else chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        if not message["more_body"]:
            return body


async def _while_there(receive: Receive, answer: Coroutine[Any, Any, _T]) -> _T:
    """Return an answer as long as somebody waits for it.

    Who is gone takes up no place; what runs goes on by itself.
    """
    answering = asyncio.create_task(answer)
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise _DisconnectedError
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _header(headers: _Headers, wanted: bytes) -> bytes:
    """Return the first header of a name (in small letters), or nothing."""
    for name, value in headers:
        if name == wanted:
            return value
    return b""


def _too_large() -> TooLarge:
    return TooLarge(f"body: at most {MAX_BODY_BYTES} bytes are allowed")


def _refusal(error: DomainError, *headers: tuple[bytes, bytes]) -> _Answer:
    data = error.data if isinstance(error, Outdated) else None
    return _Answer(error.status, error_envelope(error.code, error.message, data), headers)
