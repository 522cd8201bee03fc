"""Nodes and users, on every dialect."""

import pytest

from edgeplane.model.errors import AlreadyExists, NotFound, WrongState
from edgeplane.model.nodes import NodeStatus, SubIP
from edgeplane.model.tasks import Outcome
from edgeplane.model.users import Role
from edgeplane.services import nodes as rule
from edgeplane.services.nodes import NodeChange
from edgeplane.store import mailboxes, nodes, users
from kit.engines import Turner, came_back
from kit.factories import add_nodes, add_tasks, new_node, new_task

SUBS = (SubIP(ip="127.0.0.2", enabled=False), SubIP(ip="::1", enabled=True))


async def test_a_node_is_read_back_as_it_was_made(database):
    """Disabled stays disabled, sub-IPs keep order and switch, the status is as given."""
    asked = new_node(enabled=False, status=NodeStatus.OFFLINE, sub_ips=SUBS, name="节点 😀")
    made = await rule.create(database, asked)
    assert (made.enabled, made.status, made.sub_ips) == (False, NodeStatus.OFFLINE, SUBS)
    assert await database.read(lambda tx: nodes.get(tx, made.id)) == made
    boxes = await database.write(lambda tx: mailboxes.lock(tx, [made.id]))
    assert boxes[made.id].owner is None


async def test_a_name_is_taken_once(database):
    """Byte by byte: another case is another name; the failed one leaves nothing behind."""
    await rule.create(database, new_node(name="edge"))
    other = await rule.create(database, new_node(name="Edge"))
    with pytest.raises(AlreadyExists, match="^name: a node named edge already exists$"):
        await rule.create(database, new_node(name="edge", sub_ips=SUBS))
    with pytest.raises(AlreadyExists, match="^name: a node named edge already exists$"):
        await rule.update(database, other.id, NodeChange(name="edge"))


async def test_only_what_is_named_is_changed(database):
    """The rest stays; sub-IPs are replaced as a whole; the queue is looked at again."""
    made = await rule.create(database, new_node(sub_ips=SUBS))
    changed = await rule.update(database, made.id, NodeChange(enabled=False, agent_port=9191))
    assert (changed.enabled, changed.agent_port) == (False, 9191)
    assert (changed.name, changed.main_ip, changed.sub_ips) == (made.name, made.main_ip, SUBS)
    emptied = await rule.update(database, made.id, NodeChange(sub_ips=()))
    assert emptied.sub_ips == ()
    boxes = await database.write(lambda tx: mailboxes.lock(tx, [made.id]))
    assert boxes[made.id].work_seq == 2


async def test_changing_no_node_is_told(database):
    """The message names it."""
    with pytest.raises(NotFound, match="^id: node 77 not found$"):
        await rule.update(database, 77, NodeChange(enabled=True))


async def test_a_node_with_unfinished_tasks_is_not_deleted(database):
    """Nor are those asked for with it; once all is final they go, with all that is theirs."""
    (busy, idle) = await database.write(lambda tx: add_nodes(tx, 2, sub_ips=SUBS))
    await database.create(lambda tx: add_tasks(tx, [new_task(busy)]))
    with pytest.raises(WrongState, match=f"^ids: node {busy} has unfinished tasks: "):
        await rule.delete(database, [idle, busy])
    assert len(await database.read(lambda tx: nodes.many(tx, [busy, idle]))) == 2
    turner = Turner(database)
    turn = await turner.take()
    await turner.take([came_back(turn.begun[0], Outcome.FAILED)])
    assert await rule.delete(database, [idle, busy, busy, 10**9]) == 2
    assert await database.read(lambda tx: nodes.many(tx, [busy, idle])) == {}
    assert await database.write(lambda tx: mailboxes.lock(tx, [busy, idle])) == {}


async def test_a_node_waiting_for_a_retry_is_not_deleted(database):
    """Failed for now is not finished."""
    (node_id,) = await database.write(lambda tx: add_nodes(tx, 1))
    await database.create(lambda tx: add_tasks(tx, [new_task(node_id)]))
    turner = Turner(database)
    turn = await turner.take()
    await turner.take([came_back(turn.begun[0], Outcome.UNREACHABLE)])
    with pytest.raises(WrongState):
        await rule.delete(database, [node_id])


async def test_paused_nodes_are_those_a_person_paused(database):
    """Disabled or in maintenance, not offline."""

    def pause(tx):
        add_nodes(tx, 1)
        add_nodes(tx, 1, status=NodeStatus.OFFLINE)
        off = add_nodes(tx, 1, enabled=False) + add_nodes(tx, 1, status=NodeStatus.MAINTENANCE)
        every = [node.id for node in nodes.many(tx, range(off[0] - 2, off[1] + 1)).values()]
        assert len(every) == 4
        return set(off), nodes.paused(tx, every)

    off, paused = await database.write(pause)
    assert paused == off


async def test_a_user_is_found_by_the_exact_name(database):
    """Neither in another case, nor by a name no user can have."""
    made = await database.write(lambda tx: users.add(tx, "ann", "a-hash", Role.OPERATOR))
    found = await database.read(lambda tx: users.by_name(tx, "ann"))
    assert (found.user, found.password_hash) == (made, "a-hash")
    assert "a-hash" not in repr(found)
    assert await database.read(lambda tx: users.by_id(tx, made.id)) == found
    for name in ("Ann", "ann ", "änn", "ann😀", ""):
        assert await database.read(lambda tx, name=name: users.by_name(tx, name)) is None
    assert await database.read(lambda tx: users.by_id(tx, made.id + 1)) is None


async def test_a_user_name_is_taken_once(database):
    """The message names it."""
    await database.write(lambda tx: users.add(tx, "ann", "x", Role.ADMIN))
    with pytest.raises(AlreadyExists, match="^username: ann already exists$"):
        await database.write(lambda tx: users.add(tx, "ann", "y", Role.VIEWER))
    assert await database.read(users.count) == 1


async def test_users_are_changed_one_column_at_a_time(database):
    """Role, standing and password, each alone; oldest first in the list."""

    def change(tx):
        users.add(tx, "ann", "x", Role.VIEWER)
        users.add(tx, "bob", "y", Role.VIEWER)
        users.change(tx, "ann", role=Role.ADMIN.value)
        users.change(tx, "bob", active=False)
        users.change(tx, "bob", password_hash="z")
        bob = users.by_name(tx, "bob")
        assert bob is not None
        return users.everyone(tx), bob.password_hash

    everyone, stored = await database.write(change)
    assert [(user.username, user.role, user.active) for user in everyone] == [
        ("ann", Role.ADMIN, True),
        ("bob", Role.VIEWER, False),
    ]
    assert stored == "z"


@pytest.mark.parametrize("name", ["nobody", "nöbody"])
async def test_changing_nobody_is_told(database, name):
    """The message names who was meant."""
    with pytest.raises(NotFound, match=f"^username: no user is named {name}$"):
        await database.write(lambda tx: users.change(tx, name, active=True))
