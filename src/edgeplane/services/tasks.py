"""Tasks: asked for, and asked for again."""

from collections.abc import Mapping, Sequence

from edgeplane.model import lifecycle
from edgeplane.model.errors import AlreadyExists, DomainError, NotFound, WrongState
from edgeplane.model.nodes import Node
from edgeplane.model.tasks import NewTask, Task, TaskKind
from edgeplane.observe.crashpoints import crash_point
from edgeplane.store import mailboxes, nodes, operations, task_moves, tasks
from edgeplane.store.database import Database
from edgeplane.store.mailboxes import Mailbox
from edgeplane.store.workers import Tx


def create_many(tx: Tx, asked: Sequence[NewTask]) -> list[Task | DomainError]:
    """Store tasks in one transaction; each gets its own answer.

    A request id that exists with the same node, type and payload answers with the task that exists,
    whatever became of it or of its node; with anything else it is AlreadyExists. Doing it all again
    after a commit whose answer was lost changes nothing.
    """
    given = [task.request_id for task in asked if task.request_id_given]
    there = tasks.by_request_id(tx, given) if given else {}
    new = [task for task in asked if task.request_id not in there]
    objections = _objections(tx, new)
    fresh = [task for task in new if objections[task.node_id] is None]
    made = tasks.insert_new(tx, fresh, generations(tx, fresh)) if fresh else {}
    # A given id may have been stored a moment ago by somebody else, or twice in this batch.
    there |= tasks.by_request_id(tx, [task.request_id for task in fresh if task.request_id_given])
    crash_point("create.before_commit")
    return [
        made[task.request_id]
        if not task.request_id_given and task.request_id in made
        else _answer(task, there, objections.get(task.node_id))
        for task in asked
    ]


def _objections(tx: Tx, asked: Sequence[NewTask]) -> dict[int, DomainError | None]:
    """Mark the nodes' mailboxes, which holds the nodes where they are; say who takes no tasks."""
    wanted = {task.node_id for task in asked}
    if not wanted:
        return {}
    known = mailboxes.mark_work(tx, wanted, priority=max(task.priority for task in asked))
    doubtful = (wanted - known) | nodes.paused(tx, wanted)
    machines = nodes.many(tx, doubtful)
    return {
        node_id: _objection(machines.get(node_id), node_id) if node_id in doubtful else None
        for node_id in wanted
    }


def generations(tx: Tx, asked: Sequence[NewTask]) -> list[int | None]:
    """Give the configs among these tasks their numbers, in the order they were asked for."""
    nodes_of = [task.node_id for task in asked if task.kind is TaskKind.APPLY_CONFIG]
    numbers = iter(mailboxes.next_generations(tx, nodes_of))
    return [next(numbers) if task.kind is TaskKind.APPLY_CONFIG else None for task in asked]


def is_outdated(task: Task, box: Mailbox) -> bool:
    """Whether a newer config of a task's node has been asked for since."""
    return task.generation is not None and task.generation < box.generation


async def cancel(database: Database, task_id: int) -> Task:
    """Take a task back; one whose attempt is out ends when that is back.

    Raises:
        NotFound: no such task.
        WrongState: it has ended.

    """
    task = await database.write(lambda tx: _cancel(tx, task_id))
    crash_point("cancel.after_commit")
    return task


def _cancel(tx: Tx, task_id: int) -> Task:
    before, _ = _held(tx, task_id)
    after = lifecycle.cancel(before, tx.now)
    _write(tx, before, after)
    return after


async def retry(database: Database, task_id: int) -> Task:
    """Run a failed task now.

    Raises:
        NotFound: no such task, or its node is gone.
        WrongState: it has not failed, or its node takes no tasks.

    """
    task = await database.write(lambda tx: _retry(tx, task_id))
    crash_point("retry.after_commit")
    return task


def _retry(tx: Tx, task_id: int) -> Task:
    before, box = _held(tx, task_id)
    after = lifecycle.retry(before, tx.now)
    if box is not None and is_outdated(before, box):
        after = _renewed(tx, after)
    if (problem := _objection(nodes.get(tx, before.node_id), before.node_id)) is not None:
        raise problem
    _write(tx, before, after)
    return after


def _renewed(tx: Tx, task: Task) -> Task:
    """Let a config that is not the newest be that again, unless it would follow a newer one.

    Where all that came after it failed for good, it puts the node back to nothing older: it is
    asked for now, and has a generation of now, which the agent takes.
    """
    if (newer := tasks.newer_config(tx, task)) is not None:
        raise WrongState(
            f"task {task.id}: task {newer} is a newer config of node {task.node_id}: "
            "retry that one, or ask for this config anew"
        )
    (generation,) = mailboxes.next_generations(tx, [task.node_id])
    return task._replace(generation=generation)


def _held(tx: Tx, task_id: int) -> tuple[Task, Mailbox | None]:
    """Return a task whose node's mailbox is held from here on. Raises NotFound."""
    seen = tasks.get(tx, task_id)
    if seen is None:
        raise NotFound(f"task {task_id} not found")
    boxes = mailboxes.lock(tx, [seen.node_id])
    before = tasks.get(tx, task_id)
    if before is None:  # removed meanwhile: its time was over
        raise NotFound(f"task {task_id} not found")
    return before, boxes.get(seen.node_id)


def _write(tx: Tx, before: Task, after: Task) -> None:
    """Write what a person moved, and have the node looked at."""
    if task_moves.write_moved(tx, [(before, after)]) != 1:
        if tasks.get(tx, before.id) is None:
            raise NotFound(f"task {before.id} not found")
        raise WrongState(f"task {before.id} was moved just now: look again")
    mailboxes.mark_work(tx, [before.node_id], priority=before.priority)
    operations.count_moves(tx, [(before, after)])


def _objection(node: Node | None, node_id: int) -> DomainError | None:
    """Say why a node takes no tasks, if it does not."""
    if node is None:
        return NotFound(f"nodeId: node {node_id} not found")
    if not node.enabled:
        return WrongState(f"nodeId: node {node_id} ({node.name}) is disabled")
    if node.paused:
        return WrongState(f"nodeId: node {node_id} ({node.name}) is in maintenance")
    return None


def _answer(
    asked: NewTask, there: Mapping[str, tasks.Stored], objection: DomainError | None
) -> Task | DomainError:
    stored = there.get(asked.request_id)
    if stored is None:
        assert objection is not None  # what nobody objected to is there by now
        return objection
    same = (
        stored.task.node_id == asked.node_id
        and stored.task.kind is asked.kind
        and stored.payload_digest == asked.payload_digest
    )
    if same:
        return stored.task
    return AlreadyExists(
        f"requestId: {asked.request_id} is task {stored.task.id}, "
        "which has another node, type or payload"
    )
