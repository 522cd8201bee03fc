"""The links of this process: to every agent that is connected to it."""

import asyncio
from collections.abc import Callable, Iterator
from random import Random

from edgeplane.transport.link import Link, Pace

_random = Random()  # noqa: S311  spreads agents, guards nothing


class Links:
    """All links of this process, by node and by the name its agent gives."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self._by_name: dict[str, Link] = {}
        self._by_node: dict[int, Link] = {}
        self.ended: Callable[[int], None] = _nobody  #: told the node of each link that has ended

    def __len__(self) -> int:
        """Return how many agents are connected."""
        return len(self._by_node)

    def __iter__(self) -> Iterator[Link]:
        """Go through them as they are now."""
        return iter(list(self._by_node.values()))

    def __contains__(self, node_id: int) -> bool:
        """Say whether the agent of a node is connected."""
        return node_id in self._by_node

    @property
    def reconnect(self) -> float:
        """Within how many seconds agents whose connection is lost may all come back."""
        pace = self.pace
        return min(pace.most_return, max(pace.least_return, len(self) / pace.returns))

    def of(self, node_id: int) -> Link | None:
        """Return the link to a node's agent."""
        return self._by_node.get(node_id)

    def named(self, name: str) -> Link | None:
        """Return the link of the agent that speaks under a name."""
        return self._by_name.get(name)

    def open(self, node_id: int, name: str, session: str, peer: str) -> Link:
        """Make the link of an agent that has been admitted; one of the same node ends."""
        if former := self._by_node.get(node_id):
            self.close(former, "the node's name has changed")
        link = Link(self, node_id, name, session, peer)
        self._by_node[node_id] = self._by_name[name] = link
        return link

    def close(self, link: Link, words: str) -> None:
        """End a link; what its agent holds open is answered with a refusal."""
        if self._by_node.get(link.node_id) is link:
            del self._by_node[link.node_id], self._by_name[link.name]
            link.refuse(f"node: {words}", again=1 + int(_random.uniform(0, self.reconnect)))
            link.end()
            self.ended(link.node_id)

    def look(self) -> None:
        """Answer what was held long enough, and end what has been away too long."""
        now = asyncio.get_running_loop().time()
        for link in self:
            if not link.look(now):
                self.close(link, "its agent was away")


def _nobody(node_id: int) -> None:
    """Tell nobody."""
    del node_id
