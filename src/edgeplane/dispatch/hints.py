"""Wake-ups without content: losing one costs time, never work."""

import asyncio
from collections.abc import Iterable


class Hints:
    """Nodes with news, and the event the engine waits on."""

    def __init__(self) -> None:
        self._nodes: set[int] = set()
        self._event = asyncio.Event()

    def tell(self, node_ids: Iterable[int] = ()) -> None:
        """Say that these nodes have news; may be called from the event loop only."""
        self._nodes.update(node_ids)
        self._event.set()

    def take(self) -> set[int]:
        """Return the nodes told of since the last time."""
        nodes, self._nodes = self._nodes, set()
        self._event.clear()
        return nodes

    async def wait(self, seconds: float) -> None:
        """Wait until something is told, at most ``seconds``."""
        if self._event.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
