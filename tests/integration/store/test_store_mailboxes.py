"""Mailboxes, on every dialect: claimed by one, held for a while, given back."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from edgeplane.model.clock import epoch_millis
from edgeplane.store import mailboxes
from edgeplane.store.database import Database
from edgeplane.store.mailboxes import Lease
from edgeplane.store.rows import node_mailboxes
from kit.factories import add_nodes

MINE = Lease(owner="me", seconds=10)
YOURS = Lease(owner="you", seconds=10)
_M = node_mailboxes.c


def later(tx, seconds):
    """Return the same transaction at a later time."""
    return replace(tx, now=tx.now + timedelta(seconds=seconds))


def row(tx, node_id):
    """Return a mailbox with its due time."""
    return tx.conn.execute(select(node_mailboxes).where(_M.node_id == node_id)).one()


def due_nodes(tx, number):
    """Store nodes with work."""
    ids = add_nodes(tx, number)
    mailboxes.mark_work(tx, ids)
    return ids


@pytest.fixture
async def node_id(database):
    """A node with work."""
    return (await database.write(lambda tx: due_nodes(tx, 1)))[0]


async def test_a_new_mailbox_has_nothing_due(database):
    """It falls due when it is marked, and not before."""
    (node_id,) = await database.write(lambda tx: add_nodes(tx, 1))
    assert await database.write(lambda tx: mailboxes.claim_due(tx, 10, MINE)) == []
    assert await database.write(lambda tx: mailboxes.mark_work(tx, [node_id])) == {node_id}
    (box,) = await database.write(lambda tx: mailboxes.claim_due(tx, 10, MINE))
    assert (box.node_id, box.owner, box.work_seq) == (node_id, "me", 1)


async def test_claimers_share_the_due_mailboxes_and_never_one_of_them(database, url):
    """Two owners, each with connections of its own, claiming at the same time."""
    wanted = await database.write(lambda tx: due_nodes(tx, 400))
    other = Database(url)
    found: dict[str, list[int]] = {"me": [], "you": []}

    async def claim(store, lease):
        got = await store.engine_write(lambda tx: mailboxes.claim_due(tx, 7, lease))
        found[lease.owner] += [box.node_id for box in got]
        return bool(got)

    # In rounds, or SQLite would let one of them have its way for as long as it is quick.
    empty = 0
    while empty < 3:  # rows the other one locks just now are passed over, not waited for
        got = await asyncio.gather(*(claim(database, MINE) for _ in range(2)), claim(other, YOURS))
        empty = 0 if any(got) else empty + 1
    await other.close()
    assert sorted(found["me"] + found["you"]) == sorted(wanted)
    assert found["me"]
    assert found["you"]
    owners = await database.read(lambda tx: tx.conn.execute(select(_M.node_id, _M.owner)).all())
    assert {owner: sorted(n for n, o in owners if o == owner) for owner in found} == {
        owner: sorted(ids) for owner, ids in found.items()
    }


async def test_the_longest_due_come_first(database):
    """Nobody starves behind those that fall due again and again."""

    def spread(tx):
        ids = add_nodes(tx, 5)
        for back, node_id in enumerate(ids):
            mailboxes.mark_work(later(tx, -back), [node_id])
        return ids

    ids = await database.write(spread)
    claimed = await database.write(lambda tx: mailboxes.claim_due(tx, 3, MINE))
    assert [box.node_id for box in claimed] == ids[:1:-1]


async def test_among_what_is_due_the_most_urgent_is_claimed_first(database):
    """Each step of priority counts as ten seconds of waiting; an earlier due time is kept."""

    def mark(tx):
        ids = add_nodes(tx, 4)
        for node_id, priority in zip(ids, (0, 5, 9, 5), strict=True):
            mailboxes.mark_work(tx, [node_id], priority=priority)
        mailboxes.mark_work(later(tx, -60), [ids[0]], priority=0)
        mailboxes.mark_work(tx, [ids[2]], priority=0)
        return ids

    ids = await database.write(mark)
    claimed = await database.write(lambda tx: mailboxes.claim_due(tx, 4, MINE))
    assert [box.node_id for box in claimed] == [ids[2], ids[0], ids[1], ids[3]]


@pytest.mark.parametrize("limit", [0, -1])
async def test_no_room_claims_nothing(database, node_id, limit):
    """Also where something is due."""
    assert await database.write(lambda tx: mailboxes.claim_due(tx, limit, MINE)) == []


async def test_the_epoch_grows_at_every_claim(database, node_id):
    """Also for the same owner, and twice within a millisecond."""
    epochs = []

    def claim(tx):
        for _ in range(3):
            mailboxes.mark_work(tx, [node_id])
            (box,) = mailboxes.claim_due(tx, 1, MINE)
            epochs.append(box.epoch)
            assert row(tx, node_id).epoch == box.epoch
            mailboxes.release(tx, {node_id: None}, "me")

    await database.write(claim)
    await database.write(claim)
    assert epochs == sorted(set(epochs))


async def test_an_epoch_behind_the_clock_catches_up(database, node_id):
    """After tables were put back from an old copy it is still higher than any given out."""

    def claim(tx):
        tx.conn.execute(update(node_mailboxes).values(epoch=3))
        (box,) = mailboxes.claim_due(tx, 1, MINE)
        return box.epoch, row(tx, node_id).epoch, epoch_millis(tx.now)

    told, stored, clock = await database.write(claim)
    assert told == stored == clock


@pytest.mark.parametrize("ahead", [0, 1, 10**9])
async def test_an_epoch_ahead_of_the_clock_still_grows(database, node_id, ahead):
    """After the clock was put back."""

    def claim(tx):
        old = epoch_millis(tx.now) + ahead
        tx.conn.execute(update(node_mailboxes).values(epoch=old))
        (box,) = mailboxes.claim_due(tx, 1, MINE)
        return box.epoch - old, row(tx, node_id).epoch - old

    assert await database.write(claim) == (1, 1)


async def test_a_held_mailbox_is_not_due_until_its_lease_lapses(database, node_id):
    """Then it is due again by itself, for anybody."""

    def claim(tx):
        assert len(mailboxes.claim_due(tx, 1, MINE)) == 1
        assert mailboxes.claim_due(later(tx, 9.999), 1, YOURS) == []
        (box,) = mailboxes.claim_due(later(tx, 10), 1, YOURS)
        return box

    assert (await database.write(claim)).owner == "you"


async def test_a_renewal_extends_the_lease_of_its_owner_only(database, node_id):
    """Another's renewal changes nothing."""

    def renew(tx):
        mailboxes.claim_due(tx, 1, MINE)
        first = row(tx, node_id).next_at
        mailboxes.renew(later(tx, 5), [node_id], YOURS)
        assert row(tx, node_id).next_at == first
        mailboxes.renew(later(tx, 5), [node_id], MINE)
        return row(tx, node_id).next_at - first

    assert await database.write(renew) == timedelta(seconds=5)


@pytest.mark.parametrize("seconds", [0, 60])
async def test_a_mailbox_given_back_is_due_when_told(database, node_id, seconds):
    """Now, or later."""

    def give_back(tx):
        mailboxes.claim_due(tx, 1, MINE)
        mailboxes.release(tx, {node_id: tx.now + timedelta(seconds=seconds)}, "me")
        if seconds:
            assert mailboxes.claim_due(later(tx, seconds - 0.001), 1, YOURS) == []
        return mailboxes.claim_due(later(tx, seconds), 1, YOURS)

    assert [box.node_id for box in await database.write(give_back)] == [node_id]


async def test_a_mailbox_with_nothing_due_waits_to_be_told(database, node_id):
    """Given back without a time it is never due, until there is work."""

    def give_back(tx):
        mailboxes.claim_due(tx, 1, MINE)
        mailboxes.release(tx, {node_id: None}, "me")
        assert mailboxes.claim_due(later(tx, 10**8), 1, YOURS) == []
        mailboxes.mark_work(tx, [node_id])
        return mailboxes.claim_due(tx, 1, YOURS)

    assert len(await database.write(give_back)) == 1


async def test_only_the_owner_gives_back(database, node_id):
    """A former owner's release changes nothing."""

    def give_back(tx):
        mailboxes.claim_due(tx, 1, MINE)
        mailboxes.release(tx, {node_id: tx.now}, "you")
        return row(tx, node_id).owner

    assert await database.write(give_back) == "me"


async def test_new_work_leaves_the_lease_and_counts_up(database, node_id):
    """The owner sees work_seq grow; nobody else may take the mailbox."""

    def mark(tx):
        (box,) = mailboxes.claim_due(tx, 1, MINE)
        before = row(tx, node_id)
        mailboxes.mark_work(later(tx, 1), [node_id])
        after = row(tx, node_id)
        assert (after.owner, after.epoch, after.next_at) == ("me", box.epoch, before.next_at)
        return after.work_seq - box.work_seq

    assert await database.write(mark) == 1


async def test_marking_tells_which_nodes_there_are(database, node_id):
    """One that has no mailbox is left out; the same one twice counts once."""
    found = await database.write(lambda tx: mailboxes.mark_work(tx, [node_id, node_id, 10**9]))
    assert found == {node_id}


async def test_one_owner_gives_everything_back(database):
    """What another holds stays; None means anybody."""

    def give_back(tx):
        due_nodes(tx, 5)
        mailboxes.claim_due(tx, 3, MINE)
        mailboxes.claim_due(tx, 2, YOURS)
        mine = mailboxes.release_all(tx, "me")
        again = len(mailboxes.claim_due(tx, 10, MINE))
        return mine, again, mailboxes.release_all(tx, None)

    assert await database.write(give_back) == (3, 3, 5)


async def test_reach_is_noted_once(database, node_id):
    """Since when a node is out of reach stays, until it is reached."""

    def note(tx):
        seen = []
        for seconds, reached in ((0, False), (5, False), (9, True), (9, True)):
            mailboxes.note_reach(later(tx, seconds), [node_id], reached=reached)
            seen.append(mailboxes.lock(tx, [node_id])[node_id].unreachable_since)
        return tx.now, seen

    now, seen = await database.write(note)
    assert seen == [now, now, None, None]


async def test_locking_returns_the_mailboxes_there_are(database, node_id):
    """None for a node that is not there, nothing for no nodes."""
    found = await database.write(lambda tx: mailboxes.lock(tx, [10**9, node_id]))
    assert list(found) == [node_id]
    assert await database.write(lambda tx: mailboxes.lock(tx, [])) == {}
