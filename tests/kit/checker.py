"""What must hold after any run, whatever was killed in it: plain functions that list violations.

They judge a history (what clients were told, what the kernel saw appear, what was sampled) and the
rows as they are in the end. Nothing of the product is used to judge it. Here are the rules for
single tasks and their effects; ``kit.checks`` has those that need more of the tables.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import NamedTuple

from kit.history import (
    Accepted,
    Disturbed,
    Effect,
    Ended,
    Event,
    Killed,
    OperationAccepted,
    OperationAsked,
    Placed,
    Restarted,
    Sampled,
    Unheard,
    Withdrawn,
)
from kit.tables import TaskRow

REPAIR_SECONDS = 15.0
#: More for what may have to wait for a probe of its node: two of them are up to 15 s apart.
PROBE_SECONDS = 2.0


def check(
    events: Sequence[Event], rows: Sequence[TaskRow], repair: float = REPAIR_SECONDS
) -> list[str]:
    """Return every violation, a line each; none: all is well."""
    return [
        *lost(events, rows),
        *unasked(events, rows),
        *unfinished(events, rows),
        *disorder(events, rows),
        *effects(events, rows),
        *unowned(events),
        *attempts(rows),
        *slow(events, repair),
    ]


def lost(events: Iterable[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find tasks a client was told of that are not there, once, as it was told, for its node."""
    stored: dict[str, list[TaskRow]] = {}
    for row in rows:
        stored.setdefault(row.request_id, []).append(row)
    wrong = []
    for event in events:
        if not isinstance(event, Accepted):
            continue
        found = stored.get(event.request_id, [])
        ids = [row.id for row in found]
        if ids != [event.task_id]:
            told = f"accepted as task {event.task_id}, stored as {ids or 'nothing'}"
            wrong.append(f"{event.request_id}: {told}")
        elif found[0].node_id != event.node_id:
            told = f"accepted for node {event.node_id}, stored for node {found[0].node_id}"
            wrong.append(f"{event.request_id}: {told}")
    return wrong


def unasked(events: Sequence[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find tasks that nobody asked for.

    One that a client was not told of is a task of an operation, for one of its nodes, or a create
    whose answer was lost: of those there are no more than were sent.
    """
    accepted = {event.request_id for event in events if isinstance(event, Accepted)}
    unheard = Counter((e.node_id, e.kind) for e in events if isinstance(e, Unheard))
    operations = {e.operation_id: e for e in events if isinstance(e, OperationAccepted)}
    wrong = []
    for row in rows:
        if (parent := operations.get(row.operation_id or 0)) is not None:
            if row.node_id not in parent.nodes or row.kind != parent.kind:
                told = f"a {row.kind} for node {row.node_id} of operation {parent.operation_id}"
                wrong.append(f"{row.request_id}: {told}, which asked for something else")
        elif row.request_id not in accepted:
            unheard[row.node_id, row.kind] -= 1
            if row.operation_id is not None or unheard[row.node_id, row.kind] < 0:
                wrong.append(f"{row.request_id}: nobody asked for it")
    return wrong


def unfinished(events: Sequence[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find tasks that did not succeed, and had no reason not to.

    Reasons are: it was withdrawn, by itself or with its operation; it made way for a newer config;
    it failed, and its agent is one that fails by chance; its operation stopped.
    """
    known = {row.id: row for row in rows}
    withdrawn = {event.request_id for event in events if isinstance(event, Withdrawn)}
    cancelled = {
        event.operation_id
        for event in events
        if isinstance(event, OperationAsked) and event.what == "cancel"
    }
    faulty = {event.node_id for event in events if isinstance(event, Placed) and event.faulty}

    def excused(row: TaskRow) -> bool:
        if row.status == "cancelled":
            return row.request_id in withdrawn or row.operation_id in cancelled
        if row.status == "failed" and row.final:
            return row.node_id in faulty and _failed_rightly(row)
        return _made_way(row, known.get(row.superseded_by or 0))

    return [
        f"{row.request_id}: {'final' if row.final else 'not final'}, {row.status}: {row.last_error}"
        for row in known.values()
        if row.status != "success" and not excused(row)
    ]


def _failed_rightly(row: TaskRow) -> bool:
    """Whether the agent failed, or has used up all attempts, or the operation stopped."""
    if row.operation_id is not None and (row.last_error or "").startswith("operation stopped"):
        return True
    used_up = row.outcome in {"unanswered", "busy"} and row.attempts >= row.max_attempts
    return row.outcome == "failed" or used_up


def _made_way(old: TaskRow, new: TaskRow | None) -> bool:
    return (
        old.status == "superseded"
        and new is not None
        and (old.kind, new.kind) == ("apply_config", "apply_config")
        and old.node_id == new.node_id
        and generation_of(old) < generation_of(new)
    )


def generation_of(row: TaskRow) -> int:
    """Return which config of its node it is: a later one has a higher number."""
    return row.id if row.generation is None else row.generation


def disorder(events: Iterable[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find configs that took effect at a node after a newer one had.

    And nodes where the config in effect is older than the newest that succeeded.
    """
    tasks = {row.request_id: row for row in rows if row.kind == "apply_config"}
    newest: dict[int, tuple[int, int]] = {}  #: of each node: generation, task
    wrong = []
    for event in events:
        if not isinstance(event, Effect) or (row := tasks.get(event.request_id)) is None:
            continue
        this = (event.generation or generation_of(row), row.id)
        before = newest.get(row.node_id, (0, 0))
        if this < before:
            wrong.append(f"{row.request_id}: took effect after task {before[1]} had")
        newest[row.node_id] = max(this, before)
    for row in tasks.values():
        generation, left = newest.get(row.node_id, (0, 0))
        # One that was retried may have been told of the effect it had as an earlier generation.
        if row.status == "success" and left != row.id and generation < generation_of(row):
            wrong.append(f"{row.request_id}: succeeded, the newest in effect is task {left}")
    return wrong


def effects(events: Sequence[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find succeeded tasks without exactly one effect at their node's agent, and any other effect.

    One that has not succeeded may have had its effect, if it was sent and nobody heard of it, but
    never two.

    Which node a task is for is what its client asked, and not what is stored, where it was told.
    """
    folders = {event.node_id: event.folder for event in events if isinstance(event, Placed)}
    homes = {e.request_id: folders.get(e.node_id) for e in events if isinstance(e, Accepted)}
    made: Counter[str] = Counter()
    wrong = []
    known = list(rows)
    stored = {row.request_id: row for row in known}
    for event in events:
        if not isinstance(event, Effect):
            continue
        row = stored.get(event.request_id)
        if row is None:
            wrong.append(f"{event.request_id}: an effect of no task")
            continue
        folder = str(PurePath(event.file).parent)
        home = homes.get(event.request_id, folders.get(row.node_id))
        if folder != home:
            wrong.append(f"{event.request_id}: an effect in {folder}, its node's folder is {home}")
        else:
            made[event.request_id] += 1
    return wrong + [
        f"{row.request_id}: {made[row.request_id]} effects"
        for row in known
        if made[row.request_id] not in _allowed(row)
    ]


def _allowed(row: TaskRow) -> tuple[int, ...]:
    """Return how many effects a task may have had."""
    if row.status == "success":
        return (1,)
    return (0, 1) if row.attempts else (0,)


def unowned(events: Iterable[Event]) -> list[str]:
    """Find running tasks whose lease is absent, or lapsed longer ago than a repair may take."""
    return [
        f"task {task_id}: running, its lease {'absent' if age is None else f'{age:.1f} s over'}"
        for event in events
        if isinstance(event, Sampled)
        for task_id, age in event.running
        if age is None or age > REPAIR_SECONDS
    ]


def attempts(rows: Iterable[TaskRow]) -> list[str]:
    """Find tasks whose attempts on record are not 1 to n, n being the number the task shows."""
    return [
        f"{row.request_id}: {row.attempts} attempts, on record {list(row.numbers)}"
        for row in rows
        if row.final and row.numbers != tuple(range(1, row.attempts + 1))
    ]


class _Shock(NamedTuple):
    """A process was away from one time to another; at one moment only, if others stood in."""

    begin: float
    end: float
    who: str


def slow(events: Sequence[Event], repair: float = REPAIR_SECONDS) -> list[str]:
    """Find tasks that were open longer than a repair takes while nothing they need was disturbed.

    A task needs its own node's agent and whatever is no agent; what befalls another agent gives it
    no grace, so that one stuck by the first of several kills is not excused by the next.
    """
    over = {event.request_id: event.at for event in events if isinstance(event, Ended)}
    agents = {event.node_id: event.agent for event in events if isinstance(event, Placed)}
    shocks = _shocks(events)
    last = max((event.at for event in events), default=0.0)
    wrong = []
    for event in events:
        if not isinstance(event, Accepted):
            continue
        end = over.get(event.request_id, last)
        own = agents.get(event.node_id)
        others = {agent for agent in agents.values() if agent != own}
        felt = [shock for shock in shocks if shock.begin < end and shock.who not in others]
        calm = _longest_calm(event.at, end, felt)
        probed = any(shock.who == own for shock in felt)
        if calm > repair + (PROBE_SECONDS if probed else 0.0):
            wrong.append(f"{event.request_id}: open for {calm:.1f} s while nothing was disturbed")
    return wrong


def _shocks(events: Iterable[Event]) -> list[_Shock]:
    """Return what befell whom, by time of beginning.

    One that is killed and never back has others to stand in: only the moment counts.
    """
    away: dict[str, float] = {}
    found = []
    for event in events:
        if isinstance(event, Killed):
            away[event.who] = event.at
        elif isinstance(event, Restarted):
            found.append(_Shock(away.pop(event.who, event.at), event.at, event.who))
        elif isinstance(event, Disturbed):
            found.append(_Shock(event.at, event.at, event.who))
    return sorted([*found, *(_Shock(at, at, who) for who, at in away.items())])


def _longest_calm(begin: float, end: float, shocks: Iterable[_Shock]) -> float:
    """Return the longest time between two times in which no shock was, given by beginning."""
    longest, since = 0.0, begin
    for shock in shocks:
        longest = max(longest, shock.begin - since)
        since = max(since, shock.end)
    return max(longest, end - since)
