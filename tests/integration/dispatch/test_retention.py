"""Retention: sweeps by one replica, a little at a time, that stop and go on."""

import asyncio
import logging
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from edgeplane.dispatch import retention
from edgeplane.dispatch.retention import Pruned, Retention
from edgeplane.model.errors import DatabaseAway
from edgeplane.model.tasks import TaskKind
from edgeplane.observe.metrics import Metrics
from edgeplane.settings import RetentionSettings
from edgeplane.store import leaders, removal
from edgeplane.store.rows import agent_tasks
from kit.factories import add_nodes, add_tasks, new_task

KEEP = RetentionSettings(success_days=30, failed_days=90)


@pytest.fixture
def metrics():
    """An object to count with."""
    return Metrics()


@pytest.fixture
def pauses():
    """What was paused, in seconds."""
    return []


@pytest.fixture
def make(database, metrics, pauses):
    """Make a replica's retention, that does not really pause."""

    def build(owner="one", keep=KEEP, pause=None, also=()):
        async def note(seconds):
            pauses.append(seconds)

        return Retention(database, keep, owner, metrics, also, pause or note)

    return build


def finished(tx, *, days, status="success", number=1, kind=TaskKind.RELOAD):
    """Store tasks that finished so many days ago."""
    (node,) = add_nodes(tx, 1)
    ids = [task.id for task in add_tasks(tx, [new_task(node, kind=kind) for _ in range(number)])]
    then = tx.now - timedelta(days=days, seconds=1)
    statement = update(agent_tasks).where(agent_tasks.c.id.in_(ids))
    tx.conn.execute(statement.values(status=status, lane=None, created_at=then, finished_at=then))
    return ids


async def count(database):
    """Count the tasks."""
    query = select(func.count()).select_from(agent_tasks)
    return await database.read(lambda tx: tx.conn.scalar(query))


def value(metrics, name, **labels):
    """Return a sample's value."""
    return metrics._registry.get_sample_value(name, labels)


async def test_each_is_kept_for_its_time(database, make, metrics):
    """Of every kind: successes for one time, failures for a longer one, what is open always."""

    def fill(tx):
        for kind in TaskKind:
            finished(tx, days=29, kind=kind)
            finished(tx, days=30, kind=kind)
            finished(tx, days=89, status="failed", kind=kind)
            finished(tx, days=90, status="failed", kind=kind)
        (node,) = add_nodes(tx, 1)
        add_tasks(tx, [new_task(node)])

    await database.write(fill)
    assert await make().look() == 6
    assert await count(database) == 7
    assert value(metrics, "edgeplane_rows_removed_total", table="agent_tasks") == 6


async def test_zero_keeps_for_ever(database, make):
    """Each of the two by itself."""
    await database.write(lambda tx: finished(tx, days=4000))
    await database.write(lambda tx: finished(tx, days=4000, status="failed"))
    assert await make(keep=RetentionSettings(success_days=0, failed_days=0)).look() == 0
    await database.write(_free)
    assert await make(keep=RetentionSettings(success_days=0, failed_days=1)).look() == 1
    assert await count(database) == 1


def _free(tx):
    """Let the next sweep be due."""
    tx.conn.execute(update(leaders.leaders).values(until_at=tx.now))


async def test_a_sweep_takes_a_little_at_a_time(database, make, pauses, monkeypatch):
    """Small transactions, and after each a pause of at least nine times what it took."""
    monkeypatch.setattr(removal, "MAX_ROWS", 10)
    monkeypatch.setattr(removal, "STEP", removal.Prepared(removal._step))
    monkeypatch.setattr(retention, "LEAST_PAUSE_SECONDS", 0.0)
    spent = []
    rest = Retention._rest

    async def watched(self, took):
        spent.append(took)
        await rest(self, took)

    monkeypatch.setattr(Retention, "_rest", watched)
    await database.write(lambda tx: finished(tx, days=40, number=35))
    sizes = []
    remove = removal.remove

    def noted(tx, walk, ids):
        sizes.append(len(ids))
        return remove(tx, walk, ids)

    monkeypatch.setattr(removal, "remove", noted)
    assert await make().look() == 35
    assert sizes == [10, 10, 10, 5]
    assert len(pauses) == len(spent) >= 4
    assert all(pause >= 9 * took for pause, took in zip(pauses, spent, strict=True))


async def test_the_next_sweep_is_an_hour_later_for_everybody(database, make):
    """Whoever looks in between finds nothing to do."""
    first, second = make("one"), make("two")
    assert await first.look() == 0
    await database.write(lambda tx: finished(tx, days=40))
    assert [await first.look(), await second.look()] == [0, 0]
    await database.write(_free)
    assert await second.look() == 1


async def test_one_replica_at_a_time(database, make):
    """A second one that looks meanwhile goes away again."""
    await database.write(lambda tx: finished(tx, days=40))
    found = []

    async def look_meanwhile(_seconds):
        found.append(await make("two").look())

    assert await make("one", pause=look_meanwhile).look() == 1
    assert found
    assert set(found) == {0}


async def test_one_that_was_paused_past_its_time_removes_nothing_more(
    database, make, monkeypatch, caplog
):
    """Its term is over, and the other one's has begun, whatever it still remembers."""
    monkeypatch.setattr(removal, "MAX_ROWS", 10)
    monkeypatch.setattr(removal, "STEP", removal.Prepared(removal._step))
    await database.write(lambda tx: finished(tx, days=40, number=30))

    async def freeze(_seconds):
        if await count(database) == 20:
            await database.write(_free)  # its time is over
            await database.write(lambda tx: leaders.take(tx, retention.DUTY, "two", 60))

    with caplog.at_level(logging.WARNING):
        assert await make("one", pause=freeze).look() == 0
    assert await count(database) == 20
    assert "another replica removes" in caplog.text


async def test_a_leader_that_died_is_followed(database, make):
    """Once its time is over; nobody has to do anything."""
    await database.write(lambda tx: leaders.take(tx, retention.DUTY, "dead", 60))
    await database.write(lambda tx: finished(tx, days=40))
    assert await make().look() == 0
    await database.write(_free)
    assert await make().look() == 1


async def test_further_tables_are_pruned_by_age(database, make, metrics):
    """In the same steps, until fewer went than might have; those kept for ever are left alone."""
    left, asked = [removal.MAX_ROWS, removal.MAX_ROWS, 3], []

    def prune(tx, before, limit):
        asked.append((tx.now - before, limit))
        return left.pop(0)

    also = [
        Pruned(table="events", days=7, prune=prune),
        Pruned(table="kept", days=0, prune=prune),
    ]
    await make(keep=RetentionSettings(success_days=0, failed_days=0), also=also).look()
    assert [limit for _, limit in asked] == [removal.MAX_ROWS] * 3
    assert all(timedelta(days=7) <= age < timedelta(days=7, minutes=5) for age, _ in asked)
    assert value(metrics, "edgeplane_rows_removed_total", table="events") == 1003


async def test_its_loop_outlives_what_goes_wrong(make, metrics, monkeypatch, caplog):
    """An absent database or a fault costs a look; stop ends it, in the middle of one too."""
    monkeypatch.setattr(retention, "LOOK_SECONDS", 0.001)
    errors, looking = [DatabaseAway("away"), ZeroDivisionError()], asyncio.Event()
    keeper = make()

    async def look():
        if errors:
            raise errors.pop(0)
        looking.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(keeper, "look", look)
    keeper.start()
    keeper.start()
    assert sum(task.get_name() == "retention" for task in asyncio.all_tasks()) == 1
    await looking.wait()
    await keeper.stop()
    assert all(task.get_name() != "retention" for task in asyncio.all_tasks())
    assert value(metrics, "edgeplane_removals_failed_total") == 2
    assert "ZeroDivisionError" in caplog.text
