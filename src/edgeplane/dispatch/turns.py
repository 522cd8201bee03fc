"""One turn of the engine: a single transaction that settles what came back and begins what is due.

Everything that moves a task here happens under its node's mailbox row: first the rows of the nodes
whose results came in, then due ones nobody else is claiming. So a turn can read, apply the rules of
``model`` and write, and what it read still holds when it writes.
"""

import time

from edgeplane.dispatch.advancing import Advance
from edgeplane.dispatch.settling import settle
from edgeplane.dispatch.work import Request, Rules, Turn
from edgeplane.observe.crashpoints import crash_point
from edgeplane.store import mailboxes, operations
from edgeplane.store.mailboxes import Mailbox
from edgeplane.store.workers import Tx


def take(tx: Tx, request: Request, rules: Rules) -> Turn:
    """Do one turn in this transaction."""
    turn = Turn(now=tx.now)
    wanted = {result.task.node_id for result in request.results} | request.look_at
    locked = wanted | set(request.held if request.renew else ())
    boxes = mailboxes.lock(tx, locked)
    mine = {node_id: box for node_id, box in boxes.items() if _still_mine(box, request, rules)}
    turn.gone = (locked & set(request.held)) - set(mine)
    reach = settle(tx, request, rules, turn, boxes)
    if request.results:
        crash_point("settle.before_commit")
    if request.renew:
        mailboxes.renew(tx, sorted(mine), rules.lease)
    news = {n for n, box in mine.items() if n in wanted or box.work_seq != request.held[n].work_seq}
    claimed = _claim(tx, request, rules, turn)
    turn.more = 0 < request.claim == len(claimed)
    turn.gone -= set(claimed)
    turn.held = {**mine, **claimed}
    looked_at = {node_id: turn.held[node_id] for node_id in sorted(news | set(claimed))}
    if looked_at and not request.draining:
        Advance(tx, request, rules, turn).run(looked_at, set(claimed), reach)
    turn.calls = operations.count_moves(tx, turn.moved)  # last: its rows are locked after all
    if turn.begun:
        crash_point("claim.before_commit")
    return turn


def _claim(tx: Tx, request: Request, rules: Rules, turn: Turn) -> dict[int, Mailbox]:
    if not request.claim:
        return {}
    begun = time.monotonic()
    found = mailboxes.claim_due(tx, request.claim, rules.lease)
    turn.claim_seconds = time.monotonic() - begun
    turn.claimed = len(found)
    return {box.node_id: box for box in found}


def _still_mine(box: Mailbox, request: Request, rules: Rules) -> bool:
    held = request.held.get(box.node_id)
    return held is not None and box.owner == rules.lease.owner and box.epoch == held.epoch
