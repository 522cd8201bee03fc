"""Which owner of a node is followed: the highest epoch seen of each.

Several nodes of a control plane may be one machine under different names; each has its own owner.
"""

from collections.abc import Iterable
from typing import Final

KEPT_NODES: Final = 1_000


class Epochs:
    """The highest epoch of each node, of those raised last; 0 for every other node."""

    def __init__(self, known: Iterable[tuple[int, int]] = ()) -> None:
        """Begin with pairs of node and epoch, those raised last at the end."""
        self._highest = dict(known)

    def of(self, node_id: int) -> int:
        """Return the highest epoch of a node."""
        return self._highest.get(node_id, 0)

    def raise_to(self, epoch: int, node_id: int) -> list[int]:
        """Remember an epoch if it is higher; return the nodes that were forgotten for it."""
        if epoch <= self.of(node_id):
            return []
        self._highest.pop(node_id, None)
        self._highest[node_id] = epoch
        forgotten = list(self._highest)[:-KEPT_NODES]
        for node in forgotten:
            del self._highest[node]
        return forgotten

    def copy(self) -> "Epochs":
        """Return another that knows the same."""
        return Epochs(self._highest.items())
