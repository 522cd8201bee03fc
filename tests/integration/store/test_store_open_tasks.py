"""The open tasks of nodes, on every dialect: oldest first, however long the queues are."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from edgeplane.model.tasks import TaskKind, TaskStatus
from edgeplane.store import open_tasks, task_moves
from edgeplane.store.rows import agent_tasks
from kit.factories import add_nodes, add_tasks, new_task

KINDS = (TaskKind.RELOAD, TaskKind.PURGE_CACHE, TaskKind.APPLY_CONFIG)


@pytest.fixture
async def node_ids(database):
    """Register nodes, more than fit one statement."""
    return await database.write(lambda tx: add_nodes(tx, 70))


def fill(tx, node_id, number):
    """Store tasks of all kinds by turns."""
    made = add_tasks(tx, [new_task(node_id, kind=KINDS[n % 3]) for n in range(number)])
    return sorted(made, key=lambda task: task.id)


def visible(queue):
    """Return the ids in a queue."""
    return [task.id for task in queue.tasks]


async def look(database, *node_ids, seconds=0):
    """Return what is open at these nodes, at a later time if asked."""

    def read(tx):
        later = replace(tx, now=tx.now + timedelta(seconds=seconds))
        return open_tasks.open_of_nodes(later, node_ids)

    return await database.read(read)


async def test_each_node_has_its_own_oldest_first(database, node_ids):
    """Final ones are left out; a node without any has an empty queue."""

    def store(tx):
        made = {node_id: fill(tx, node_id, number % 5) for number, node_id in enumerate(node_ids)}
        ended = [queue[0] for queue in made.values() if queue]
        task_moves.write_begun(tx, ended)
        task_moves.write_succeeded(tx, ended)
        return {node_id: queue[1:] for node_id, queue in made.items()}

    wanted = await database.write(store)
    found = await look(database, *node_ids)
    assert {node_id: queue.tasks for node_id, queue in found.items()} == wanted
    assert not any(queue.partial for queue in found.values())


async def test_neighbours_of_a_deep_queue_are_whole(database, node_ids):
    """Before it and behind it, also where together they fill more than one statement."""

    def store(tx):
        made = {node_id: fill(tx, node_id, 12) for node_id in node_ids[:60]}
        made[node_ids[30]] += fill(tx, node_ids[30], 600)
        return made

    wanted = await database.write(store)
    found = await look(database, *node_ids[:60])
    assert [n for n, queue in found.items() if queue.partial] == [node_ids[30]]
    for node_id in set(node_ids[:60]) - {node_ids[30]}:
        assert found[node_id].tasks == wanted[node_id]


@pytest.mark.parametrize(("number", "partial"), [(511, False), (512, True), (600, True)])
async def test_a_deep_queue_shows_the_oldest_of_each_lane(database, node_ids, number, partial):
    """It says so, and the rest is whole."""
    deep = node_ids[0]
    queue = await database.write(lambda tx: fill(tx, deep, number))
    found = (await look(database, deep))[deep]
    assert found.partial is partial
    assert visible(found) == sorted(set(visible(found)))
    for purge in (True, False):
        lane = [task.id for task in queue if (task.kind is TaskKind.PURGE_CACHE) == purge]
        seen = [task.id for task in found.tasks if (task.kind is TaskKind.PURGE_CACHE) == purge]
        shown = lane[: open_tasks.OPEN_WINDOW] if partial else lane
        newest = [task.id for task in queue if task.kind is TaskKind.APPLY_CONFIG][-1]
        assert seen == (shown if purge or newest in shown else [*shown, newest])


async def test_what_runs_behind_a_deep_queue_is_seen(database, node_ids):
    """Or it would be taken for nothing, and a second config task begun beside it."""
    deep = node_ids[0]

    def store(tx):
        queue = fill(tx, deep, 600)
        task_moves.write_begun(tx, queue[-3:])
        return queue

    queue = await database.write(store)
    found = (await look(database, deep))[deep]
    running = [task.id for task in found.tasks if task.status is TaskStatus.RUNNING]
    assert running == [task.id for task in queue[-3:]]


async def test_what_waits_does_not_hide_what_is_due_or_over(database, node_ids):
    """Purges that back off make way; what has expired is seen wherever it stands."""
    deep = node_ids[0]

    def store(tx):
        waiting = add_tasks(tx, [new_task(deep, kind=TaskKind.PURGE_CACHE) for _ in range(600)])
        config = add_tasks(tx, [new_task(deep) for _ in range(100)])
        (due,) = add_tasks(tx, [new_task(deep, kind=TaskKind.PURGE_CACHE)])
        (over,) = add_tasks(tx, [new_task(deep, deadline_seconds=60)])
        back = tx.now + timedelta(hours=1)
        moves = [(t, t._replace(status=TaskStatus.FAILED, next_retry_at=back)) for t in waiting]
        task_moves.write_moved(tx, moves)
        return waiting, config, due, over

    waiting, config, due, over = await database.write(store)
    found = visible((await look(database, deep))[deep])
    assert found == [*(task.id for task in config[: open_tasks.OPEN_WINDOW]), due.id]
    assert over.id in visible((await look(database, deep, seconds=61))[deep])
    later = visible((await look(database, deep, seconds=3601))[deep])
    assert later[: open_tasks.OPEN_WINDOW] == [t.id for t in waiting[: open_tasks.OPEN_WINDOW]]


async def test_a_row_of_a_newer_version_spoils_its_own_node_only(database, node_ids, caplog):
    """It is told by its number; what can be read of the queue is there."""

    def store(tx):
        spoilt, (well,) = fill(tx, node_ids[0], 2), fill(tx, node_ids[1], 1)
        changed = update(agent_tasks).where(agent_tasks.c.id == spoilt[0].id)
        tx.conn.execute(changed.values(type="renew_world"))
        return spoilt, well

    spoilt, well = await database.write(store)
    found = await look(database, *node_ids[:2])
    assert (found[node_ids[0]].unreadable, found[node_ids[1]].unreadable) == (True, False)
    assert found[node_ids[1]].tasks == [well]
    assert f"task {spoilt[0].id} at node {node_ids[0]} cannot be read" in caplog.text


async def test_a_large_payload_stays_where_it_is(database, node_ids):
    """4096 bytes come along, one more does not: bytes are counted, not characters."""
    node_id = node_ids[0]
    fits, large, wide = '{"a":"' + "x" * 4088 + '"}', '{"a":"' + "x" * 4089 + '"}', "é" * 2049
    asked = [new_task(node_id, payload=payload) for payload in (fits, large, wide)]
    await database.create(lambda tx: add_tasks(tx, asked))
    found = (await look(database, node_id))[node_id]
    assert [task.payload for task in found.tasks] == [fits, None, None]
    assert [task.payload_bytes for task in found.tasks] == [4096, 4097, 4098]
