"""What a paused operation's tasks do to the others of their nodes: nothing but a config's order."""

import pytest

from edgeplane.model.tasks import Outcome, TaskKind, TaskStatus
from edgeplane.services import operations as rule
from edgeplane.store import open_tasks
from kit.engines import came_back
from kit.operations import Stepper

CONFIG = TaskKind.APPLY_CONFIG


@pytest.fixture
def paused(database, node_id):
    """Pause an operation whose task is made; return the operation's id and that task."""
    stepper = Stepper(database)

    async def ask(kind):
        operation_id = await stepper.ask([node_id], kind=kind, payload="{}")
        await stepper.all()
        await rule.pause(database, operation_id)
        return operation_id, (await stepper.tasks(operation_id))[0]

    return ask


@pytest.fixture
def resume(database):
    """Let an operation go on."""

    async def go_on(operation_id):
        await rule.resume(database, operation_id)
        await Stepper(database).all()

    return go_on


def ids(turn):
    """Return the ids of what began."""
    return [delivery.task.id for delivery in turn.begun]


async def test_what_is_newer_goes_past_a_held_reload(turner, ask, node_id, paused, resume):
    """One at a time as ever; resumed, the reload is next, before what has not begun."""
    operation_id, held = await paused(TaskKind.RELOAD)
    (config,) = await ask(node_id, CONFIG)
    reload, last = await ask(node_id, number=2)
    turn = await turner.take()
    assert ids(turn) == [config.id]
    turn = await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert ids(turn) == [reload.id]
    await resume(operation_id)
    assert ids(await turner.take(look_at=[node_id])) == []
    turn = await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert ids(turn) == [held.id]
    turn = await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert ids(turn) == [last.id]


async def test_a_held_config_keeps_its_place(turner, ask, look, node_id, paused, resume):
    """The reload asked for after it waits for it; an older config makes way for it."""
    (older,) = await ask(node_id, CONFIG)
    operation_id, held = await paused(CONFIG)
    (reload,) = await ask(node_id)
    turn = await turner.take()
    assert ids(turn) == []
    assert (await look([older]))[0].superseded_by == held.id
    await resume(operation_id)
    turn = await turner.take()
    assert ids(turn) == [held.id]
    turn = await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert ids(turn) == [reload.id]


async def test_a_newer_config_takes_the_place_of_a_held_one(turner, ask, look, node_id, paused):
    """Nobody is made to wait by what would be undone at once."""
    _, held = await paused(CONFIG)
    (newer,) = await ask(node_id, CONFIG)
    assert ids(await turner.take()) == [newer.id]
    assert (await look([held]))[0].status is TaskStatus.SUPERSEDED


async def test_more_held_reloads_than_are_looked_at_hold_up_nobody(turner, ask, node_id, paused):
    """Of a deep queue the first that may begin is found behind them."""
    for _ in range(open_tasks.OPEN_WINDOW + 1):
        await paused(TaskKind.RELOAD)
    first, *_ = await ask(node_id, number=open_tasks.DEEP)
    assert ids(await turner.take()) == [first.id]
