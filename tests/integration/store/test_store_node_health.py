"""What is observed of nodes, on every dialect: taken by one, written together, never lost."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import delete, select

from edgeplane.model.health import PATIENCE_SECONDS, UNKNOWN
from edgeplane.model.nodes import NodeStatus, SubIP
from edgeplane.model.paging import PageRequest
from edgeplane.services import nodes as rule
from edgeplane.services.nodes import NodeChange
from edgeplane.store import node_health, nodes
from edgeplane.store.database import Database
from edgeplane.store.node_health import Timing
from edgeplane.store.nodes import NodeFilter
from edgeplane.store.rows import node_health as rows
from kit.factories import add_nodes, new_node

TIMING = Timing(interval=30, random=Random(1))


def at(tx, seconds):
    """Return the same transaction so much later."""
    return replace(tx, now=tx.now + timedelta(seconds=seconds))


def row(tx, node_id):
    """Return a node's row."""
    return node_health.hold(tx, [node_id])[node_id]


def fail_long(tx, node_id, words="refused"):
    """Let a node fail for long enough; return the later transaction."""
    node_health.note_failure(tx, {node_id: words})
    late = at(tx, PATIENCE_SECONDS)
    node_health.note_failure(late, {node_id: words})
    return late


@pytest.fixture
async def node_id(database):
    """A node nobody has observed, which a person called online."""
    return (await database.write(lambda tx: add_nodes(tx, 1)))[0]


async def test_a_row_is_made_and_removed_with_its_node(database):
    """Nothing is known of it, and it is due at once."""
    node = await rule.create(database, new_node())
    assert (node.last_seen_at, node.last_health_error) == (None, None)
    found = await database.write(lambda tx: (row(tx, node.id), node_health.any_due(tx)))
    assert (found[0].health, found[1]) == (UNKNOWN, True)
    await rule.delete(database, [node.id])
    assert await database.write(lambda tx: node_health.hold(tx, [node.id])) == {}


async def test_what_is_taken_is_due_again_after_an_interval(database):
    """Also where whoever took it writes nothing any more: it died, and the node was left out once.

    The times of nodes taken together differ.
    """
    ids = await database.write(lambda tx: add_nodes(tx, 40))

    def take(tx, after):
        return tx.now, node_health.claim(at(tx, after), 100, TIMING)

    began, taken = await database.write(lambda tx: take(tx, 0))
    assert sorted(taken) == ids
    gaps = {(each.fence - began).total_seconds() for each in taken.values()}
    assert min(gaps) >= 24
    assert max(gaps) <= 36
    assert len(gaps) == 8
    assert (await database.write(lambda tx: take(tx, 20)))[1] == {}
    assert sorted((await database.write(lambda tx: take(tx, 37)))[1]) == ids


async def test_two_replicas_share_the_due_nodes_and_never_one_of_them(database, url):
    """Each with connections of its own, at the same time."""
    wanted = await database.write(lambda tx: add_nodes(tx, 300))
    other = Database(url)
    found = {"me": [], "you": []}

    async def take(store, who):
        got = await store.step(lambda tx: node_health.claim(tx, 7, TIMING))
        found[who] += got
        return bool(got)

    empty = 0
    while empty < 3:  # rows the other one locks just now are passed over, not waited for
        got = await asyncio.gather(take(database, "me"), take(other, "you"))
        empty = 0 if any(got) else empty + 1
    await other.close()
    assert sorted(found["me"] + found["you"]) == wanted
    assert found["me"]
    assert found["you"]


async def test_the_longest_due_are_taken_first(database):
    """However many there are."""
    first, second, third = await database.write(lambda tx: add_nodes(tx, 3))

    def take(tx):
        for seconds, node_id in ((-5, second), (-9, third), (-1, first)):
            node_health.ask_at_once(at(tx, seconds), node_id, anew=False)
        overdue = node_health.overdue_seconds(tx)
        return overdue, [list(node_health.claim(tx, 1, TIMING)) for _ in range(4)]

    overdue, taken = await database.write(take)
    assert overdue == 9
    assert taken == [[third], [second], [first], []]


async def test_a_good_answer_is_online_at_once(database):
    """Whatever the person who made it said; a maintenance stays."""

    def see(tx):
        ids = [add_nodes(tx, 1, status=status)[0] for status in NodeStatus]
        fail_long(tx, ids[1])
        later = at(tx, 60)
        node_health.note_seen(later, ids)
        return later.now, [nodes.get(tx, node_id) for node_id in ids]

    now, found = await database.write(see)
    assert [node.status for node in found] == ["online", "online", "maintenance"]
    assert [node.last_seen_at for node in found] == [now] * 3
    assert [node.last_health_error for node in found] == [None] * 3


async def test_failures_are_offline_after_a_while(database, node_id):
    """The words are told at the first one; the status follows at the one that counts."""

    def fail(tx):
        node_health.note_failure(tx, {node_id: "refused"})
        first = nodes.get(tx, node_id)
        node_health.note_failure(at(tx, PATIENCE_SECONDS - 1), {node_id: "refused, still"})
        second = nodes.get(tx, node_id)
        node_health.note_failure(at(tx, PATIENCE_SECONDS), {node_id: "timed out"})
        return first, second, nodes.get(tx, node_id)

    found = await database.write(fail)
    assert [(node.status, node.last_health_error) for node in found] == [
        ("online", "refused"),
        ("online", "refused, still"),
        ("offline", "timed out"),
    ]


async def test_a_persons_maintenance_stays_whatever_fails(database):
    """And what is wrong is told all the same."""

    def fail(tx):
        (node_id,) = add_nodes(tx, 1, status=NodeStatus.MAINTENANCE)
        fail_long(tx, node_id)
        return nodes.get(tx, node_id)

    node = await database.write(fail)
    assert (node.status, node.last_health_error) == ("maintenance", "refused")


async def test_a_node_a_person_calls_online_is_offline_again_when_it_fails_on(database, node_id):
    """What is observed has the last word, also where it is no news."""

    def fail(tx):
        late = fail_long(tx, node_id)
        return late.now

    await database.write(fail)
    await rule.update(database, node_id, NodeChange(status=NodeStatus.ONLINE))
    await database.write(lambda tx: node_health.note_failure(at(tx, 60), {node_id: "refused"}))
    node = await database.read(lambda tx: nodes.get(tx, node_id))
    assert node.status is NodeStatus.OFFLINE


async def test_what_was_observed_counts_as_having_been_asked(database):
    """With a timing: who is well or gone is put off, who begins to fail is asked soon."""
    ids = await database.write(lambda tx: add_nodes(tx, 4))
    well, failing, gone, told = ids

    def observe(tx):
        late = fail_long(tx, gone)
        node_health.note_seen(late, [well], TIMING)
        node_health.note_failure(late, {failing: "no", gone: "refused"}, TIMING)
        node_health.note_failure(late, {told: "no"})
        due = [(row(late, node_id).at - late.now).total_seconds() for node_id in ids]
        return due, PATIENCE_SECONDS

    (well_due, failing_due, gone_due, told_due), patience = await database.write(observe)
    assert 24 <= well_due <= 36
    assert 24 <= gone_due <= 36
    assert patience <= failing_due <= patience * 1.2
    assert told_due < 0  # without a timing it stays what it was


async def test_nothing_is_written_of_a_node_that_is_gone_or_has_no_row(database, node_id):
    """Deleted since, or made by a release of before; the others count."""

    def observe(tx):
        node_health.note_seen(tx, [node_id, 10**9])
        node_health.note_failure(tx, {10**9 + 1: "no"})
        node_health.note_seen(tx, [])
        node_health.note_failure(tx, {})
        return tx.now, nodes.get(tx, node_id)

    now, node = await database.write(observe)
    assert node is not None
    assert node.last_seen_at == now


async def test_rows_an_older_release_did_not_make_are_made(database):
    """Once; and such a node is shown as one nobody has observed."""
    ids = await database.write(lambda tx: add_nodes(tx, 3))

    def fill(tx):
        tx.conn.execute(delete(rows).where(rows.c.node_id.in_(ids[1:])))
        shown = nodes.get(tx, ids[1])
        made = [node_health.fill(tx), node_health.fill(tx)]
        return shown, made, node_health.hold(tx, ids)

    shown, made, held = await database.write(fill)
    assert (shown.last_seen_at, shown.last_health_error) == (None, None)
    assert made == [2, 0]
    assert sorted(held) == ids


@pytest.mark.parametrize(
    ("change", "at_once", "anew"),
    [
        (NodeChange(main_ip="127.0.0.9"), True, True),
        (NodeChange(agent_port=9), True, True),
        (NodeChange(sub_ips=(SubIP(ip="127.0.0.8", enabled=True),)), True, True),
        (NodeChange(enabled=False), True, False),
        (NodeChange(status=NodeStatus.MAINTENANCE), True, False),
        (NodeChange(name="another-name"), False, False),
    ],
    ids=["ip", "port", "subs", "enabled", "status", "name"],
)
async def test_a_changed_node_is_asked_at_once(database, change, at_once, anew):
    """And where it is elsewhere now, what failed before says nothing of it any more."""
    (node_id,) = await database.write(lambda tx: add_nodes(tx, 1))

    def fail(tx):
        node_health.claim(tx, 9, TIMING)
        node_health.note_failure(tx, {node_id: "refused"})
        assert not node_health.any_due(tx)

    await database.write(fail)
    node = await rule.update(database, node_id, change)
    assert node.last_health_error == (None if anew else "refused")
    assert await database.read(node_health.any_due) == at_once


async def test_a_list_shows_what_is_known_of_each(database):
    """And is filtered by status, as ever."""

    def observe(tx):
        ids = add_nodes(tx, 3)
        fail_long(tx, ids[0], "refused")
        node_health.note_seen(tx, [ids[1]])
        page = nodes.list_page(tx, NodeFilter(), PageRequest(size=20))
        gone = nodes.list_page(tx, NodeFilter(status=NodeStatus.OFFLINE), PageRequest(size=20))
        return tx.now, ids, page.items, [node.id for node in gone.items]

    now, ids, found, gone = await database.write(observe)
    assert [(node.id, node.last_seen_at, node.last_health_error) for node in found] == [
        (ids[2], None, None),
        (ids[1], now, None),
        (ids[0], None, "refused"),
    ]
    assert gone == [ids[0]]


async def test_nodes_are_counted_by_status(database):
    """All of them; the disabled ones apart, whatever their status."""

    def count(tx):
        for status, number in zip(NodeStatus, (3, 2, 1), strict=True):
            add_nodes(tx, number, status=status)
        add_nodes(tx, 4, enabled=False)
        return node_health.counts(tx)

    expected = {"online": 3, "offline": 2, "maintenance": 1, "disabled": 4}
    assert await database.write(count) == expected
    assert sum(expected.values()) == len(
        await database.read(lambda tx: tx.conn.execute(select(rows.c.node_id)).all())
    )
