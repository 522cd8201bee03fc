"""What the engine counts of its work."""

import pytest

from edgeplane.dispatch.meters import Meters
from edgeplane.dispatch.work import Turn
from edgeplane.model.clock import utc_now
from edgeplane.model.retry import RetryPolicy
from edgeplane.model.tasks import Outcome, TaskKind, TaskStatus
from edgeplane.observe.metrics import Metrics
from edgeplane.store import mailboxes
from edgeplane.transport.base import Stale, Unreachable
from kit.engines import ScriptedTransport, WatchedDatabase, came_back, running_engine
from kit.factories import a_task, add_nodes, after, new_task, stored


@pytest.fixture
async def database(sqlite_template, tmp_path):
    """A SQLite store that tells of the engine's turns."""
    opened = WatchedDatabase(sqlite_template.copy(tmp_path))
    yield opened
    await opened.close()


@pytest.fixture
async def node_id(database):
    """Register a node."""
    return (await database.write(lambda tx: add_nodes(tx, 1)))[0]


@pytest.fixture
def metrics():
    """An object to count with."""
    return Metrics()


def value(metrics, name, **labels):
    """Return a sample's value; 0 where there is none yet."""
    return metrics._registry.get_sample_value(name, labels) or 0


async def final(database, asked):
    """Wait until a task is final."""
    return await database.until(lambda tx: task if (task := stored(tx, asked.id)).final else None)


async def test_a_task_is_counted_on_its_whole_way(database, node_id, metrics):
    """Batches, claim, delivery, outcome, and the time from create to success."""
    transport = ScriptedTransport()
    async with running_engine(database, transport, metrics=metrics) as running:
        asked = await running.intake.submit(new_task(node_id))
        call = await transport.next()
        metrics.text()
        assert value(metrics, "edgeplane_deliveries_out") == 1
        assert value(metrics, "edgeplane_mailboxes_held") == 1
        call.succeed()
        await final(database, asked)
    metrics.text()
    assert value(metrics, "edgeplane_deliveries_out") == 0
    assert value(metrics, "edgeplane_create_batch_tasks_sum") == 1
    assert value(metrics, "edgeplane_claim_mailboxes_sum") == 1
    assert value(metrics, "edgeplane_claim_seconds_count") >= 1
    assert value(metrics, "edgeplane_turn_results_sum") == 1
    assert value(metrics, "edgeplane_turn_begun_tasks_sum") == 1
    assert value(metrics, "edgeplane_turn_seconds_count") >= 2
    assert value(metrics, "edgeplane_results_total", type="reload", outcome="succeeded") == 1
    assert value(metrics, "edgeplane_delivery_seconds_count", outcome="succeeded") == 1
    assert value(metrics, "edgeplane_task_seconds_count", type="reload") == 1


async def test_a_stale_epoch_and_an_unreached_node_are_told_apart(database, node_id, metrics):
    """Both are tried again; only the first is a fence that held."""
    transport = ScriptedTransport()
    policy = RetryPolicy(base=0.01, cap=0.02, probe_cap=0.02)
    async with running_engine(database, transport, metrics=metrics, policy=policy) as running:
        asked = await running.intake.submit(new_task(node_id))
        (await transport.next()).break_with(Stale("stale epoch"))
        (await transport.next()).break_with(Unreachable("no route"))
        (await transport.next()).succeed()
        await final(database, asked)
    assert value(metrics, "edgeplane_stale_epochs_refused_total") == 1
    assert value(metrics, "edgeplane_results_total", type="reload", outcome="busy") == 1
    assert value(metrics, "edgeplane_results_total", type="reload", outcome="unreachable") == 1
    assert value(metrics, "edgeplane_delivery_seconds_count", outcome="unreachable") == 1


async def test_turns_that_fail_are_counted(database, node_id, metrics):
    """By whether the database was away."""
    transport = ScriptedTransport(lambda call: call.succeed())
    database.away = 2
    async with running_engine(database, transport, metrics=metrics) as running:
        await final(database, await running.intake.submit(new_task(node_id)))
    assert value(metrics, "edgeplane_turns_failed_total", reason="away") == 2
    assert value(metrics, "edgeplane_turns_failed_total", reason="unexpected") == 0


async def test_a_turn_tells_what_it_claimed_expired_and_rescued(turner, ask, node_id):
    """Late results too."""
    (asked,) = await ask(node_id)
    first = await turner.take()
    assert (first.claimed, first.expired) == (1, 0)
    assert first.claim_seconds is not None
    turner.held.clear()
    await turner.database.write(lambda tx: mailboxes.release_all(tx, None))
    second = await turner.take()
    assert (second.rescued, second.claimed) == (1, 1)
    late = await turner.take([came_back(first.begun[0], Outcome.SUCCEEDED)], claim=0)
    assert (late.late, late.claim_seconds) == (1, None)
    (old,) = await ask(node_id, deadline_seconds=1)
    expired = await turner.take(look_at=[node_id], now=after(400 * 86_400))
    assert expired.expired >= 1, old
    assert asked.id < old.id


def test_a_task_retried_by_hand_is_no_measure_of_time(metrics):
    """It may have lain failed for days."""
    meters = Meters(metrics)
    done = a_task(finished_at=after(3), outcome=Outcome.SUCCEEDED, status=TaskStatus.SUCCESS)
    meters.turn(Turn(now=utc_now(), settled=[done]), 1, 0.1)
    again = done._replace(run=2, finished_at=after(90_000))
    meters.turn(Turn(now=utc_now(), settled=[again]), 1, 0.1)
    assert value(metrics, "edgeplane_task_seconds_sum", type=TaskKind.RELOAD.value) == 3
    assert value(metrics, "edgeplane_results_total", type="reload", outcome="succeeded") == 2


def test_attempts_of_operations_are_counted_apart(metrics):
    """By outcome, among all results; those of single tasks are not in it."""
    meters = Meters(metrics)
    alone = a_task(finished_at=after(3), outcome=Outcome.FAILED, status=TaskStatus.FAILED)
    mine = alone._replace(operation_id=5)
    meters.turn(Turn(now=utc_now(), settled=[alone, mine, mine]), 3, 0.1)
    assert value(metrics, "edgeplane_operation_results_total", outcome="failed") == 2
    assert value(metrics, "edgeplane_operation_results_total", outcome="succeeded") == 0
    assert value(metrics, "edgeplane_results_total", type="reload", outcome="failed") == 3
