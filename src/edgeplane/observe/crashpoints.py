"""Named places where a process may be killed, so that a test can kill it exactly there.

``EDGEPLANE_CRASH_AT=name`` (or ``name:3`` for the third passage) ends the process with SIGKILL
when it passes the place. Unset, a passage costs one comparison. A name that is not in the list
below stops the start; a test fails when a name has no case.
"""

import os
import signal
from typing import Final

CONTROL_POINTS: Final = (
    "create.before_commit",
    "create.after_commit",
    "retry.after_commit",
    "cancel.after_commit",
    "operation.before_commit",
    "operation.after_commit",
    "fanout.claimed",
    "fanout.before_commit",
    "fanout.after_commit",
    "claim.before_commit",
    "claim.after_commit",
    "deliver.before_send",
    "deliver.after_answer",
    "settle.before_commit",
    "settle.after_commit",
    "attach.after_commit",
)
AGENT_POINTS: Final = (
    "agent.before_begin",
    "agent.after_begin",
    "agent.draft_written",
    "agent.after_effect",
    "agent.before_done",
    "agent.after_done",
    "agent.after_answer",
    "agent.before_cancel",
    "agent.after_cancel",
    "agent.before_tell",
    "agent.after_tell",
)

_MAX_DIGITS = 9


class _Armed:
    """What is left until the process ends, if anything is set."""

    name: str | None = None
    passages: int = 1


def arm(written: str | None) -> None:
    """Arm the place named by the setting; nothing for None or an empty text.

    Raises:
        ValueError: no place has that name, or what follows the colon is no number of passages;
            one line that names the setting.

    """
    _Armed.name = None
    if not written:
        return
    name, colon, passages = written.partition(":")
    if name not in CONTROL_POINTS + AGENT_POINTS:
        raise ValueError(f"EDGEPLANE_CRASH_AT: no crash point is named {name!r}")
    _Armed.passages = _number(passages) if colon else 1
    _Armed.name = name


def _number(written: str) -> int:
    plain = written.isascii() and written.isdigit() and len(written) <= _MAX_DIGITS
    if not plain or not int(written):
        raise ValueError(
            "EDGEPLANE_CRASH_AT: after the colon must be a whole number from 1 to "
            f"{10**_MAX_DIGITS - 1}, not {written!r}"
        )
    return int(written)


def crash_point(name: str) -> None:
    """End this process here and now, if this place is armed."""
    if _Armed.name != name:
        return
    _Armed.passages -= 1
    if _Armed.passages == 0:
        os.kill(os.getpid(), signal.SIGKILL)
