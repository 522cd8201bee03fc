"""Operations: asked for, paused, resumed, cancelled, tried again."""

from collections.abc import Callable, Collection

from edgeplane.model import progress as rules
from edgeplane.model.errors import AlreadyExists, NotAllowed, NotFound, WrongState
from edgeplane.model.operations import NewOperation, Operation, Target
from edgeplane.model.progress import Progress, Standing
from edgeplane.observe.crashpoints import crash_point
from edgeplane.store import operation_steps, operations
from edgeplane.store.database import Database
from edgeplane.store.workers import Tx


async def create(database: Database, asked: NewOperation) -> Operation:
    """Store an operation and the nodes it is for; its tasks are made from there on.

    The nodes are chosen here, once: who is labelled later is not reached, who is disabled or in
    maintenance is passed over and counted. A request id that exists with the same body answers with
    the operation that exists.

    Raises:
        NotFound: a node id that is no node's.
        NotAllowed: no node is meant.
        WrongState: every node meant takes no tasks.
        AlreadyExists: the request id stands for something else.

    """
    operation = await database.write(lambda tx: _create(tx, asked))
    crash_point("operation.after_commit")
    return operation


def _create(tx: Tx, asked: NewOperation) -> Operation:
    there = operations.by_request_id(tx, asked.request_id)
    if there is None:
        aimed = operation_steps.aimed_at(tx, asked.aim)
        _check_aim(asked.aim, aimed)
        usable = sorted(node_id for node_id, paused in aimed.items() if not paused)
        if not usable:
            raise WrongState(f"target: all {len(aimed)} nodes are disabled or in maintenance")
        counts = {Standing.UNSENT: len(usable), Standing.SKIPPED: len(aimed) - len(usable)}
        operation_id = operations.add(tx, asked, counts)
        if operation_id is not None:
            operation_steps.add_targets(tx, operation_id, usable)
            crash_point("operation.before_commit")
            return _there(tx, operation_id)
        there = operations.by_request_id(tx, asked.request_id)
        assert there is not None  # somebody else stored it a moment ago
    operation_id, digest = there
    if digest != asked.digest:
        raise AlreadyExists(
            f"requestId: {asked.request_id} is operation {operation_id}, which was asked for "
            "with another body"
        )
    return _there(tx, operation_id)


def _check_aim(aim: Target, found: Collection[int]) -> None:
    if aim.node_ids is not None and (unknown := aim.node_ids.difference(found)):
        raise NotFound(f"target.nodeIds: node {min(unknown)} not found")
    if not found:
        raise NotAllowed("target: no node is meant")


async def pause(database: Database, operation_id: int) -> Operation:
    """Let no further task of it begin; raise NotFound or WrongState."""
    return await database.write(lambda tx: _change(tx, operation_id, rules.pause))


async def resume(database: Database, operation_id: int) -> Operation:
    """Let a paused operation go on; raise NotFound or WrongState."""
    return await database.write(lambda tx: _change(tx, operation_id, rules.resume))


async def cancel(database: Database, operation_id: int, by: str) -> Operation:
    """Take back what has not begun; what is out may finish. Raises NotFound or WrongState."""
    return await database.write(
        lambda tx: _change(tx, operation_id, lambda before: rules.cancel(before, by, tx.now))
    )


async def retry_failed(database: Database, operation_id: int) -> Operation:
    """Try again what has failed for good; raise NotFound or WrongState."""
    return await database.write(lambda tx: _change(tx, operation_id, rules.retry_failed))


def _change(tx: Tx, operation_id: int, rule: Callable[[Progress], Progress]) -> Operation:
    before = operations.lock(tx, operation_id)
    if before is None:
        raise NotFound(f"operation {operation_id} not found")
    operations.write(tx, before, rule(before))
    return _there(tx, operation_id)


def _there(tx: Tx, operation_id: int) -> Operation:
    found = operations.get(tx, operation_id)
    assert found is not None  # written in this transaction
    return found
