"""Following along: what happens to tasks and operations, as server-sent events."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from msgspec import Struct

from edgeplane.api import parts
from edgeplane.api.documents import describe_stream
from edgeplane.api.parts import Reader
from edgeplane.model.clock import rfc3339
from edgeplane.model.errors import DomainError, Invalid
from edgeplane.model.events import Event
from edgeplane.services.feed import Feed, Stream, Wanted

HEARTBEAT_SECONDS = 15.0
#: How long a follower may take to take what is sent to it.
SEND_SECONDS = 30.0
RETRY_MILLIS = 2000

_MAX_ID = 2**63 - 1
_ID_DIGITS = 19


class EventView(Struct, rename="camel"):
    """One move of a task, or of an operation (``op-…``), and where it stood after it.

    An operation's own events are of no task and no node; ``status`` is its state then.
    """

    id: int
    at: str
    type: str
    task_id: int | None
    node_id: int | None
    operation_id: int | None
    status: str
    attempt: int


router = APIRouter(dependencies=[Depends(parts.known_query)])


@router.get(
    "/events",
    openapi_extra=describe_stream(event=EventView, errors="400 401 403 429"),
)
async def follow(
    request: Request,
    _principal: Reader,
    task_id: Annotated[int | None, Query(alias="taskId", ge=1, le=_MAX_ID)] = None,
    node_id: Annotated[int | None, Query(alias="nodeId", ge=1, le=_MAX_ID)] = None,
    operation_id: Annotated[int | None, Query(alias="operationId", ge=1, le=_MAX_ID)] = None,
    last_seen: Annotated[str | None, Query(alias="lastEventId")] = None,
    last_header: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """Follow what happens to tasks and operations, from now on or behind ``Last-Event-ID``."""
    joined = parts.parts_of(request)
    last = _read_last(last_header or last_seen)
    authorization = request.headers.get("authorization")
    wanted = Wanted(task_id=task_id, node_id=node_id, operation_id=operation_id)
    stream = await joined.feed.open(wanted, last)
    return EventStream(joined.feed, stream, lambda: joined.sessions.principal(authorization))


def _read_last(written: str | None) -> int | None:
    if not written:
        return None
    if written.isascii() and written.isdigit() and len(written) <= _ID_DIGITS:
        value = int(written)
        if value <= _MAX_ID:
            return value
    raise Invalid("lastEventId: not the id of an event")


class EventStream(Response):
    """A response that goes on until the follower leaves, falls behind, or may not look any more."""

    def __init__(
        self, feed: Feed, stream: Stream, allowed: Callable[[], Awaitable[object]]
    ) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        del self.headers["content-length"]
        self._feed = feed
        self._stream = stream
        self._allowed = allowed

    async def __call__(
        self,
        scope: MutableMapping[str, Any],  # noqa: ARG002 (of an ASGI application)
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Stream until the end."""
        gone = asyncio.create_task(self._until_gone(receive), name="follower")
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            with contextlib.suppress(TimeoutError):
                await self._stream_to(send)
        finally:
            gone.cancel()
            self._feed.close(self._stream)

    async def _until_gone(self, receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stream.end("gone")

    async def _stream_to(self, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
        async def say(text: str, *, more: bool = True) -> None:
            message = {"type": "http.response.body", "body": text.encode(), "more_body": more}
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        stream, loop = self._stream, asyncio.get_running_loop()
        await say(f"retry: {RETRY_MILLIS}\n{_missed(stream)}{_position(stream)}")
        look_again = loop.time() + HEARTBEAT_SECONDS
        while True:
            try:
                found = await stream.read(max(0.0, look_again - loop.time()))
                if loop.time() >= look_again:
                    await self._allowed()
                    look_again = loop.time() + HEARTBEAT_SECONDS
            except DomainError as error:
                stream.end(error.message)
            if stream.ended is not None:
                await say(f": ended: {stream.ended}\n\n", more=False)
                return
            await say("".join(map(_event, found)) or f": \n{_position(stream)}")


def _event(event: Event) -> str:
    view = EventView(
        id=event.id,
        at=rfc3339(event.at),
        type=event.type,
        task_id=event.task_id,
        node_id=event.node_id,
        operation_id=event.operation_id,
        status=event.status,
        attempt=event.attempt,
    )
    data = msgspec.json.encode(view).decode()
    return f"id: {event.id}\nevent: {event.type}\ndata: {data}\n\n"


def _position(stream: Stream) -> str:
    """Let a follower know where it stands though no event of its own has come."""
    return f"id: {stream.position}\n\n"


def _missed(stream: Stream) -> str:
    """Tell a follower that what it would go on with is not kept any more: it must look anew."""
    return "event: missed\ndata: {}\n\n" if stream.missed else "\n"
