"""What must hold after any run, whatever was killed in it: plain functions that list violations.

They judge a history (what clients were told, what the kernel saw appear, what was sampled) and the
rows as they are in the end. Nothing of the product is used to judge it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from kit.history import Accepted, Effect, Ended, Event, Killed, Restarted, Sampled
from kit.tables import TaskRow

REPAIR_SECONDS = 15.0


def check(events: Sequence[Event], rows: Sequence[TaskRow]) -> list[str]:
    """Return every violation, a line each; none: all is well."""
    return [
        *lost(events, rows),
        *unfinished(rows),
        *effects(events, rows),
        *unowned(events),
        *attempts(rows),
        *slow(events),
    ]


def lost(events: Iterable[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find tasks a client was told of that are not there, once, under the id it was told."""
    ids: dict[str, list[int]] = {}
    for row in rows:
        ids.setdefault(row.request_id, []).append(row.id)
    wrong = []
    for event in events:
        if isinstance(event, Accepted):
            found = ids.get(event.request_id, [])
            if found != [event.task_id]:
                told = f"accepted as task {event.task_id}, stored as {found or 'nothing'}"
                wrong.append(f"{event.request_id}: {told}")
    return wrong


def unfinished(rows: Iterable[TaskRow]) -> list[str]:
    """Find tasks that have not succeeded."""
    return [
        f"{row.request_id}: {'final' if row.final else 'not final'}, {row.status}: {row.last_error}"
        for row in rows
        if row.status != "success"
    ]


def effects(events: Iterable[Event], rows: Iterable[TaskRow]) -> list[str]:
    """Find succeeded tasks without exactly one effect, and effects of no task."""
    made = Counter(event.request_id for event in events if isinstance(event, Effect))
    known = list(rows)
    wrong = [
        f"{row.request_id}: {made[row.request_id]} effects"
        for row in known
        if row.status == "success" and made[row.request_id] != 1
    ]
    stored = {row.request_id for row in known}
    return wrong + [f"{name}: an effect of no task" for name in made if name not in stored]


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


def slow(events: Sequence[Event]) -> list[str]:
    """Find tasks that were open longer than a repair takes while nothing was disturbed.

    The time between a kill and the restart that follows counts like any other: keep it short.
    """
    over = {event.request_id: event.at for event in events if isinstance(event, Ended)}
    shocks = [event.at for event in events if isinstance(event, Killed | Restarted)]
    last = max((event.at for event in events), default=0.0)
    wrong = []
    for event in events:
        if not isinstance(event, Accepted):
            continue
        end = over.get(event.request_id, last)
        marks = [event.at, *(at for at in shocks if event.at < at < end), end]
        calm = max(later - earlier for earlier, later in pairwise(marks))
        if calm > REPAIR_SECONDS:
            wrong.append(f"{event.request_id}: open for {calm:.1f} s while nothing was disturbed")
    return wrong
