"""The open tasks of nodes, on every dialect: oldest first, however long the queues are."""

import pytest

from edgeplane.model.tasks import TaskKind
from edgeplane.store import open_tasks, tasks
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


async def test_each_node_has_its_own_oldest_first(database, node_ids):
    """Final ones are left out; a node without any has an empty queue."""

    def store(tx):
        made = {node_id: fill(tx, node_id, number % 5) for number, node_id in enumerate(node_ids)}
        ended = [queue[0] for queue in made.values() if queue]
        tasks.write_begun(tx, ended)
        tasks.write_succeeded(tx, ended)
        return {node_id: queue[1:] for node_id, queue in made.items()}

    wanted = await database.write(store)
    found = await database.read(lambda tx: open_tasks.open_of_nodes(tx, node_ids))
    assert found == wanted


@pytest.mark.parametrize("number", [511, 512, 600])
async def test_a_long_queue_shows_the_oldest_of_each_lane(database, node_ids, number):
    """And does not hide its neighbours'."""
    long, short = node_ids[0], node_ids[1]

    def store(tx):
        return fill(tx, long, number), fill(tx, short, 3)

    queue, neighbours = await database.write(store)
    found = await database.read(lambda tx: open_tasks.open_of_nodes(tx, [long, short]))
    assert found[short] == neighbours
    for purge in (True, False):
        lane = [task.id for task in queue if (task.kind is TaskKind.PURGE_CACHE) == purge]
        seen = [task.id for task in found[long] if (task.kind is TaskKind.PURGE_CACHE) == purge]
        assert len(seen) >= open_tasks.OPEN_WINDOW
        assert seen == lane[: len(seen)]


async def test_a_large_payload_stays_where_it_is(database, node_ids):
    """4096 bytes come along, one more does not: bytes are counted, not characters."""
    node_id = node_ids[0]
    fits, large, wide = '{"a":"' + "x" * 4088 + '"}', '{"a":"' + "x" * 4089 + '"}', "é" * 2049
    asked = [new_task(node_id, payload=payload) for payload in (fits, large, wide)]
    await database.create(lambda tx: add_tasks(tx, asked))
    found = await database.read(lambda tx: open_tasks.open_of_nodes(tx, [node_id]))
    assert [task.payload for task in found[node_id]] == [fits, None, None]
