"""The highest number seen of each node: of its owners' epochs, of its configs' generations.

Several nodes of a control plane may be one machine under different names; each has its own.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

KEPT_NODES: Final = 1_000


class Highest:
    """The highest number of each node, of those raised last; 0 for every other node."""

    def __init__(self, known: Iterable[tuple[int, int]] = ()) -> None:
        """Begin with pairs of node and number, those raised last at the end."""
        self._highest = dict(known)

    def of(self, node_id: int) -> int:
        """Return the highest number of a node."""
        return self._highest.get(node_id, 0)

    def raise_to(self, number: int, node_id: int) -> list[int]:
        """Remember a number if it is higher; return the nodes that were forgotten for it."""
        if number <= self.of(node_id):
            return []
        self._highest.pop(node_id, None)
        self._highest[node_id] = number
        forgotten = list(self._highest)[:-KEPT_NODES]
        for node in forgotten:
            del self._highest[node]
        return forgotten

    def copy(self) -> "Highest":
        """Return another that knows the same."""
        return Highest(self._highest.items())


class HighestOnDisk:
    """The same in a table of the journal, changed by its transactions."""

    def __init__(self, connection: sqlite3.Connection, table: str, column: str) -> None:
        self._connection = connection
        self._forget = f"DELETE FROM {table} WHERE node_id = ?"  # noqa: S608  our own names
        self._keep = (
            f"INSERT OR REPLACE INTO {table} (node_id, {column}, turn)"  # noqa: S608
            f" SELECT ?, ?, coalesce(max(turn), 0) + 1 FROM {table}"
        )
        known = f"SELECT node_id, {column} FROM {table} ORDER BY turn"  # noqa: S608
        self.committed = Highest(connection.execute(known).fetchall())
        """Those on disk: never changed, but replaced at a commit."""
        self._raised: Highest | None = None  #: what a commit replaces them with, if anything

    def of(self, node_id: int) -> int:
        """Return the highest number of a node, as the open transaction has it."""
        return (self._raised or self.committed).of(node_id)

    def raise_to(self, number: int, node_id: int) -> None:
        """Remember a number if it is higher."""
        if number <= self.of(node_id):
            return
        if self._raised is None:
            self._raised = self.committed.copy()
        for forgotten in self._raised.raise_to(number, node_id):
            self._connection.execute(self._forget, (forgotten,))
        self._connection.execute(self._keep, (node_id, number))

    def committed_now(self) -> None:
        """Take what was raised for what is on disk; after a COMMIT."""
        self.committed = self._raised or self.committed
        self._raised = None

    def rolled_back(self) -> None:
        """Forget what was raised."""
        self._raised = None
