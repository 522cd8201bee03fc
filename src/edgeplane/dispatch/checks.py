"""One look after the health of nodes: a transaction that writes what was seen and takes the due.

Observations come from deliveries (``Sightings``) and from probes of before. A probe's answer counts
only while its node's row says what it said when the node was taken: else somebody has seen, asked
or moved the node since, and knows better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from edgeplane.model.nodes import Node
from edgeplane.services import nodes as rule
from edgeplane.store import mailboxes, node_health, nodes
from edgeplane.store.node_health import Taken, Timing
from edgeplane.store.workers import Tx


@dataclass(frozen=True, slots=True)
class Probe:
    """A node to be asked."""

    node: Node
    taken: Taken


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a probe."""

    node_id: int
    fence: datetime
    outcome: str  #: as it is counted
    words: str | None  #: why it was no good answer; None: it was one


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one look is to do."""

    sightings: Mapping[int, str | None]
    answers: Sequence[Answered]
    most: int  #: nodes to take
    timing: Timing | None  #: None: no node is ever asked


@dataclass(slots=True)
class Looked:
    """What one look did; nothing of it counts before the commit."""

    probes: list[Probe] = field(default_factory=list)
    back: list[int] = field(default_factory=list)  #: nodes the engine may reach again
    counted: list[str] = field(default_factory=list)  #: outcomes of answers; ``late``: dropped
    more: bool = False  #: as many were due as could be taken


def look(tx: Tx, asked: Asked) -> Looked:
    """Take one look in this transaction."""
    looked = Looked()
    well = [each.node_id for each in asked.answers if each.words is None]
    looked.back = rule.take_back(tx, well)
    _write(tx, asked, looked)
    if asked.most and asked.timing is not None:
        taken = node_health.claim(tx, asked.most, asked.timing)
        looked.more = len(taken) == asked.most
        looked.probes = _probes(tx, taken, asked.timing)
    return looked


def _write(tx: Tx, asked: Asked, looked: Looked) -> None:
    seen = [n for n, words in asked.sightings.items() if words is None]
    missed = {n: words for n, words in asked.sightings.items() if words is not None}
    held = node_health.hold(tx, {*asked.sightings, *(each.node_id for each in asked.answers)})
    good: list[int] = []
    bad: dict[int, str] = {}
    for each in asked.answers:
        row = held.get(each.node_id)
        late = row is None or row.at != each.fence or each.node_id in asked.sightings
        looked.counted.append("late" if late else each.outcome)
        if late:
            continue
        if each.words is None:
            good.append(each.node_id)
        else:
            bad[each.node_id] = each.words
    node_health.note_seen(tx, seen, asked.timing)
    node_health.note_seen(tx, good)  # when to ask again was said when they were taken
    node_health.note_failure(tx, {**missed, **bad}, asked.timing)


def _probes(tx: Tx, taken: Mapping[int, Taken], timing: Timing) -> list[Probe]:
    """Return those of the nodes taken that are to be asked, in the order they were due."""
    found = nodes.many(tx, taken)
    soon = tx.now + timedelta(seconds=timing.interval)
    away = mailboxes.not_reached(tx, taken, soon)
    return [
        Probe(found[node_id], each)
        for node_id, each in taken.items()
        if node_id in found and _is_asked(found[node_id], delivery_soon=away.get(node_id, False))
    ]


def _is_asked(node: Node, *, delivery_soon: bool) -> bool:
    """Say whether a node is to be asked at all: here, and nowhere else, it is left out.

    Where the engine itself finds out whether a node is back, by a delivery that is out or comes
    soon, that is the probe.
    """
    return node.enabled and (node.paused or not delivery_soon)
