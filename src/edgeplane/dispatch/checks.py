"""One look after the health of nodes: a transaction that writes what was seen and takes the due.

Observations come from deliveries (``Sightings``) and from probes of before. A probe's answer counts
only while its node's row says what it said when the node was taken: else somebody has seen, asked
or moved the node since, and knows better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from edgeplane.model.clock import rfc3339
from edgeplane.model.nodes import Node, NodeTransport
from edgeplane.services import nodes as rule
from edgeplane.store import mailboxes, node_health, nodes, presence
from edgeplane.store.node_health import Taken, Timing
from edgeplane.store.workers import Tx

#: How long an agent that connects out may be away before that is a failure: after a crash of the
#: control plane a large fleet takes most of it to be back.
ABSENT_SECONDS = 60.0


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
    fair: bool = True  #: agents that connect out have had the time to


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
        found = nodes.many(tx, taken)
        looked.probes = _probes(tx, taken, found, asked.timing)
        _note_connected(tx, [n for n in found.values() if _connects_out(n)], asked)
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


def _note_connected(tx: Tx, found: Sequence[Node], asked: Asked) -> None:
    """See which of these nodes' agents are connected to a replica; nobody has to ask them."""
    connected = presence.connected(tx, [node.id for node in found])
    node_health.note_seen(tx, connected)
    if not asked.fair:
        return
    latest = tx.now - timedelta(seconds=ABSENT_SECONDS)
    known = node_health.of_nodes(tx, [n.id for n in found if n.id not in connected and n.enabled])
    absent = {n: each.seen_at for n, each in known.items() if (each.seen_at or latest) <= latest}
    words = "its agent is not connected (transport sync)"
    node_health.note_failure(
        tx,
        {n: f"{words} since {rfc3339(seen)}" if seen else words for n, seen in absent.items()},
        asked.timing,
    )


def _probes(
    tx: Tx, taken: Mapping[int, Taken], found: Mapping[int, Node], timing: Timing
) -> list[Probe]:
    """Return those of the nodes taken that are to be asked, in the order they were due."""
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
    return node.enabled and not _connects_out(node) and (node.paused or not delivery_soon)


def _connects_out(node: Node) -> bool:
    return node.transport is NodeTransport.SYNC
