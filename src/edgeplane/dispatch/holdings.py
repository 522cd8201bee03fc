"""The mailboxes this process holds, as it remembers them between turns.

A memory, not a right: what counts is the row, and each turn looks whether it still says the same.
"""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from edgeplane.dispatch.work import Held, Result, Turn
from edgeplane.model.tasks import Task


@dataclass(slots=True)
class Holding:
    """A mailbox this process holds."""

    epoch: int
    work_seq: int
    trusted_until: float  #: monotonic; past it, somebody else may act for the node
    in_flight: set[tuple[int, int]] = field(default_factory=set)  #: attempts: task and number
    requests: int = 0  #: in how many requests they are out
    withdrawn: set[tuple[int, int]] = field(default_factory=set)  #: whose agent was asked to cancel
    look_at: float | None = None  #: monotonic: when time makes something due here


class Holdings:
    """All of them, by node; times are of this machine's monotonic clock."""

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._by_node: dict[int, Holding] = {}

    def __len__(self) -> int:
        """Return how many are held."""
        return len(self._by_node)

    def of(self, task: Task) -> Holding:
        """Return the holding a task began under."""
        return self._by_node[task.node_id]

    def asked(self, nodes: Collection[int] | None, results: Iterable[Result]) -> dict[int, Held]:
        """Return what a turn may touch: these nodes (None: all) and those of the results."""
        back: dict[int, set[tuple[int, int]]] = {}
        for result in results:
            back.setdefault(result.task.node_id, set()).add(result.fence)
        wanted = self._by_node.keys() if nodes is None else {*nodes, *back} & self._by_node.keys()
        return {node_id: self._held(node_id, back.get(node_id, set())) for node_id in wanted}

    def _held(self, node_id: int, back: set[tuple[int, int]]) -> Held:
        holding = self._by_node[node_id]
        return Held(
            holding.epoch,
            holding.work_seq,
            frozenset(holding.in_flight - back),
            requests=holding.requests,
        )

    def take_in(self, turn: Turn, started: float, *, renewed: bool) -> None:
        """Bring memory in line with what a turn, begun at ``started``, has committed."""
        trusted = started + self._lease_seconds
        for node_id in turn.gone:
            self._by_node.pop(node_id, None)
        for node_id, box in turn.held.items():
            holding = self._by_node.get(node_id)
            if holding is None or holding.epoch != box.epoch:
                self._by_node[node_id] = Holding(box.epoch, box.work_seq, trusted)
                continue
            holding.work_seq = box.work_seq
            if renewed:
                holding.trusted_until = trusted
        now = time.monotonic()
        for node_id, due in turn.look_again.items():
            if holding := self._by_node.get(node_id):
                holding.look_at = None if due is None else from_now(due, turn, now)

    def land(self, results: Iterable[Result]) -> None:
        """Note that deliveries are back."""
        for result in results:
            if holding := self._by_node.get(result.task.node_id):
                holding.in_flight.discard(result.fence)
                holding.withdrawn.discard(result.fence)

    def newly_withdrawn(
        self, fences: Iterable[tuple[int, tuple[int, int]]]
    ) -> set[tuple[int, int]]:
        """Return those of these (node, attempt) that were not named before, and remember them."""
        found = set()
        for node_id, fence in fences:
            holding = self._by_node.get(node_id)
            if holding is not None and fence not in holding.withdrawn:
                holding.withdrawn.add(fence)
                found.add(fence)
        return found

    def leave_alone(self, node_id: int, seconds: float) -> None:
        """Look at a node again only after a while, if it is held."""
        if holding := self._by_node.get(node_id):
            holding.look_at = time.monotonic() + seconds

    def due(self, now: float) -> set[int]:
        """Return the nodes at which time made something due."""
        return {n for n, held in self._by_node.items() if held.look_at and held.look_at <= now}

    def next_look(self) -> float | None:
        """Return when time makes something due at any of them."""
        dues = (held.look_at for held in self._by_node.values() if held.look_at is not None)
        return min(dues, default=None)


def from_now(due: datetime, turn: Turn, now: float) -> float:
    """Turn a time of the database's clock into one of this machine's monotonic clock."""
    return now + max(0.0, (due - turn.now).total_seconds())
