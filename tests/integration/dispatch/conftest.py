"""Turns taken by hand on an empty store, and what they need."""

import pytest

from edgeplane.model.tasks import TaskKind
from kit.engines import Turner
from kit.factories import add_nodes, add_tasks, new_task, stored


@pytest.fixture
def turner(database):
    """Takes turns by hand on the empty tables."""
    return Turner(database)


@pytest.fixture
async def node_id(database):
    """Register a node."""
    return (await database.write(lambda tx: add_nodes(tx, 1)))[0]


@pytest.fixture
def ask(database):
    """Store tasks by the rule: ``await ask(node_id, kind, …, number=1)``."""

    async def store(node_id, kind=TaskKind.RELOAD, number=1, **given):
        asked = [new_task(node_id, kind=kind, **given) for _ in range(number)]
        return await database.create(lambda tx: add_tasks(tx, asked))

    return store


@pytest.fixture
def look(database):
    """Read tasks anew: ``await look(tasks)``."""

    async def read(asked):
        return await database.read(lambda tx: [stored(tx, task.id) for task in asked])

    return read
