"""What is told of operations: each change of state, committed with it, and nothing for counts."""

import pytest

from edgeplane.model.tasks import Outcome
from edgeplane.services import operations as rule
from edgeplane.services import tasks as task_rule
from edgeplane.store import events
from kit.engines import came_back
from kit.factories import add_nodes
from kit.operations import Stepper


@pytest.fixture
def stepper(database):
    """Takes steps by hand on the empty tables."""
    return Stepper(database)


@pytest.fixture
def told(database):
    """Return what has been told of an operation itself: type and state."""

    async def read(operation_id):
        found = await database.read(lambda tx: events.behind(tx, 0))
        own = [event for event in found if event.operation_id == operation_id]
        assert {event.type for event in found if event not in own} <= {"created"}
        own = [event for event in own if event.task_id is None]
        assert {(event.node_id, event.attempt) for event in own} == {(None, 0)}
        return [(event.type, event.status) for event in own]

    return read


@pytest.fixture
def work(turner):
    """Begin what is due and let it come back: ``await work(Outcome.FAILED)``."""

    async def run(outcome=Outcome.SUCCEEDED):
        turn = await turner.take()
        await turner.take([came_back(sent, outcome) for sent in turn.begun])

    return run


async def test_a_plain_life_is_told_in_two_lines(database, stepper, told, work):
    """Its tasks tell the rest, and each names its operation."""
    await database.write(lambda tx: add_nodes(tx, 3))
    operation_id = await stepper.ask()
    await stepper.all()
    await work()
    assert await told(operation_id) == [("op-created", "running"), ("op-done", "done")]
    found = await database.read(lambda tx: events.behind(tx, 0))
    of_tasks = [event for event in found if event.task_id is not None]
    assert len(of_tasks) == 3 * len(("created", "begun", "succeeded"))
    assert {event.operation_id for event in of_tasks} == {operation_id}


async def test_what_a_person_does_is_told(database, stepper, told, work):
    """Paused, resumed, tried again, cancelled: each once; asked for again is not created again."""
    await database.write(lambda tx: add_nodes(tx, 1))
    operation_id = await stepper.ask()
    await stepper.all()
    await rule.pause(database, operation_id)
    await rule.resume(database, operation_id)
    await stepper.all()
    await work(Outcome.FAILED)
    await rule.retry_failed(database, operation_id)
    await stepper.all()
    await rule.cancel(database, operation_id, "me")
    await stepper.all()
    assert await told(operation_id) == [
        ("op-created", "running"),
        ("op-paused", "paused"),
        ("op-resumed", "running"),
        ("op-done", "done"),
        ("op-retried", "running"),
        ("op-cancelling", "cancelling"),
        ("op-cancelled", "cancelled"),
    ]


async def test_a_retry_beside_what_still_runs_is_told(database, stepper, turner, told):
    """Its state stays as it is."""
    await database.write(lambda tx: add_nodes(tx, 2))
    operation_id = await stepper.ask()
    await stepper.all()
    turn = await turner.take()
    await turner.take([came_back(turn.begun[0], Outcome.FAILED)])
    await rule.retry_failed(database, operation_id)
    await stepper.all()
    assert (await told(operation_id))[1:] == [("op-retried", "running")]


async def test_failures_that_stop_it_are_told(database, stepper, told, work):
    """When they do, and when nothing is out any more; a task retried by hand leaves it stopped."""
    await database.write(lambda tx: add_nodes(tx, 3))
    operation_id = await stepper.ask(concurrency_limit="2", failure_limit="2")
    await stepper.all()
    await work(Outcome.FAILED)
    await stepper.all()
    assert (await told(operation_id))[1:] == [("op-stopped", "stopped")]
    task = (await stepper.tasks(operation_id))[0]
    await task_rule.retry(database, task.id)
    assert len(await told(operation_id)) == 2


async def test_a_task_that_is_retried_opens_its_operation_again(database, stepper, told, work):
    """And it ends again."""
    await database.write(lambda tx: add_nodes(tx, 1))
    operation_id = await stepper.ask()
    await stepper.all()
    await work(Outcome.FAILED)
    (task,) = await stepper.tasks(operation_id)
    await task_rule.retry(database, task.id)
    await work()
    assert [kind for kind, _ in await told(operation_id)] == [
        *("op-created", "op-done", "op-retried", "op-done"),
    ]


async def test_a_change_that_is_undone_is_not_told(database, stepper, told):
    """The event goes with it."""
    await database.write(lambda tx: add_nodes(tx, 1))
    operation_id = await stepper.ask()

    def fail(tx):
        rule._change(tx, operation_id, rule.rules.pause)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(fail)
    assert len(await told(operation_id)) == 1
