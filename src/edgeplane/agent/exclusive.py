"""One agent per state folder: two on one journal would each believe the other's work undone."""

import fcntl
import os
from pathlib import Path


class StateFolderError(Exception):
    """The folder cannot be held; the message is one line for the person who started the agent."""


def hold(folder: Path) -> int:
    """Lock a state folder until the returned descriptor is closed or this process ends.

    Raises:
        StateFolderError: another process holds it, or the lock file cannot be opened.

    """
    path = folder / "agent.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateFolderError(f"{path}: cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise StateFolderError(
            f"{folder}: in use by another agent (process {holder}); "
            "set EDGEPLANE_AGENT_STATE_DIR to a folder of its own"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
    return lock
