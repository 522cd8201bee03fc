"""Advancing: let each node's lanes move, and keep its mailbox or give it back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from edgeplane.dispatch.work import Delivery, Moves, Reach, Request, Rules, Turn
from edgeplane.model import lanes, lifecycle
from edgeplane.model.nodes import Node
from edgeplane.model.tasks import Outcome, Report, Task, TaskStatus
from edgeplane.store import attempts, mailboxes, nodes, open_tasks, operations, task_moves, tasks
from edgeplane.store.mailboxes import Mailbox
from edgeplane.store.open_tasks import Queue
from edgeplane.store.workers import Tx

#: How soon a node is looked at again whose tasks found no room among this process's deliveries.
_CROWDED = timedelta(milliseconds=50)
#: And one of whose deep queue only a part was seen: what is due or over behind that part.
_PARTIAL = timedelta(seconds=5)
#: And one whose queue holds a row that only a newer version, or a person, can have written.
_UNREADABLE = timedelta(seconds=60)
_LOST = Report(outcome=Outcome.LOST, message="whoever had sent it is gone: asked again")


class Advance:
    """One turn's look at the nodes it holds."""

    def __init__(self, tx: Tx, request: Request, rules: Rules, turn: Turn) -> None:
        self._tx = tx
        self._request = request
        self._rules = rules
        self._turn = turn
        self._moves = Moves()
        self._room = replace(request.room)  # a turn may be run again
        self._begun: list[Task] = []
        self._probes: set[int] = set()  #: of those begun
        self._dues: dict[int, datetime | None] = {}
        self._held: frozenset[int] = frozenset()  #: operations whose tasks may not begin

    def run(
        self, looked_at: Mapping[int, Mailbox], claimed: set[int], reach: Mapping[int, Reach]
    ) -> None:
        """Rescue, expire and begin what is due at these nodes."""
        queues = open_tasks.open_of_nodes(self._tx, looked_at)
        self._held = operations.held(self._tx, _operations_of(queues.values()))
        machines = nodes.many(self._tx, [n for n, queue in queues.items() if queue.tasks])
        # Nodes that are served already must not leave nothing to those just taken.
        for node_id in sorted(looked_at, key=lambda n: len(self._in_flight(n, claimed))):
            ours = self._in_flight(node_id, claimed)
            if queues[node_id].unreadable:
                self._leave(node_id, self._tx.now + _UNREADABLE, hold=bool(ours))
            else:
                self._advance(
                    looked_at[node_id],
                    queues[node_id],
                    machines.get(node_id),
                    ours,
                    reach.get(node_id),
                )
        self._write_reach(looked_at, reach)
        self._write()
        self._turn.begun = self._deliveries(machines, looked_at)
        self._release()

    def _in_flight(self, node_id: int, claimed: set[int]) -> frozenset[tuple[int, int]]:
        held = self._request.held.get(node_id)
        return frozenset() if held is None or node_id in claimed else held.in_flight

    def _advance(
        self,
        box: Mailbox,
        queue: Queue,
        node: Node | None,
        ours: frozenset[tuple[int, int]],
        seen: Reach | None,
    ) -> None:
        """Rescue, expire and begin at one node, and say when to look again."""
        if not queue.tasks and not queue.partial:
            self._leave(box.node_id, None, hold=False)
            return
        moved = len(self._moves.tasks)
        waiting = self._rescue(queue.tasks, ours, box.former)
        if seen is not None and seen.probe is not None:
            waiting = self._share_failure(waiting, seen.probe, box)
        elif seen is not None and box.unreachable_since is not None:
            waiting = [_due_now(task, self._tx.now) for task in waiting]
        probing = _probing(box, seen)
        chosen = lanes.plan(
            waiting,
            lanes.Conditions(
                now=self._tx.now,
                limit=self._rules.max_per_node,
                batch=self._rules.max_batch,
                out=self._requests_out(box.node_id, ours),
                paused=node is None or node.paused,
                probing=probing,
                held=self._held,
            ),
        )
        self._turn.expired += len(chosen.expire)
        for task in chosen.expire:
            self._moves.add(task, lifecycle.expire(task, self._tx.now))
        for task, newer in chosen.supersede:
            self._moves.add(task, lifecycle.supersede(task, newer, self._tx.now))
        begun = self._begin(chosen.begin, probe=probing)
        dues = [] if chosen.next_due is None else [chosen.next_due]
        if begun < len(chosen.begin):
            dues.append(self._tx.now + _CROWDED)
        if queue.partial:
            progress = len(self._moves.tasks) > moved
            dues.append(self._tx.now + (_CROWDED if progress else _PARTIAL))
        running = [task for task in waiting if task.status is TaskStatus.RUNNING]
        out = begun > 0 or bool(running)
        self._withdraw(running, node, box)
        self._leave(box.node_id, min(dues, default=None), hold=out)

    def _requests_out(self, node_id: int, ours: frozenset[tuple[int, int]]) -> int | None:
        held = self._request.held.get(node_id)
        return held.requests if held is not None and ours else None

    def _withdraw(self, running: Sequence[Task], node: Node | None, box: Mailbox) -> None:
        """Name what has been cancelled since it was sent: its agent may not have begun it."""
        if node is not None:
            self._turn.withdrawn += [
                Delivery(task, "", node, box.epoch) for task in running if task.cancel_requested
            ]

    def _leave(self, node_id: int, due: datetime | None, *, hold: bool) -> None:
        """Look at a node again when it is due; until then let go of it, or hold on."""
        if hold:
            self._turn.look_again[node_id] = due
        else:
            self._dues[node_id] = due

    def _begin(self, chosen: Sequence[Task], *, probe: bool) -> int:
        """Begin what there is room for, in order; return how many."""
        for number, task in enumerate(chosen):
            if not self._room.fits(task, probe=probe):
                return number
            self._room.take(task, probe=probe)
            begun = lifecycle.begin(task, self._tx.now)
            self._begun.append(begun)
            self._turn.moved.append((task, begun))
            if probe:
                self._probes.add(task.id)
        return len(chosen)

    def _rescue(
        self, queue: Sequence[Task], ours: frozenset[tuple[int, int]], former: str | None
    ) -> list[Task]:
        """Take back what runs under nobody: its owner died, or its beginning was never heard of."""
        found: list[Task] = []
        for task in queue:
            if task.status is not TaskStatus.RUNNING or (task.id, task.attempts) in ours:
                found.append(task)
                continue
            self._moves.end(task, _LOST, self._tx.now, former)
            back = lifecycle.rescue(task, self._tx.now)
            self._moves.add(task, back)
            if not back.final:
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
        self._moves.end(sent, report, now, self._rules.lease.owner)
        self._moves.add(task, failed)
        return failed

    def _write_reach(self, looked_at: Mapping[int, Mailbox], reach: Mapping[int, Reach]) -> None:
        """Write what the deliveries showed of their nodes, where it is news."""
        seen = {node_id: reach[node_id] for node_id in looked_at if node_id in reach}
        back = [n for n, what in seen.items() if what.probe is None]
        away = [n for n, what in seen.items() if what.probe is not None]
        returned = [n for n in back if looked_at[n].unreachable_since is not None]
        task_moves.pull_forward(self._tx, returned)
        mailboxes.note_reach(self._tx, returned, reached=True)
        gone = [n for n in away if looked_at[n].unreachable_since is None]
        mailboxes.note_reach(self._tx, gone, reached=False)

    def _write(self) -> None:
        """Write moves, of which a task may have several: from where its row stands to its end."""
        first: dict[int, Task] = {}
        last: dict[int, Task] = {}
        for before, after in self._moves.tasks:
            first.setdefault(before.id, before)
            last[after.id] = after
        task_moves.write_moved(
            self._tx, [(first[task_id], last[task_id]) for task_id in sorted(first)]
        )
        attempts.add(self._tx, self._moves.attempts)
        task_moves.write_begun(self._tx, self._begun)
        self._turn.moved += self._moves.tasks
        self._turn.rescued = self._moves.lost

    def _deliveries(
        self, machines: Mapping[int, Node], looked_at: Mapping[int, Mailbox]
    ) -> list[Delivery]:
        large = tasks.payloads(self._tx, [task for task in self._begun if task.payload is None])
        return [
            Delivery(
                task,
                large[task.id] if task.payload is None else task.payload,
                machines[task.node_id],
                looked_at[task.node_id].epoch,
                probe=task.id in self._probes,
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


def _operations_of(queues: Iterable[Queue]) -> set[int]:
    found = {task.operation_id for queue in queues for task in queue.tasks}
    return {operation_id for operation_id in found if operation_id is not None}


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
    return task if task.next_retry_at == due else task._replace(next_retry_at=due)


def _due_now(task: Task, now: datetime) -> Task:
    """Let a task that only waited for its unreachable node be due at once."""
    waits = task.status is TaskStatus.FAILED and task.outcome is Outcome.UNREACHABLE
    return task._replace(next_retry_at=now) if waits else task
