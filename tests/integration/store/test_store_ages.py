"""How long the oldest has waited."""

from datetime import timedelta

from sqlalchemy import update

from edgeplane.model.progress import Standing
from edgeplane.model.tasks import Lane, TaskKind
from edgeplane.store import ages, mailboxes, operations
from edgeplane.store.mailboxes import Lease
from edgeplane.store.rows import agent_tasks, node_mailboxes
from edgeplane.store.rows import operations as operation_rows
from kit.factories import add_nodes, add_tasks, new_task
from kit.operations import new_operation

NOTHING = {Lane.CONFIG: 0, Lane.PURGE: 0}
COUNTS = {**dict.fromkeys(Standing, 0), Standing.UNSENT: 3}


def _age(tx, task, **seconds):
    """Write times of a task as so many seconds ago; and further columns as they are."""
    values = {
        name: tx.now - timedelta(seconds=value) if isinstance(value, int) else value
        for name, value in seconds.items()
    }
    tx.conn.execute(update(agent_tasks).where(agent_tasks.c.id == task.id).values(**values))


async def test_an_empty_table_has_no_age(database):
    """0 is said for each lane."""
    found = await database.read(ages.oldest)
    assert (found.pending, found.in_flight, found.due_mailbox) == (NOTHING, NOTHING, 0)


async def test_each_lane_has_its_oldest(database):
    """Of all kinds in it; what is final or waits for its next try is left out."""

    def work(tx):
        (node,) = add_nodes(tx, 1)
        kinds = [TaskKind.RELOAD, TaskKind.APPLY_CONFIG, TaskKind.PURGE_CACHE, TaskKind.RELOAD]
        made = add_tasks(tx, [new_task(node, kind=kind) for kind in kinds * 2])
        _age(tx, made[0], updated_at=10)
        _age(tx, made[1], updated_at=30)
        _age(tx, made[2], updated_at=50, started_at=20, status="running")
        _age(tx, made[3], updated_at=99, started_at=5, status="running")
        _age(tx, made[4], updated_at=999, status="failed", lane=None)
        _age(tx, made[5], updated_at=999, status="success", lane=None)
        _age(tx, made[6], updated_at=2)
        _age(tx, made[7], updated_at=999, status="failed", next_retry_at=-9)
        return ages.oldest(tx)

    found = await database.write(work)
    assert found.pending == {Lane.CONFIG: 30, Lane.PURGE: 2}
    assert found.in_flight == {Lane.CONFIG: 5, Lane.PURGE: 20}


async def test_a_task_retried_late_counts_from_its_retry(database):
    """And does not hide the next one that has waited longer."""

    def work(tx):
        (node,) = add_nodes(tx, 1)
        old, other = add_tasks(tx, [new_task(node), new_task(node)])
        _age(tx, old, created_at=90_000, updated_at=1)
        _age(tx, other, created_at=60, updated_at=60)
        return ages.oldest(tx)

    assert (await database.write(work)).pending[Lane.CONFIG] == 60


async def test_a_due_mailbox_ages_until_it_is_claimed(database):
    """One that is leased is not due."""

    def work(tx):
        first, second = add_nodes(tx, 2)
        for node, seconds in ((first, 40), (second, 7)):
            due = tx.now - timedelta(seconds=seconds)
            mine = node_mailboxes.c.node_id == node
            tx.conn.execute(update(node_mailboxes).where(mine).values(next_at=due))
        before = ages.oldest(tx).due_mailbox
        mailboxes.claim_due(tx, 1, Lease(owner="me", seconds=10))
        return before, ages.oldest(tx).due_mailbox

    assert await database.write(work) == (40, 7)


async def test_an_operation_stands_still_beyond_what_an_attempt_may_take(database):
    """While it runs, and a node of it could move; the longest of all of them is told."""

    def work(tx):
        node_ids = add_nodes(tx, 1)
        ids = [operations.add(tx, new_operation(node_ids), COUNTS) for _ in range(6)]
        silent, young, away, paused, ended, short = ids
        _written(tx, silent, 700, timeout_seconds=100)
        _written(tx, young, 30, timeout_seconds=60)
        _written(tx, away, 9000, unsent=0, unreachable=3)
        _written(tx, paused, 9000, state="paused")
        _written(tx, ended, 9000, state="done")
        _written(tx, short, 90, timeout_seconds=60)
        first = ages.oldest(tx).standstill
        _written(tx, silent, 0)
        return first, ages.oldest(tx).standstill

    assert await database.write(work) == (600, 30)


def _written(tx, operation_id, seconds, **values):
    """Say that an operation was last changed so many seconds ago, and is as given."""
    written = tx.now - timedelta(seconds=seconds)
    mine = operation_rows.c.id == operation_id
    tx.conn.execute(update(operation_rows).where(mine).values(updated_at=written, **values))
