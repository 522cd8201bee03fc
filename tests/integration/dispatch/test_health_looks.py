"""Looks after the health of nodes, on every dialect, by hand: who is asked, and what follows."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from random import Random

import pytest
from sqlalchemy import update

from edgeplane.dispatch import health
from edgeplane.model.errors import DatabaseAway
from edgeplane.model.nodes import NodeStatus, NodeTransport, SubIP
from edgeplane.model.tasks import Outcome, Report, TaskKind, TaskStatus
from edgeplane.services import nodes as node_rule
from edgeplane.services.nodes import NodeChange
from edgeplane.store import mailboxes, node_health, presence
from edgeplane.store.rows import node_mailboxes
from edgeplane.transport.base import Busy, Refused, Unanswered, Unreachable
from kit import factories
from kit.engines import Turner, came_back
from kit.factories import add_nodes
from kit.health import INTERVAL, REFUSED, Answering, ClockedDatabase, Looker

GONE = Report(outcome=Outcome.UNREACHABLE, message=REFUSED)
DONE = Report(outcome=Outcome.SUCCEEDED, message="done", answered=True)
LONGEST = INTERVAL * 1.2


@pytest.fixture
async def database(url):
    """An open store on empty tables, with a clock."""
    opened = ClockedDatabase(url)
    if opened.dialect != "sqlite":
        await opened.write(factories.clear)
    yield opened
    await opened.close()


@pytest.fixture
def looker(database):
    """Looks by hand."""
    return Looker(database)


async def lose(looker, node_id):
    """Let a node be offline: it fails, and fails still when it is asked again."""
    looker.transport.refuse()
    await looker.look()
    await looker.look(12)
    assert (await looker.node(node_id)).status is NodeStatus.OFFLINE


async def put_off_deliveries(database, node_id):
    """Let the next delivery at a node be so far away that the node is asked before."""
    box = node_mailboxes.c.node_id == node_id
    far = database.now + timedelta(hours=1)
    await database.write(
        lambda tx: tx.conn.execute(update(node_mailboxes).where(box).values(next_at=far))
    )


async def test_a_new_node_is_asked_and_online(database, looker):
    """One good answer is enough; then it is left alone for an interval."""
    node = await node_rule.create(database, factories.new_node(status=NodeStatus.OFFLINE))
    assert await looker.look(1) == 1
    shown = await looker.node(node.id)
    assert (shown.status, shown.last_seen_at) == (NodeStatus.ONLINE, database.now)
    assert await looker.look(INTERVAL * 0.7) == 0
    assert await looker.look(INTERVAL * 0.5) == 1
    assert looker.counted("healthy") == 2


async def test_a_node_that_fails_is_asked_again_soon_and_offline_then(looker, node_id):
    """Ten to twelve seconds after the first failure; after that once an interval."""
    assert await looker.look() == 1
    looker.transport.refuse()
    assert await looker.look(LONGEST) == 1
    shown = await looker.node(node_id)
    assert (shown.status, shown.last_health_error) == (NodeStatus.ONLINE, REFUSED)
    assert await looker.look(9) == 0
    assert await looker.look(3) == 1
    assert (await looker.node(node_id)).status is NodeStatus.OFFLINE
    asked = [await looker.look(1) for _ in range(300)]
    assert 300 / 36 - 1 <= sum(asked) <= 300 / 24 + 1
    looker.transport.errors.clear()
    assert await looker.look(LONGEST) == 1
    shown = await looker.node(node_id)
    assert (shown.status, shown.last_health_error) == (NodeStatus.ONLINE, None)
    assert shown.last_seen_at == looker.database.now


@pytest.mark.parametrize(
    ("error", "outcome", "words"),
    [
        (Unreachable("connect to x: timed out"), "unreachable", "connect to x: timed out"),
        (Unanswered("no answer from x within 5 s"), "unanswered", "no answer from x within 5 s"),
        (Refused("status 401: unauthorized"), "unhealthy", "agent answers 401"),
    ],
    ids=["unreachable", "unanswered", "unhealthy"],
)
async def test_each_way_to_fail_has_its_words(looker, node_id, error, outcome, words):
    """In plain words; and the node is not online."""
    if outcome == "unhealthy":
        error.fault = words
    looker.transport.errors["127.0.0.1"] = error
    await looker.look()
    await looker.look(12)
    shown = await looker.node(node_id)
    assert (shown.status, shown.last_health_error) == (NodeStatus.OFFLINE, words)
    assert looker.counted(outcome) == 2


async def test_a_refusal_only_an_agent_gives_is_a_good_answer(looker, node_id):
    """It is there, and busy."""
    busy = Busy("status 429: many requests are under way", 1.0)
    busy.answered = True
    looker.transport.errors["127.0.0.1"] = busy
    await looker.look()
    assert (await looker.node(node_id)).last_seen_at == looker.database.now


@pytest.mark.parametrize("error", [Busy("out of file descriptors", 1.0), RuntimeError("a mistake")])
async def test_what_goes_wrong_here_says_nothing_of_the_node(looker, node_id, error, caplog):
    """It is asked again an interval later."""
    looker.transport.errors["127.0.0.1"] = error
    await looker.look()
    shown = await looker.node(node_id)
    assert (shown.last_seen_at, shown.last_health_error) == (None, None)
    assert ("could not be asked" in caplog.text) == isinstance(error, RuntimeError)
    assert await looker.look(LONGEST) == 1


async def test_addresses_are_tried_in_order_until_one_is_reached(looker):
    """The main one, then the enabled sub-IPs, as deliveries do."""
    subs = (
        SubIP(ip="127.0.0.2", enabled=False),
        SubIP(ip="127.0.0.3", enabled=True),
        SubIP(ip="127.0.0.4", enabled=True),
        SubIP(ip="127.0.0.5", enabled=True),
    )
    (node_id,) = await looker.database.write(lambda tx: add_nodes(tx, 1, sub_ips=subs))
    for ip in ("127.0.0.1", "127.0.0.3"):
        looker.transport.refuse(ip)
    await looker.look()
    assert [address.ip for address in looker.transport.asked] == [
        *("127.0.0.1", "127.0.0.3", "127.0.0.4")
    ]
    assert (await looker.node(node_id)).last_health_error is None
    for ip in ("127.0.0.4", "127.0.0.5"):
        looker.transport.refuse(ip)
    await looker.look(LONGEST)
    words = (await looker.node(node_id)).last_health_error
    assert words == "; ".join([REFUSED] * 4)


async def test_a_disabled_node_is_not_asked_and_one_in_maintenance_is(database, looker):
    """The latter keeps its status, and shows when it was seen."""
    off = (await database.write(lambda tx: add_nodes(tx, 1, enabled=False)))[0]
    paused = (await database.write(lambda tx: add_nodes(tx, 1, status=NodeStatus.MAINTENANCE)))[0]
    for _ in range(3):
        assert await looker.look(LONGEST) == 1
    assert (await looker.node(off)).last_seen_at is None
    shown = await looker.node(paused)
    assert (shown.status, shown.last_seen_at) == (NodeStatus.MAINTENANCE, database.now)
    looker.transport.refuse()
    for _ in range(3):
        await looker.look(LONGEST)
    shown = await looker.node(paused)
    assert (shown.status, shown.last_health_error) == (NodeStatus.MAINTENANCE, REFUSED)
    await node_rule.update(database, paused, NodeChange(status=NodeStatus.ONLINE))
    assert await looker.look(LONGEST) == 1
    assert (await looker.node(paused)).status is NodeStatus.OFFLINE


async def test_an_agent_that_connects_out_is_seen_while_it_is_connected(database, looker):
    """Nobody asks it; away for a minute it begins to fail, and is offline then."""
    (node_id,) = await database.write(lambda tx: add_nodes(tx, 1, transport=NodeTransport.SYNC))
    looker.health._started = -1e9  # this replica runs for long
    await database.step(lambda tx: presence.attach(tx, [node_id], "a-replica"))
    assert (await looker.node(node_id)).status is NodeStatus.ONLINE
    for _ in range(4):
        assert await looker.look(LONGEST) == 0
    assert (await looker.node(node_id)).last_seen_at == database.now
    await database.step(lambda tx: presence.detach(tx, [node_id], "a-replica"))
    left = database.now
    while (database.now - left).total_seconds() < 60:
        assert (await looker.node(node_id)).last_health_error is None
        await looker.look(5)
    for _ in range(10):
        await looker.look(5)
    shown = await looker.node(node_id)
    assert (shown.status, shown.last_seen_at) == (NodeStatus.OFFLINE, left)
    assert shown.last_health_error.startswith("its agent is not connected (transport sync) since 2")
    await database.step(lambda tx: presence.attach(tx, [node_id], "another"))
    shown = await looker.node(node_id)
    assert (shown.status, shown.last_health_error) == (NodeStatus.ONLINE, None)


async def test_agents_have_the_time_to_come_back_after_a_start(database, looker):
    """A replica that has just started takes nobody's absence for a failure."""
    (node_id,) = await database.write(lambda tx: add_nodes(tx, 1, transport=NodeTransport.SYNC))
    for _ in range(10):
        await looker.look(LONGEST)
    assert (await looker.node(node_id)).last_health_error is None


async def test_what_a_delivery_shows_counts_as_the_probe(looker, node_id):
    """A node that deliveries reach, or do not, is not asked as well."""
    await looker.look()
    for _ in range(20):
        looker.sightings._fresh.clear()  # time goes by for the memory too
        looker.sightings.delivered(node_id, DONE)
        assert await looker.look(15) == 0
    assert (await looker.node(node_id)).last_seen_at == looker.database.now
    for _ in range(20):
        looker.sightings.delivered(node_id, GONE)
        assert await looker.look(9.9 if looker.transport.asked[1:] else 15) == 0
    assert (await looker.node(node_id)).status is NodeStatus.OFFLINE


async def test_many_failed_deliveries_at_once_are_one_failure(looker, node_id):
    """A restart of the agent under fifty tasks is no outage."""
    await looker.look()
    for _ in range(50):
        looker.sightings.delivered(node_id, GONE)
        await looker.look(0.1)
    shown = await looker.node(node_id)
    assert (shown.status, shown.last_health_error) == (NodeStatus.ONLINE, REFUSED)
    looker.sightings.delivered(node_id, DONE)
    await looker.look(0.1)
    assert (await looker.node(node_id)).last_health_error is None


async def test_a_node_that_is_back_gets_everything_due_at_once(database, looker, node_id, ask):
    """What waits for its next try is due now, and the engine is told."""
    turner = Turner(database)
    asked = await ask(node_id, TaskKind.PURGE_CACHE, number=5)
    turn = await turner.take(now=database.now)
    await turner.take([came_back(each, Outcome.UNREACHABLE) for each in turn.begun])
    await put_off_deliveries(database, node_id)
    await lose(looker, node_id)
    assert looker.told == []
    looker.transport.errors.clear()
    await looker.look(LONGEST)
    assert looker.told == [node_id]
    box = (await database.write(lambda tx: mailboxes.lock(tx, [node_id])))[node_id]
    assert box.unreachable_since is None
    turn = await turner.take(now=database.now + timedelta(seconds=1))
    assert sorted(each.task.id for each in turn.begun) == [task.id for task in asked][:2]
    assert turn.begun[0].probe is False
    assert (await looker.node(node_id)).status is NodeStatus.ONLINE


async def test_an_unhealthy_answer_sends_nothing(database, looker, node_id, ask):
    """Whoever answers without knowing the token would only refuse it all for good."""
    turner = Turner(database)
    (waits,) = await ask(node_id)
    turn = await turner.take()
    await turner.take([came_back(turn.begun[0], Outcome.UNREACHABLE)])
    await put_off_deliveries(database, node_id)
    wrong = Refused("status 401")
    wrong.fault = "agent answers 401: AGENT_TOKEN differs"
    looker.transport.errors["127.0.0.1"] = wrong
    await looker.look(LONGEST)
    box = (await database.write(lambda tx: mailboxes.lock(tx, [node_id])))[node_id]
    assert box.unreachable_since is not None
    found = await database.read(lambda tx: factories.stored(tx, waits.id))
    assert (found.status, found.outcome) == (TaskStatus.FAILED, Outcome.UNREACHABLE)
    assert looker.told == []
    assert looker.counted("unhealthy") == 1


@pytest.mark.parametrize("number", [0, 1, 50])
async def test_an_offline_node_costs_one_probe_per_interval(database, looker, ask, node_id, number):
    """Whatever is queued: deliveries are the probes where there are any, and else it is asked."""
    turner = Turner(database, random=Random(5))
    await ask(node_id, TaskKind.PURGE_CACHE, number=number)
    looker.transport.refuse()
    start, due, delivered = database.now, None, []
    while (passed := (database.now - start).total_seconds()) < 2100:
        if due is not None and due <= database.now:
            due = None
        turn = await turner.take(now=database.now)
        if turn.begun:
            delivered.append(passed)
            results = [came_back(each, Outcome.UNREACHABLE, REFUSED) for each in turn.begun]
            for _ in results:
                looker.sightings.delivered(node_id, GONE)
            turn = await turner.take(results[:1], now=database.now)
        due = turn.next_due or due
        await looker.look()
        check = (await looker.check(node_id)).at
        database.now = max(min(check, due or check), database.now + timedelta(milliseconds=100))
    later = [at for at in delivered if at > 300]
    probes = len(looker.transport.asked)
    if number == 0:
        assert (later, delivered) == ([], [])
        assert 2100 / 36 <= probes <= 2100 / 24 + 2
    else:
        # In the first five minutes deliveries are tried more often, and the only ones to ask.
        assert probes < len(later) / 4
        assert len(later) + probes <= 1800 / INTERVAL * 1.3
    assert (await looker.node(node_id)).status is NodeStatus.OFFLINE


async def test_two_replicas_do_not_double_probes(database, url):
    """Whoever looks first takes a node; the other finds it taken."""
    ids = await database.write(lambda tx: add_nodes(tx, 60))
    other = ClockedDatabase(url)
    transport = Answering()
    lookers = [Looker(database, transport), Looker(other, transport)]
    asked = []
    for _ in range(8):
        before = len(transport.asked)
        other.now = database.later(15)
        await asyncio.gather(*(each.health.look() for each in lookers))
        await asyncio.gather(*(each.health.answered() for each in lookers))
        await asyncio.gather(*(each.health.look() for each in lookers))
        asked.append(len(transport.asked) - before)
    await other.close()
    assert asked[0] == len(ids)
    assert 60 * 120 / 36 - 60 <= sum(asked) <= 60 * (120 / 24 + 1)
    assert sum(each.counted("late") for each in lookers) == 0
    # over any 24 s a node is asked once at most
    assert all(one + next_one <= len(ids) for one, next_one in pairwise(asked))


async def test_a_late_answer_is_dropped(looker, node_id):
    """Its node was seen meanwhile by a delivery: that is newer."""
    looker.transport.refuse()
    looker.transport.hold = asyncio.Event()
    await looker.health.look()
    looker.sightings.delivered(node_id, DONE)
    await looker.health.look()
    looker.transport.hold.set()
    await looker.health.answered()
    await looker.health.look()
    assert (await looker.node(node_id)).last_health_error is None
    assert (looker.counted("late"), looker.counted("unreachable")) == (1, 0)


async def test_a_process_that_dies_while_it_asks_has_left_nodes_out_once(database, looker, node_id):
    """Another one asks them when they are due again."""
    looker.transport.hold = asyncio.Event()
    await looker.health.look()
    await looker.health.stop()
    other = Looker(database)
    assert await other.look(INTERVAL * 0.7) == 0
    assert await other.look(INTERVAL * 0.5) == 1
    assert (await other.node(node_id)).last_seen_at == database.now


async def test_what_could_not_be_written_is_written_at_the_next_look(database, looker, node_id):
    """The database was away: nothing is lost but time."""
    await looker.health.look()
    await looker.health.answered()
    looker.sightings.delivered(node_id + 1, DONE)
    database.away = 1
    with pytest.raises(DatabaseAway):
        await looker.health.look()
    await looker.health.look()
    assert (await looker.node(node_id)).status is NodeStatus.ONLINE
    assert looker.counted("healthy") == 1
    assert len(looker.sightings) == 0


async def test_no_more_are_asked_at_once_than_there_is_room_for(database, looker, monkeypatch):
    """Nodes that swallow packets take their place until they are given up."""
    monkeypatch.setattr(health, "MAX_OUT", 20)
    monkeypatch.setattr(health, "MAX_TAKEN", 8)
    await database.write(lambda tx: add_nodes(tx, 50))
    looker.transport.hold = asyncio.Event()
    for expected in (8, 16, 20, 20):
        await looker.health.look()
        await looker.transport.until_out(expected)
        assert looker.transport.out == expected
    looker.transport.hold.set()
    await looker.health.answered()
    for _ in range(8):
        await looker.look()
    assert looker.transport.most_out == 20
    assert len(looker.transport.asked) == 50


async def test_without_an_interval_nobody_is_asked_and_deliveries_are_written(database, node_id):
    """``EDGEPLANE_PROBE_SECONDS=0``."""
    looker = Looker(database, seconds=0)
    assert await looker.look(100) == 0
    looker.sightings.delivered(node_id, DONE)
    await looker.look()
    assert (await looker.node(node_id)).last_seen_at == database.now


async def test_a_look_without_news_writes_nothing(looker, node_id):
    """An idle control plane does not load its database."""
    del node_id
    await looker.look()
    steps = looker.database.steps
    for _ in range(10):
        await looker.look(1)
    assert looker.database.steps == steps


async def test_it_runs_by_itself_and_goes_on_after_errors(database, looker, node_id, monkeypatch):
    """Started once, it makes missing rows, looks, survives a database that is away, and stops."""
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.01)
    await database.write(lambda tx: node_health.remove(tx, [node_id]))
    database.away = 2
    looker.health.start()
    looker.health.start()
    async with asyncio.timeout(15):
        while (await looker.node(node_id)).last_seen_at is None:
            await asyncio.sleep(0.01)
    await looker.health.stop()
    assert looker.transport.asked[0].ip == "127.0.0.1"
