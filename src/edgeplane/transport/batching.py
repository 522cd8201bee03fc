"""Many tasks for one agent in few requests, or one by one where it knows no batches."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Iterator, Sequence
from typing import Final, Protocol

import msgspec

from edgeplane.http1.outgoing import Answer
from edgeplane.transport.answers import knows_no_batches, may_be_one_tasks_fault, read_batch
from edgeplane.transport.base import Address, Ending, TransportError
from edgeplane.wire import (
    BATCH_PATH,
    MAX_BATCH,
    MAX_BODY_BYTES,
    MAX_REPLY_BYTES,
    MAX_RESULT_BYTES,
    ExecuteReply,
    ExecuteRequest,
)

#: How long an agent is not offered batches that has refused one; then it may have been upgraded.
ONE_BY_ONE_SECONDS: Final = 600.0
MAX_REMEMBERED: Final = 16_000  #: addresses of such agents
SIDE_BY_SIDE: Final = 8  #: requests at once to one agent, for one call

_AROUND: Final = len(b'{"tasks":[]}')

_encoder = msgspec.json.Encoder()
_Encoded = tuple[ExecuteRequest, bytes]


class Posts(Protocol):
    """What is needed of a transport: a request, and the delivery of one task."""

    def post(
        self, address: Address, path: str, body: bytes, seconds: float, max_reply: int
    ) -> Awaitable[Answer]:
        """Send a body to a path; return the answer, whatever it is."""

    def deliver(
        self, address: Address, request: ExecuteRequest, seconds: float
    ) -> Awaitable[ExecuteReply]:
        """Deliver one task."""


class Batching:
    """Delivers many tasks through ``posts``, and remembers who takes them one by one only."""

    def __init__(self, posts: Posts) -> None:
        self._posts = posts
        self._until: OrderedDict[Address, float] = OrderedDict()  #: monotonic

    async def deliver(
        self, address: Address, requests: Sequence[ExecuteRequest], seconds: float
    ) -> list[Ending]:
        """Deliver tasks; return a result or an error for each, in their order."""
        places = asyncio.Semaphore(SIDE_BY_SIDE)

        async def send(part: list[_Encoded]) -> list[Ending]:
            async with places:
                return await self._send(address, part, seconds)

        parts = list(_parts([(request, _encoder.encode(request)) for request in requests]))
        if self._one_by_one(address):
            parts = [[one] for part in parts for one in part]
        sent = await asyncio.gather(*(send(part) for part in parts))
        return [result for results in sent for result in results]

    async def _send(self, address: Address, part: list[_Encoded], seconds: float) -> list[Ending]:
        if len(part) == 1:
            return [await self._one(address, part[0][0], seconds)]
        body = b'{"tasks":[' + b",".join(encoded for _, encoded in part) + b"]}"
        bound = MAX_REPLY_BYTES + len(part) * MAX_RESULT_BYTES
        try:
            answer = await self._posts.post(address, BATCH_PATH, body, seconds, bound)
            if knows_no_batches(answer):
                self._remember(address)
            elif not may_be_one_tasks_fault(answer):
                return read_batch(answer, [request.request_id for request, _ in part])
        except TransportError as error:
            return [error] * len(part)
        return await self._singly(address, part, seconds)

    async def _singly(self, address: Address, part: list[_Encoded], seconds: float) -> list[Ending]:
        """Deliver each alone: nothing of the batch was taken."""
        places = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(request: ExecuteRequest) -> Ending:
            async with places:
                return await self._one(address, request, seconds)

        return await asyncio.gather(*(one(request) for request, _ in part))

    async def _one(self, address: Address, request: ExecuteRequest, seconds: float) -> Ending:
        try:
            return await self._posts.deliver(address, request, seconds)
        except TransportError as error:
            return error

    def _one_by_one(self, address: Address) -> bool:
        until = self._until.get(address)
        if until is None:
            return False
        if time.monotonic() < until:
            return True
        del self._until[address]
        return False

    def _remember(self, address: Address) -> None:
        self._until[address] = time.monotonic() + ONE_BY_ONE_SECONDS
        self._until.move_to_end(address)
        while len(self._until) > MAX_REMEMBERED:
            self._until.popitem(last=False)


def _parts(encoded: Sequence[_Encoded]) -> Iterator[list[_Encoded]]:
    """Cut tasks into batches that an agent takes: not too many, and not too large."""
    part: list[_Encoded] = []
    size = _AROUND
    for one in encoded:
        added = len(one[1]) + 1
        if part and (len(part) == MAX_BATCH or size + added > MAX_BODY_BYTES):
            yield part
            part, size = [], _AROUND
        part.append(one)
        size += added
    if part:
        yield part
