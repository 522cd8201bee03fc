"""Advancing: let each node's lanes move, and keep its mailbox or give it back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from edgeplane.dispatch.work import Delivery, Moves, Reach, Request, Rules, Turn
from edgeplane.model import lanes, lifecycle
from edgeplane.model.nodes import Node, NodeStatus
from edgeplane.model.tasks import Outcome, Report, Task, TaskStatus
from edgeplane.store import mailboxes, nodes, open_tasks, tasks
from edgeplane.store.mailboxes import Mailbox
from edgeplane.store.workers import Tx

#: How soon a node is looked at again whose tasks found no room among this process's deliveries.
_CROWDED = timedelta(milliseconds=50)
_LOST = Report(outcome=Outcome.LOST, message="whoever had sent it is gone: asked again")


class Advance:
    """One turn's look at the nodes it holds."""

    def __init__(self, tx: Tx, request: Request, rules: Rules, turn: Turn) -> None:
        self._tx = tx
        self._request = request
        self._rules = rules
        self._turn = turn
        self._moves = Moves()
        self._begun: list[Task] = []
        self._dues: dict[int, datetime | None] = {}

    def run(
        self, looked_at: Mapping[int, Mailbox], claimed: set[int], reach: Mapping[int, Reach]
    ) -> None:
        """Rescue, expire and begin what is due at these nodes."""
        queues = open_tasks.open_of_nodes(self._tx, list(looked_at))
        machines = nodes.many(self._tx, [node_id for node_id, queue in queues.items() if queue])
        for node_id, box in looked_at.items():
            queue = self._rescue(queues[node_id], self._in_flight(node_id, claimed))
            seen = reach.get(node_id)
            if seen is not None and seen.probe is not None:
                queue = self._share_failure(queue, seen.probe, box)
            elif seen is not None and box.unreachable_since is not None:
                queue = [_due_now(task, self._tx.now) for task in queue]
            self._plan(box, queue, machines.get(node_id), probing=_probing(box, seen))
        self._write_reach(looked_at, reach)
        self._write()
        self._turn.begun = self._deliveries(machines, looked_at)
        self._release()

    def _in_flight(self, node_id: int, claimed: set[int]) -> frozenset[tuple[int, int]]:
        held = self._request.held.get(node_id)
        return frozenset() if held is None or node_id in claimed else held.in_flight

    def _plan(
        self, box: Mailbox, queue: Sequence[Task], node: Node | None, *, probing: bool
    ) -> None:
        chosen = lanes.plan(
            queue,
            lanes.Conditions(
                now=self._tx.now,
                limit=self._rules.max_per_node,
                paused=node is None or node.paused,
                probing=probing,
            ),
        )
        for task in chosen.expire:
            self._moves.add(task, lifecycle.expire(task, self._tx.now))
        begin = chosen.begin[: max(0, self._request.room - len(self._begun))]
        crowded = len(begin) < len(chosen.begin)
        next_due = self._tx.now + _CROWDED if crowded else chosen.next_due
        self._begun += [lifecycle.begin(task, self._tx.now) for task in begin]
        if begin or any(task.status is TaskStatus.RUNNING for task in queue):
            self._turn.look_again[box.node_id] = next_due
        else:
            self._dues[box.node_id] = next_due

    def _rescue(self, queue: Sequence[Task], ours: frozenset[tuple[int, int]]) -> list[Task]:
        """Take back what runs under nobody: its owner died, or its beginning was never heard of."""
        found: list[Task] = []
        for task in queue:
            if task.status is not TaskStatus.RUNNING or (task.id, task.attempts) in ours:
                found.append(task)
                continue
            self._moves.end(task, _LOST, self._tx.now)
            back = lifecycle.rescue(task, self._tx.now)
            self._moves.add(task, back)
            found.append(back)
        return found

    def _share_failure(self, queue: Sequence[Task], probe: Task, box: Mailbox) -> list[Task]:
        """Let one failed probe speak for all that waits at its node, and the next one too."""
        report = Report(
            outcome=Outcome.UNREACHABLE,
            message=probe.last_error or "agent unreachable",
            away_seconds=box.away_seconds(self._tx.now),
        )
        found: list[Task] = []
        for task in queue:
            waits = task.status is TaskStatus.PENDING and task.deadline_at > self._tx.now
            shared = self._fail_with(task, report) if waits else task
            if not shared.final:
                found.append(shared)
        dues = [task.next_retry_at for task in found if task.next_retry_at is not None]
        due = probe.next_retry_at or min(dues, default=self._tx.now)
        aligned = [_due_with_probe(task, due) for task in found]
        for before, after in zip(found, aligned, strict=True):
            if after is not before:
                self._moves.add(before, after)
        return aligned

    def _fail_with(self, task: Task, report: Report) -> Task:
        now = self._tx.now
        sent = lifecycle.begin(task, now)
        failed = lifecycle.settle(sent, report, now, self._rules.policy, self._rules.random)
        self._moves.end(sent, report, now)
        self._moves.add(task, failed)
        return failed

    def _write_reach(self, looked_at: Mapping[int, Mailbox], reach: Mapping[int, Reach]) -> None:
        """Write what the deliveries showed of their nodes, where it is news."""
        seen = {node_id: reach[node_id] for node_id in looked_at if node_id in reach}
        back = [n for n, what in seen.items() if what.probe is None]
        away = [n for n, what in seen.items() if what.probe is not None]
        returned = [n for n in back if looked_at[n].unreachable_since is not None]
        tasks.pull_forward(self._tx, returned)
        mailboxes.note_reach(self._tx, returned, reached=True)
        gone = [n for n in away if looked_at[n].unreachable_since is None]
        mailboxes.note_reach(self._tx, gone, reached=False)
        # A node's status as its delivery began may be past: a change of reach is always news.
        online = {n for n in back if seen[n].node.status is NodeStatus.OFFLINE}
        offline = {n for n in away if seen[n].node.status is NodeStatus.ONLINE}
        nodes.observe(self._tx, online.union(returned), NodeStatus.ONLINE)
        nodes.observe(self._tx, offline.union(gone), NodeStatus.OFFLINE)

    def _write(self) -> None:
        """Write moves, of which a task may have several: from where its row stands to its end."""
        first: dict[int, Task] = {}
        last: dict[int, Task] = {}
        for before, after in self._moves.tasks:
            first.setdefault(before.id, before)
            last[after.id] = after
        tasks.write_moved(self._tx, [(first[task_id], last[task_id]) for task_id in sorted(first)])
        tasks.add_attempts(self._tx, self._moves.attempts)
        tasks.write_begun(self._tx, self._begun)
        self._turn.rescued = self._moves.lost

    def _deliveries(
        self, machines: Mapping[int, Node], looked_at: Mapping[int, Mailbox]
    ) -> list[Delivery]:
        large = tasks.payloads(self._tx, [task.id for task in self._begun if task.payload is None])
        return [
            Delivery(
                task,
                large[task.id] if task.payload is None else task.payload,
                machines[task.node_id],
                looked_at[task.node_id].epoch,
            )
            for task in self._begun
        ]

    def _release(self) -> None:
        mailboxes.release(self._tx, self._dues, self._rules.lease.owner)
        for node_id in self._dues:
            self._turn.held.pop(node_id, None)
            self._turn.gone.add(node_id)
        known = [due for due in self._dues.values() if due is not None]
        self._turn.next_due = min(known, default=None)


def _probing(box: Mailbox, seen: Reach | None) -> bool:
    if seen is not None:
        return seen.probe is not None
    return box.unreachable_since is not None


def _due_with_probe(task: Task, due: datetime) -> Task:
    """Let a task wait for the next probe: none may be due before, or it would call for one."""
    if task.status is not TaskStatus.FAILED or task.next_retry_at is None:
        return task
    if task.outcome is not Outcome.UNREACHABLE and task.next_retry_at >= due:
        return task
    return task if task.next_retry_at == due else replace(task, next_retry_at=due)


def _due_now(task: Task, now: datetime) -> Task:
    """Let a task that only waited for its unreachable node be due at once."""
    waits = task.status is TaskStatus.FAILED and task.outcome is Outcome.UNREACHABLE
    return replace(task, next_retry_at=now) if waits else task
