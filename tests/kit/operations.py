"""Operations to test with: asked for, stepped on by hand, and counted anew from their tasks."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

from sqlalchemy import func, select

from edgeplane.dispatch import steps
from edgeplane.dispatch.steps import Stepped
from edgeplane.model.operations import NewOperation, Operation, Target
from edgeplane.model.progress import OperationState, Progress, Standing, standing_of
from edgeplane.model.tasks import Task, TaskKind
from edgeplane.services import operations as rule
from edgeplane.store import operation_steps, operations, tasks
from edgeplane.store.database import Database
from edgeplane.store.mailboxes import Lease
from edgeplane.store.rows import agent_tasks, operation_targets
from edgeplane.store.workers import Tx

_numbers = count(1)


def a_progress(**given: Any) -> Progress:
    """Make how far an operation is; counts are given by name."""
    counts = {standing: given.pop(standing.value, 0) for standing in Standing}
    values: dict[str, Any] = {
        "id": 1,
        "state": OperationState.RUNNING,
        "reason": None,
        "counts": counts,
        "failures": 0,
        "max_concurrency": None,
        "max_failures": None,
        "waking": None,
        "retrying": None,
        "epoch": 1,
        "work_seq": 0,
        "finished_at": None,
    }
    return Progress(**{**values, **given})


def new_operation(node_ids: Iterable[int] | None = None, **given: Any) -> NewOperation:
    """Make an operation to ask for; without nodes it is for all."""
    payload = given.get("payload", '{"urls":["/a"]}')
    aim = Target(node_ids=None if node_ids is None else frozenset(node_ids))
    values: dict[str, Any] = {
        "request_id": f"o-{next(_numbers)}",
        "digest": hashlib.sha256(payload.encode()).digest(),
        "kind": TaskKind.PURGE_CACHE,
        "payload": payload,
        "payload_bytes": len(payload.encode()),
        "payload_digest": hashlib.sha256(payload.encode()).digest(),
        "aim": aim,
        "target": '{"all":true}',
        "priority": 5,
        "timeout_seconds": 30,
        "max_attempts": 5,
        "deadline_seconds": 86_400,
        "concurrency_limit": None,
        "failure_limit": None,
        "created_by": "tester",
    }
    return NewOperation(**{**values, **given})


@dataclass(slots=True)
class Stepper:
    """Takes the steps of operations by hand."""

    database: Database
    owner: str = "me"
    seconds: float = 10.0

    async def ask(self, node_ids: Iterable[int] | None = None, **given: Any) -> int:
        """Ask for an operation; return its id."""
        made = await rule.create(self.database, new_operation(node_ids, **given))
        return made.progress.id

    async def claim(self) -> tuple[int, int] | None:
        """Take the right to the next step."""
        lease = Lease(owner=self.owner, seconds=self.seconds)
        return await self.database.step(lambda tx: operation_steps.claim(tx, lease))

    async def take(self, operation_id: int, epoch: int) -> Stepped:
        """Take a claimed step."""
        return await self.database.step(lambda tx: steps.take(tx, operation_id, epoch))

    async def all(self) -> list[Stepped]:
        """Take steps until none is due."""
        found = []
        while (claimed := await self.claim()) is not None:
            found.append(await self.take(*claimed))
            assert len(found) < 200, "steps without an end"
        return found

    async def look(self, operation_id: int) -> Progress:
        """Return how far an operation is, after its counts have been checked."""
        operation = await self.whole(operation_id)
        counted = await self.database.read(lambda tx: recount(tx, operation_id))
        kept = {name: number for name, number in operation.progress.counts.items() if number}
        kept.pop(Standing.SKIPPED, None)
        assert kept == counted
        return operation.progress

    async def whole(self, operation_id: int) -> Operation:
        """Return an operation."""
        found = await self.database.read(lambda tx: operations.get(tx, operation_id))
        assert found is not None
        return found

    async def tasks(self, operation_id: int) -> list[Task]:
        """Return an operation's tasks, oldest first."""
        return await self.database.read(lambda tx: tasks_of(tx, operation_id))


def tasks_of(tx: Tx, operation_id: int) -> list[Task]:
    """Return an operation's tasks, oldest first."""
    of = agent_tasks.c.operation_id == operation_id
    return tasks.many(tx, tx.conn.scalars(select(agent_tasks.c.id).where(of)))


def recount(tx: Tx, operation_id: int) -> dict[Standing, int]:
    """Count where an operation's nodes stand from its tasks and targets; zeros are left out."""
    found = Counter(standing_of(task) for task in tasks_of(tx, operation_id))
    targets = select(func.count()).where(operation_targets.c.operation_id == operation_id)
    found[Standing.UNSENT] = tx.conn.scalar(targets) or 0
    return {name: number for name, number in found.items() if number}
