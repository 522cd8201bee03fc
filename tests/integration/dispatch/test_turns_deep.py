"""Turns of the engine at nodes with deep queues, and at nodes whose rows are spoilt."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from edgeplane.dispatch.work import Room
from edgeplane.model.tasks import Outcome, TaskKind, TaskStatus
from edgeplane.services import tasks as task_rule
from edgeplane.store import open_tasks, tasks
from edgeplane.store.rows import agent_tasks
from kit.engines import came_back
from kit.factories import add_nodes, ended_attempts, new_task

PURGE = TaskKind.PURGE_CACHE
_T = agent_tasks.c


async def left(database):
    """Count the tasks that are not final."""
    query = select(func.count()).where(_T.lane.is_not(None))
    return await database.read(lambda tx: tx.conn.scalar(query))


async def test_all_of_a_deep_queue_expires(turner, ask, node_id):
    """However many pass their deadline together, none is left with nobody to look at it."""
    await ask(node_id, PURGE, number=600, deadline_seconds=1)
    (first,) = await ask(node_id, PURGE, deadline_seconds=2)
    turn = await turner.take(now=first.created_at + timedelta(seconds=5))
    turns = 1
    while await left(turner.database):
        assert turn.next_due is not None
        turn = await turner.take(now=turn.next_due)
        turns += 1
    assert turns <= 601 // open_tasks.OPEN_WINDOW + 2
    assert turn.begun == []


async def test_a_failed_probe_speaks_for_all_of_a_deep_queue(turner, ask, node_id):
    """A window at a time, until every one of them says why it waits."""
    await ask(node_id, PURGE, number=600, max_attempts=1)
    turn = await turner.take()
    results = [came_back(sent, Outcome.UNREACHABLE, "refused") for sent in turn.begun]
    turn = await turner.take(results, now=turn.now)
    for _ in range(20):
        if not await left(turner.database):
            break
        turn = await turner.take(now=turn.next_due)
        (probe,) = turn.begun
        result = came_back(probe, Outcome.UNREACHABLE, "refused")
        turn = await turner.take([result], now=turn.now)
    assert await left(turner.database) == 0


async def test_what_expires_behind_the_window_is_found_in_time(turner, ask, node_id):
    """Nothing it waits behind has a word in it."""
    await ask(node_id, number=600)
    (short,) = await ask(node_id, deadline_seconds=60)
    turn = await turner.take(now=short.created_at)
    late = short.deadline_at + timedelta(milliseconds=1)
    turn = await turner.take(look_at=[node_id], now=late)
    (found,) = await turner.database.read(lambda tx: [tasks.get(tx, short.id)])
    assert found.outcome is Outcome.EXPIRED
    assert turn.look_again[node_id] - turn.now <= timedelta(seconds=5)


async def test_no_second_config_task_begins_beside_one_behind_the_window(turner, ask, node_id):
    """A person retries more old ones than are looked at, while a new one is out."""
    old = await ask(node_id, number=600)
    failed = {"status": "failed", "lane": None, "outcome": "failed", "attempts": 1}
    await turner.database.write(
        lambda tx: tx.conn.execute(update(agent_tasks).values(**failed)) and None
    )
    (new,) = await ask(node_id)
    turn = await turner.take()
    assert [sent.task.id for sent in turn.begun] == [new.id]
    for task in old:
        await task_rule.retry(turner.database, task.id)
    turn = await turner.take(look_at=[node_id])
    assert (turn.begun, turn.rescued) == ([], 0)


async def test_purges_leave_the_config_lane_its_place(turner, ask, node_id):
    """A config task begins at once, though more purges are due than may be out."""
    await ask(node_id, PURGE, number=100)
    (config,) = await ask(node_id)
    turn = await turner.take()
    assert config.id in [sent.task.id for sent in turn.begun]


async def test_with_one_place_the_older_lane_goes_first(turner, ask, node_id):
    """Neither lane shuts the other out."""
    turner.max_per_node = 1
    (purge,) = await ask(node_id, PURGE)
    (config,) = await ask(node_id)
    (later,) = await ask(node_id, PURGE)
    order = []
    turn = await turner.take()
    while turn.begun:
        order += [sent.task.id for sent in turn.begun]
        turn = await turner.take([came_back(sent, Outcome.SUCCEEDED) for sent in turn.begun])
    assert order == [purge.id, config.id, later.id]


async def test_a_node_just_taken_is_served_before_busy_ones(turner, ask, database, node_id):
    """Those with deliveries out must not take every place that falls free."""
    turner.max_per_node = 4
    await ask(node_id, PURGE, number=20)
    turn = await turner.take(room=Room(deliveries=4))
    (other,) = await database.write(lambda tx: add_nodes(tx, 1))
    assert other > node_id
    await ask(other, PURGE)
    back = [came_back(turn.begun[0], Outcome.SUCCEEDED)]
    turn = await turner.take(back, room=Room(deliveries=1))
    assert [sent.task.node_id for sent in turn.begun] == [other]


async def test_large_payloads_are_bounded_by_their_bytes(turner, ask, database):
    """As many begin as there is room for; the others wait for it."""
    nodes = await database.write(lambda tx: add_nodes(tx, 3))
    for node in nodes:
        await ask(node, payload='{"a":"' + "x" * 10_000 + '"}')
    turn = await turner.take(room=Room(payload_bytes=25_000))
    assert len(turn.begun) == 2
    assert turn.next_due - turn.now <= timedelta(milliseconds=50)


async def test_nodes_that_are_gone_do_not_take_every_place(turner, ask, database):
    """Probes have a share of the places; what is well has the rest."""
    nodes = await database.write(lambda tx: add_nodes(tx, 4))
    for node in nodes[:3]:
        await ask(node)
    turn = await turner.take()
    lost = [came_back(sent, Outcome.UNREACHABLE, "refused") for sent in turn.begun]
    turn = await turner.take(lost, now=turn.now)
    await ask(nodes[3])
    late = turn.now + timedelta(seconds=2)
    turn = await turner.take(now=late, room=Room(deliveries=10, probes=1))
    assert sorted(sent.probe for sent in turn.begun) == [False, True]


async def test_a_row_of_a_newer_version_spoils_its_own_node_only(turner, ask, database, node_id):
    """It is let go of for a while; the others' work goes on."""
    (spoilt,) = await ask(node_id)
    changed = update(agent_tasks).where(_T.id == spoilt.id).values(type="renew_world")
    await database.write(lambda tx: tx.conn.execute(changed) and None)
    (other,) = await database.write(lambda tx: add_nodes(tx, 1))
    (well,) = await ask(other)
    turn = await turner.take()
    assert [sent.task.id for sent in turn.begun] == [well.id]
    assert (node_id in turn.gone, turn.next_due - turn.now) == (True, timedelta(seconds=60))


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED])
async def test_a_number_used_twice_stops_nobody(turner, ask, look, node_id, database, outcome):
    """Somebody set ``attempts`` back by hand: the task ends, and the first record stays."""
    (asked,) = await ask(node_id)
    turn = await turner.take()
    await turner.take([came_back(turn.begun[0], Outcome.REFUSED, "first")])
    back = update(agent_tasks).where(_T.id == asked.id).values(attempts=0)
    await database.write(lambda tx: tx.conn.execute(back) and None)
    await task_rule.retry(database, asked.id)
    turn = await turner.take()
    await turner.take([came_back(turn.begun[0], outcome, "second")])
    (found,) = await look([asked])
    assert found.final
    assert found.status is not TaskStatus.RUNNING
    (attempt,) = await database.read(lambda tx: ended_attempts(tx, asked.id))
    assert attempt.message == "first"


def test_a_task_larger_than_all_room_is_never_asked_for():
    """The bound on what is out is far above the largest payload, or one could wait for ever."""
    from edgeplane.dispatch.deliveries import MAX_PAYLOAD_BYTES_OUT
    from edgeplane.model.tasks import MAX_PAYLOAD_BYTES

    assert MAX_PAYLOAD_BYTES_OUT >= 16 * MAX_PAYLOAD_BYTES
    assert new_task(1).payload_bytes == 2
