"""One agent per state folder: two on one journal would each believe the other's work undone."""

import contextlib
import fcntl
import os
from pathlib import Path


class StateFolderError(Exception):
    """The folder cannot be held; the message is one line for the person who started the agent."""


def hold(folder: Path) -> int:
    """Lock a state folder until the returned descriptor is closed or this process ends.

    The lock is on the folder itself, so that no file in it matters: ``agent.pid`` only tells who
    holds it.

    Raises:
        StateFolderError: another process holds it, or it cannot be locked.

    """
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StateFolderError(f"{folder}: cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _tell_holder(held)
    except BlockingIOError:
        holder = _holder(held)
        os.close(held)
        raise StateFolderError(
            f"{folder}: in use by another agent (process {holder}); "
            "set EDGEPLANE_AGENT_STATE_DIR to a folder of its own"
        ) from None
    except OSError as error:
        os.close(held)
        raise StateFolderError(f"{folder}: cannot be locked: {error.strerror}") from error
    return held


def _tell_holder(folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open("agent.pid", flags, 0o600, dir_fd=folder)
    try:
        os.write(file, f"{os.getpid()}\n".encode("ascii"))
    finally:
        os.close(file)


def _holder(folder: int) -> str:
    """Return the number of the process that holds a folder, as far as it is told."""
    written = ""
    with contextlib.suppress(OSError):
        file = os.open("agent.pid", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
        try:
            written = os.read(file, 20).decode("ascii", "replace").strip()
        finally:
            os.close(file)
    return written or "unknown"
