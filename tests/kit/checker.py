"""What must hold after any run, whatever was killed in it: plain functions that list violations.

They judge a history (what clients were told, what the kernel saw appear, what was sampled) and the
rows as they are in the end. Nothing of the product is used to judge it.
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
    Placed,
    Restarted,
    Sampled,
    Withdrawn,
)
from kit.tables import TaskRow

REPAIR_SECONDS = 15.0
#: For what may have to wait for a probe of its node: two of them are up to 15 s apart.
PROBE_SECONDS = REPAIR_SECONDS + 2.0


def check(events: Sequence[Event], rows: Sequence[TaskRow]) -> list[str]:
    """Return every violation, a line each; none: all is well."""
    return [
        *lost(events, rows),
        *unfinished(events, rows),
        *disorder(events, rows),
        *effects(events, rows),
        *unowned(events),
        *attempts(rows),
        *slow(events),
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


def unfinished(events: Iterable[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find tasks that did not succeed, were not withdrawn, and made way for no newer config."""
    known = {row.id: row for row in rows}
    withdrawn = {event.request_id for event in events if isinstance(event, Withdrawn)}
    return [
        f"{row.request_id}: {'final' if row.final else 'not final'}, {row.status}: {row.last_error}"
        for row in known.values()
        if row.status != "success"
        and not (row.status == "cancelled" and row.request_id in withdrawn)
        and not _made_way(row, known.get(row.superseded_by or 0))
    ]


def _made_way(old: TaskRow, new: TaskRow | None) -> bool:
    return (
        old.status == "superseded"
        and new is not None
        and (old.kind, new.kind) == ("apply_config", "apply_config")
        and old.node_id == new.node_id
        and old.id < new.id
    )


def disorder(events: Iterable[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find configs that took effect at a node after a newer one had."""
    tasks = {row.request_id: row for row in rows if row.kind == "apply_config"}
    newest: dict[int, int] = {}
    wrong = []
    for event in events:
        if not isinstance(event, Effect) or (row := tasks.get(event.request_id)) is None:
            continue
        if row.id < newest.get(row.node_id, 0):
            wrong.append(f"{row.request_id}: took effect after task {newest[row.node_id]} had")
        newest[row.node_id] = max(row.id, newest.get(row.node_id, 0))
    return wrong


def effects(events: Sequence[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find succeeded tasks without exactly one effect at their node's agent, and any other effect.

    One that has not succeeded may have had its effect, if nobody heard of it, but never two.

    Which node a task is for is what its client asked, and not what is stored.
    """
    folders = {event.node_id: event.folder for event in events if isinstance(event, Placed)}
    homes = {e.request_id: folders.get(e.node_id) for e in events if isinstance(e, Accepted)}
    made: Counter[str] = Counter()
    wrong = []
    known = list(rows)
    stored = {row.request_id for row in known}
    for event in events:
        if not isinstance(event, Effect):
            continue
        folder, home = str(PurePath(event.file).parent), homes.get(event.request_id)
        if event.request_id not in stored:
            wrong.append(f"{event.request_id}: an effect of no task")
        elif folder != home:
            wrong.append(f"{event.request_id}: an effect in {folder}, its node's folder is {home}")
        else:
            made[event.request_id] += 1
    return wrong + [
        f"{row.request_id}: {made[row.request_id]} effects"
        for row in known
        if made[row.request_id] != 1 and (row.status == "success" or made[row.request_id])
    ]


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


def slow(events: Sequence[Event]) -> list[str]:
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
        if calm > (PROBE_SECONDS if probed else REPAIR_SECONDS):
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
