"""The conductor beside the engine: from an operation asked for to its end."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeplane.dispatch.conductor import Conductor
from edgeplane.model.progress import OperationState, Standing
from edgeplane.observe.metrics import Metrics
from edgeplane.services import operations as rule
from edgeplane.store import operations
from edgeplane.store.mailboxes import Lease
from kit.engines import Call, ScriptedTransport, WatchedDatabase, running_engine
from kit.factories import add_nodes
from kit.operations import Stepper, new_operation, recount


@pytest.fixture
async def database(url):
    """A store that tells of the engine's turns, on either dialect."""
    from kit import factories

    opened = WatchedDatabase(url)
    if opened.dialect != "sqlite":
        await opened.write(factories.clear)
    yield opened
    await opened.close()


@asynccontextmanager
async def conducting(database, running, *, owner="me", poll=60.0, seconds=10.0, metrics=None):
    """Run a conductor that the engine calls."""
    lease = Lease(owner=owner, seconds=seconds)
    conductor = Conductor(database, lease, running.hints.tell, poll, metrics)
    running.engine.on_call(conductor.call)
    conductor.start()
    try:
        yield conductor
    finally:
        await conductor.stop()


def in_state(operation_id, *states):
    """Make a look at an operation: what it is like once it is in one of these states."""

    def look(tx):
        found = operations.see(tx, operation_id)
        return found if found is not None and found.state in states else None

    return look


async def test_an_operation_runs_to_its_end_by_calls_alone(database):
    """No poll is needed: each result that makes room calls for the next step."""
    await database.write(lambda tx: add_nodes(tx, 40))
    transport = ScriptedTransport(at_once=Call.succeed)
    async with (
        running_engine(database, transport) as running,
        conducting(database, running) as conductor,
    ):
        made = await rule.create(database, new_operation(concurrency_limit="3"))
        conductor.call()
        found = await database.until(in_state(made.progress.id, OperationState.DONE))
    assert found.counts[Standing.SUCCESS] == 40
    assert transport.most_out <= 3
    assert len({call.request.request_id for call in transport.calls}) == len(transport.calls) == 40
    assert {bytes(call.request.payload) for call in transport.calls} == {b'{"urls":["/a"]}'}


async def test_failures_stop_it_while_it_runs(database):
    """At most those in the window have been sent when it stops."""
    await database.write(lambda tx: add_nodes(tx, 40))
    transport = ScriptedTransport(at_once=Call.fail)
    async with (
        running_engine(database, transport) as running,
        conducting(database, running) as conductor,
    ):
        asked = new_operation(concurrency_limit="4", failure_limit="3")
        made = await rule.create(database, asked)
        conductor.call()
        found = await database.until(in_state(made.progress.id, OperationState.STOPPED))
    assert 3 <= len(transport.calls) <= 3 + 4
    assert found.counts[Standing.UNSENT] >= 40 - 7
    counted = await database.read(lambda tx: recount(tx, made.progress.id))
    assert counted == {name: number for name, number in found.counts.items() if number}


def counted(metrics):
    """Return the samples of operations and steps that are not zero, by name and labels."""
    return {
        (sample.name.removeprefix("edgeplane_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if "_bucket" not in sample.name
        and sample.value
        and ("operation" in sample.name or "fanout" in sample.name)
    }


async def told_of(metrics, number):
    """Wait until so many ends of operations are counted; return what is counted."""

    def ends():
        found = counted(metrics)
        done = sum(n for key, n in found.items() if key[0] == "operation_seconds_count")
        return found if done >= number else None

    async with asyncio.timeout(20):
        while (found := ends()) is None:
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize(
    ("call", "state", "sent"), [(Call.succeed, "done", 3), (Call.fail, "stopped", 1)]
)
async def test_each_end_is_counted_once(database, call, state, sent):
    """Whoever brought it about; with how long it took, and what the steps did for it."""
    await database.write(lambda tx: add_nodes(tx, 3))
    metrics, limit = Metrics(), str(sent)
    async with (
        running_engine(database, ScriptedTransport(at_once=call)) as running,
        conducting(database, running, metrics=metrics) as conductor,
    ):
        for number in (1, 2):
            await rule.create(database, new_operation(concurrency_limit=limit, failure_limit="1"))
            conductor.call()
            found = await told_of(metrics, number)
    assert found["operation_seconds_count", state] == 2
    assert 0 < found["operation_seconds_sum", state] < 60
    assert found.get(("operations_stopped_total",), 0) == (2 if state == "stopped" else 0)
    assert found["fanout_step_nodes_sum",] == 2 * sent
    assert found["fanout_step_seconds_count", "send"] == 2
    assert ("fanout_steps_failed_total", "unexpected") not in found


async def test_an_operation_taken_back_at_once_is_counted(database):
    """No step of the conductor and no turn of the engine ended it."""
    await database.write(lambda tx: add_nodes(tx, 1))
    metrics = Metrics()
    async with (
        running_engine(database, ScriptedTransport(at_once=Call.succeed)) as running,
        conducting(database, running, metrics=metrics) as conductor,
    ):
        made = await rule.create(database, new_operation())
        await rule.cancel(database, made.progress.id, "me")
        conductor.call()
        found = await told_of(metrics, 1)
    assert found["operation_seconds_count", "cancelled"] == 1


async def test_another_replica_goes_on_where_one_died(database):
    """The claim of the dead one lapses; a poll finds the operation due."""
    await database.write(lambda tx: add_nodes(tx, 5))
    dead = Stepper(database, owner="dead", seconds=0.2)
    operation_id = await dead.ask()
    assert await dead.claim() is not None
    transport = ScriptedTransport(at_once=Call.succeed)
    async with (
        running_engine(database, transport) as running,
        conducting(database, running, poll=0.05),
    ):
        found = await database.until(in_state(operation_id, OperationState.DONE))
    assert found.counts[Standing.SUCCESS] == 5


async def test_two_conductors_make_no_task_twice(database):
    """Both are called for every operation; each step is one's alone."""
    await database.write(lambda tx: add_nodes(tx, 30))
    transport = ScriptedTransport(at_once=Call.succeed)
    async with (
        running_engine(database, transport) as running,
        conducting(database, running, owner="a") as one,
        conducting(database, running, owner="b") as two,
    ):
        running.engine.on_call(lambda: (one.call(), two.call()))  # type: ignore[arg-type]
        ids = [
            (await rule.create(database, new_operation(concurrency_limit="5"))).progress.id
            for _ in range(3)
        ]
        one.call()
        two.call()
        for operation_id in ids:
            found = await database.until(in_state(operation_id, OperationState.DONE))
            assert found.counts[Standing.SUCCESS] == 30
    assert len({call.request.request_id for call in transport.calls}) == 90


async def test_one_that_cannot_be_stepped_stops_no_other(database, monkeypatch, caplog):
    """It is told, and the next ones are served; its own claim lapses by itself."""
    from edgeplane.dispatch import steps

    await database.write(lambda tx: add_nodes(tx, 2))
    bad = (await rule.create(database, new_operation())).progress.id
    good = (await rule.create(database, new_operation())).progress.id
    plain, metrics = steps.take, Metrics()

    def take(tx, operation_id, epoch):
        if operation_id == bad:
            raise RuntimeError("broken")
        return plain(tx, operation_id, epoch)

    monkeypatch.setattr(steps, "take", take)
    transport = ScriptedTransport(at_once=Call.succeed)
    async with (
        running_engine(database, transport) as running,
        conducting(database, running, poll=0.05, metrics=metrics),
    ):
        found = await database.until(in_state(good, OperationState.DONE))
    assert found.counts[Standing.SUCCESS] == 2
    assert "a step of an operation failed" in caplog.text
    assert counted(metrics)["fanout_steps_failed_total", "unexpected"] >= 1
