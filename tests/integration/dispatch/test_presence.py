"""Who is there: agents that connect out, replicas, and who may act for a node."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select

from edgeplane.dispatch import presence as engine_side
from edgeplane.dispatch.presence import Presence
from edgeplane.model.errors import DatabaseAway, NotFound, WrongState
from edgeplane.model.nodes import NodeTransport
from edgeplane.model.tasks import Outcome, TaskStatus
from edgeplane.services import nodes as node_rule
from edgeplane.services.nodes import NodeChange
from edgeplane.store import mailboxes, nodes, presence
from edgeplane.store.rows import node_mailboxes, replicas
from edgeplane.transport.links import Links
from kit.engines import Turner, came_back
from kit.factories import add_nodes

PATIENCE = 10


class Here(Presence):
    """The presence of a replica named "me", and what it has told."""

    def __init__(self, database, links):
        self.told = []
        self.links = links
        super().__init__(database, links, "me", lambda ids: self.told.append(set(ids)))


@pytest.fixture
async def node_id(database):
    """Register a node whose agent connects out."""
    return (
        await database.write(
            lambda tx: add_nodes(tx, 1, name="edge-1", transport=NodeTransport.SYNC)
        )
    )[0]


@pytest.fixture
def box(database, node_id):
    """Read the node's mailbox."""

    async def read():
        query = select(node_mailboxes).where(node_mailboxes.c.node_id == node_id)
        return await database.read(lambda tx: tx.conn.execute(query).one())

    return read


@pytest.fixture
async def here(database):
    """Run it."""
    made = Here(database, Links())
    made.start()
    yield made
    await made.stop()


async def attach(database, node_id, replica):
    """Note that the node's agent is connected there."""
    await database.write(lambda tx: presence.attach(tx, [node_id], replica))


def ids(turn):
    """Return the ids of what began."""
    return [delivery.task.id for delivery in turn.begun]


async def test_only_the_replica_its_agent_is_connected_to_claims(database, ask, node_id):
    """Another one passes the mailbox by, however long it is due."""
    me, other = Turner(database, owner="me"), Turner(database, owner="other")
    await attach(database, node_id, "other")
    (task,) = await ask(node_id)
    assert ids(await me.take()) == []
    assert ids(await other.take()) == [task.id]


async def test_anybody_claims_where_no_agent_is_connected(database, ask, node_id):
    """So that what waits at a node whose agent is gone expires, and is told why it waits."""
    (task,) = await ask(node_id)
    assert ids(await Turner(database, owner="me").take()) == [task.id]


async def test_an_agent_that_comes_over_brings_its_node(database, ask, node_id, look):
    """Whoever held the mailbox has lost it; what ran there is asked for again, as the same run."""
    old, new = Turner(database, owner="old"), Turner(database, owner="new")
    await attach(database, node_id, "old")
    (task,) = await ask(node_id)
    (sent,) = (await old.take()).begun
    await attach(database, node_id, "new")
    (again,) = (await new.take()).begun
    assert (again.task.id, again.task.run) == (task.id, sent.task.run)
    assert again.epoch > sent.epoch
    late = await old.take([came_back(sent)])
    assert (late.late, late.held) == (1, {})
    await new.take([came_back(again)])
    assert (await look([task]))[0].status is TaskStatus.SUCCESS


async def test_what_waited_for_the_agent_is_due_when_it_comes(database, ask, node_id, box):
    """Its next probe need not be waited for."""
    me = Turner(database)
    (task,) = await ask(node_id)
    (sent,) = (await me.take()).begun
    await me.take([came_back(sent, Outcome.UNREACHABLE)])
    assert (await box()).unreachable_since is not None
    await attach(database, node_id, "me")
    assert (await box()).unreachable_since is None
    assert ids(await me.take()) == [task.id]


async def test_an_idle_node_is_not_due_when_its_agent_comes(database, node_id, box):
    """Ten thousand that come back claim nothing."""
    await attach(database, node_id, "me")
    found = await box()
    assert (found.via, found.next_at, found.owner) == ("me", None, None)


async def test_a_lease_of_ones_own_stays(database, ask, node_id, box):
    """An agent that lost its connection for a moment disturbs nothing."""
    me = Turner(database, owner="me")
    await attach(database, node_id, "me")
    await ask(node_id)
    await me.take()
    before = await box()
    await attach(database, node_id, "me")
    assert await box() == before


async def test_detach_is_for_ones_own_only(database, node_id, box):
    """An agent that has gone to another replica stays there."""
    await attach(database, node_id, "other")
    await database.write(lambda tx: presence.detach(tx, [node_id], "me"))
    assert (await box()).via == "other"
    await database.write(lambda tx: presence.detach(tx, [node_id], "other"))
    assert (await box()).via is None


async def test_a_silent_replica_loses_its_nodes(database, node_id, box):
    """A live one keeps its own."""
    lively = (await database.write(lambda tx: add_nodes(tx, 1)))[0]
    await attach(database, node_id, "dead")
    await attach(database, lively, "alive")

    def age(tx):
        for name, seconds in (("dead", 9), ("alive", 7)):
            presence.beat(tx, name)
            at = tx.now - timedelta(seconds=seconds)
            tx.conn.execute(replicas.update().where(replicas.c.id == name).values(seen_at=at))

    await database.write(age)
    assert await database.write(lambda tx: presence.bury(tx, 8.0)) == ["dead"]
    assert (await box()).via is None
    assert await database.read(lambda tx: presence.attached(tx, "alive")) == {lively}
    assert await database.write(lambda tx: presence.bury(tx, 8.0)) == []


async def test_a_node_set_to_push_is_nobodys(database, node_id, box):
    """It is called from then on."""
    await attach(database, node_id, "me")
    change = NodeChange(transport=NodeTransport.PUSH)
    await node_rule.update(database, node_id, change)
    assert (await box()).via is None


async def test_admission(database, node_id, here, box):
    """It is committed before it is told, and the engine hears of it."""
    assert await here.admit("edge-1") == node_id
    here.links.open(node_id, "edge-1", "session-1", "192.0.2.1:1")
    assert (await box()).via == "me"
    async with asyncio.timeout(PATIENCE):
        while {node_id} not in here.told:
            await asyncio.sleep(0.001)


async def test_who_is_not_admitted(database, node_id, here):
    """The words say what to do."""
    await database.write(lambda tx: add_nodes(tx, 1, name="called"))
    with pytest.raises(NotFound, match="no node is named nobody: create it"):
        await here.admit("nobody")
    with pytest.raises(WrongState, match="called is set to push: `edgeplane node update called"):
        await here.admit("called")
    assert await database.read(lambda tx: presence.attached(tx, "me")) == set()


async def test_many_at_once_share_a_transaction(database, here):
    """Reconnecting fleets cost few commits."""
    names = [f"many-{number}" for number in range(1200)]
    found = await database.write(
        lambda tx: {
            name: add_nodes(tx, 1, name=name, transport=NodeTransport.SYNC)[0] for name in names
        }
    )
    commits = 0

    def count():
        nonlocal commits
        commits += 1

    database.on_commit = count
    admitted = await asyncio.gather(*(here.admit(name) for name in names))
    assert admitted == list(found.values())
    assert commits <= 10
    assert await database.read(lambda tx: presence.attached(tx, "me")) == set(admitted)


async def test_who_goes_is_let_go(database, node_id, here, box):
    """The end of a link frees the node, unless its agent is back already."""
    await here.admit("edge-1")
    link = here.links.open(node_id, "edge-1", "session-1", "192.0.2.1:1")
    here.links.close(link, "it went")
    async with asyncio.timeout(PATIENCE):
        while (await box()).via is not None:
            await asyncio.sleep(0.001)


async def test_a_link_whose_node_is_anothers_ends(database, node_id, here, monkeypatch):
    """A replica that was paused finds out what it has lost."""
    await here.admit("edge-1")
    here.links.open(node_id, "edge-1", "session-1", "192.0.2.1:1")
    await attach(database, node_id, "other")
    await here._compare()
    assert node_id not in here.links
    assert await database.read(lambda tx: presence.attached(tx, "other")) == {node_id}


async def test_a_deleted_nodes_link_ends(database, node_id, here):
    """Its agent has to be admitted anew, which it will not be."""
    await here.admit("edge-1")
    here.links.open(node_id, "edge-1", "session-1", "192.0.2.1:1")
    await node_rule.delete(database, [node_id])
    await here._compare()
    assert node_id not in here.links


async def test_without_its_database_a_replica_sends_its_agents_away(
    database, node_id, here, monkeypatch
):
    """They may reach another one."""
    monkeypatch.setattr(engine_side, "SILENT_SECONDS", 0.0)
    await here.admit("edge-1")
    here.links.open(node_id, "edge-1", "session-1", "192.0.2.1:1")

    async def away(work):
        raise DatabaseAway("away")

    monkeypatch.setattr(database, "write", away)
    async with asyncio.timeout(PATIENCE):
        while node_id in here.links:
            await asyncio.sleep(0.01)
    with pytest.raises(DatabaseAway):
        await here.admit("edge-1")
    monkeypatch.undo()


async def test_a_stopped_replica_leaves_nothing(database, node_id, box):
    """Whoever takes over need not wait for its silence."""
    made = Presence(database, Links(), "brief", lambda _: None)
    made.start()
    await made.admit("edge-1")
    await made.stop()
    assert (await box()).via is None
    assert list(await database.read(lambda tx: tx.conn.execute(select(replicas)).all())) == []


async def test_a_paused_replica_claims_nothing_of_what_it_lost(database, ask, node_id):
    """It wakes up, and its agent is connected to another."""
    paused, other = Turner(database, owner="paused"), Turner(database, owner="other")
    await attach(database, node_id, "paused")
    await attach(database, node_id, "other")
    (task,) = await ask(node_id)
    assert ids(await paused.take()) == []
    assert ids(await other.take()) == [task.id]
    assert await database.read(lambda tx: nodes.get(tx, node_id)) is not None
    assert await database.write(lambda tx: mailboxes.release_all(tx, "paused")) == 0
