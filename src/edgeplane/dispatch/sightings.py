"""What deliveries show of their nodes, kept in memory until the next look writes it.

A delivery costs a dictionary's entry at most: a node that was seen a moment ago is not noted again,
and turns of the engine write nothing of it. What is lost with a process shows again at the next
delivery or probe.
"""

import time
from collections.abc import Mapping

from edgeplane.model.tasks import Outcome, Report

FRESH_SECONDS = 10.0  #: within them, one sighting of a node that is well is enough


class Sightings:
    """By node: None, it gave a good answer; or why it did not. One for each node at most."""

    def __init__(self) -> None:
        self._news: dict[int, str | None] = {}
        self._fresh: set[int] = set()  #: seen since ``_since``
        self._since = time.monotonic()

    def __len__(self) -> int:
        """Return of how many nodes there is news."""
        return len(self._news)

    def delivered(self, node_id: int, report: Report) -> None:
        """Note what came of a delivery, if it says something of the node."""
        if report.answered:
            if node_id not in self._fresh:
                self._fresh.add(node_id)
                self._news[node_id] = None
        elif report.fault is not None or report.outcome is Outcome.UNREACHABLE:
            self._fresh.discard(node_id)
            # An answer outweighs a failure at the same time; if that goes on, it shows again.
            if node_id not in self._news or self._news[node_id] is not None:
                self._news[node_id] = report.fault or report.message

    def take(self, most: int) -> dict[int, str | None]:
        """Hand over the news of up to so many nodes."""
        now = time.monotonic()
        if now - self._since >= FRESH_SECONDS:
            self._fresh.clear()
            self._since = now
        if len(self._news) <= most:
            taken, self._news = self._news, {}
            return taken
        return {node_id: self._news.pop(node_id) for node_id in list(self._news)[:most]}

    def put_back(self, taken: Mapping[int, str | None]) -> None:
        """Take back what could not be written; what came since is newer."""
        self._news = {**taken, **self._news}
