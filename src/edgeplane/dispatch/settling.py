"""Settling: results written into their tasks, each under its fence."""

from collections.abc import Mapping
from dataclasses import replace

from edgeplane.dispatch.work import Moves, Reach, Request, Result, Rules, Turn
from edgeplane.model import lifecycle
from edgeplane.model.tasks import Outcome, Report, Task, TaskStatus
from edgeplane.store import attempts, task_moves
from edgeplane.store.mailboxes import Mailbox
from edgeplane.store.workers import Tx


def settle(
    tx: Tx, request: Request, rules: Rules, turn: Turn, boxes: Mapping[int, Mailbox]
) -> dict[int, Reach]:
    """Write the results of this turn, whose nodes' boxes are held; return what they say of them.

    A result whose task no longer runs under its attempt is late: somebody else has moved the task
    since. It is dropped and counted.
    """
    reach: dict[int, Reach] = {}
    if not request.results:
        return reach
    fresh = task_moves.still_running(tx, [result.fence for result in request.results])
    moves = Moves()
    for result in request.results:
        cancelled = fresh.pop(result.fence, None)  # the same result twice is late once
        if cancelled is None:
            turn.late += 1
            continue
        before = result.task._replace(cancel_requested=cancelled)
        report = _with_silence(tx, result.report, boxes.get(before.node_id))
        after = lifecycle.settle(before, report, tx.now, rules.policy, rules.random)
        moves.add(before, after)
        moves.end(before, report, tx.now, rules.lease.owner)
        _note_reach(reach, result, after)
    _write(tx, moves)
    turn.moved += moves.tasks
    turn.settled = [after for _, after in moves.tasks]
    return reach


def _with_silence(tx: Tx, report: Report, box: Mailbox | None) -> Report:
    """Say how long a node that was not reached has been gone."""
    if report.outcome is not Outcome.UNREACHABLE or box is None:
        return report
    return replace(report, away_seconds=box.away_seconds(tx.now))


def _note_reach(reach: dict[int, Reach], result: Result, after: Task) -> None:
    """Note what a result says of its node; an answer outweighs a failed connection."""
    if result.report.outcome is Outcome.UNREACHABLE:
        reach.setdefault(after.node_id, Reach(after))
    elif result.report.outcome is not Outcome.LOST:
        reach[after.node_id] = Reach(None)


def _write(tx: Tx, moves: Moves) -> None:
    succeeded = [after for _, after in moves.tasks if after.status is TaskStatus.SUCCESS]
    others = [move for move in moves.tasks if move[1].status is not TaskStatus.SUCCESS]
    task_moves.write_succeeded(tx, succeeded)
    task_moves.write_moved(tx, others)
    attempts.add(tx, moves.attempts)
