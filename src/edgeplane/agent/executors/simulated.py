"""The simulated executor: each task becomes one file, so that anyone can see what would happen.

A file is written under a draft's name, brought to disk, and then appears under its own name in one
step, whole. The folder may be shared with strangers (it is ``/tmp`` unless set): it is opened once,
every name is looked up in it, no name leads out of it, and no symlink is followed.
"""

import errno
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeplane.agent.executors.base import NotNow, Outcome, Permit, Unclear
from edgeplane.agent.executors.layout import laid_out
from edgeplane.model.tasks import TaskKind
from edgeplane.observe.crashpoints import crash_point
from edgeplane.wire import ExecuteRequest

MAX_FILE_BYTES: Final = 8 << 20  #: a deep payload grows many times over when it is laid out

_TOO_LARGE: Final = Outcome(
    "failed", f"payload: too large laid out; at most {MAX_FILE_BYTES} bytes are allowed"
)
_ABANDONED: Final = Outcome("failed", "abandoned before it took effect")
#: What is short now and may be there later: descriptors, room, memory.
_PASSING: Final = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}
#: How the look for a file ends where nothing is that could be ours; a symlink is not.
_NOT_THERE: Final = {errno.ENOENT, errno.ELOOP, errno.ENXIO}


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a kind of task looks as a file."""

    file: str
    message: str


_SHAPES: Final = {
    TaskKind.APPLY_CONFIG: _Shape(
        "cmdb_apply_config_{id}.json", "Config applied and saved to {file}"
    ),
    TaskKind.RELOAD: _Shape("cmdb_reload_{id}.txt", "Reload completed and logged to {file}"),
    TaskKind.PURGE_CACHE: _Shape("cmdb_purge_cache_{id}.json", "Cache purged and saved to {file}"),
}


class SimulatedExecutor:
    """Writes files into one folder.

    Args:
        folder: where they go; must exist.
        owner: the state folder of the agent; its drafts are told by it from those of other agents
            that share the folder.

    Raises OSError when one of the folders cannot be opened.

    """

    name = "simulated"

    def __init__(self, folder: Path, *, owner: Path) -> None:
        self._folder = folder
        place = owner.stat()  # whatever its path: agents in containers may share one
        tag = f"{place.st_dev:x}-{place.st_ino:x}"
        self._drafts = f".cmdb_draft_{tag}~"  # no request id has a tilde in it
        self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._remove_drafts(self._drafts)

    def execute(self, request: ExecuteRequest, permit: Permit) -> Outcome:
        """Write the task's file; what was under its name before is replaced."""
        content = _content(request)
        if content is None:
            return _TOO_LARGE
        name = _file_name(request)
        draft = f"{self._drafts}{request.request_id}~{secrets.token_hex(6)}"
        try:
            self._write(draft, content)
            crash_point("agent.draft_written")
            if not permit.take():
                self._unlink(draft)
                return _ABANDONED
            self._show(draft, name)
            crash_point("agent.after_effect")
        except OSError as error:
            self._unlink(draft)
            words = f"failed to write file: {self._folder / name}: {error.strerror}"
            if error.errno in _PASSING:
                raise NotNow(words) from error
            return Outcome("failed", words)
        return self._done(request)

    def recover(self, request: ExecuteRequest) -> Outcome | None:
        """Tell by the file whether an interrupted run got to its effect, and tidy up after it."""
        self._remove_drafts(f"{self._drafts}{request.request_id}~")
        content = _content(request)
        if content is None or not self._holds(_file_name(request), content):
            return None
        os.fsync(self._handle)
        return self._done(request)

    def close(self) -> None:
        """Close the folder."""
        os.close(self._handle)

    def _done(self, request: ExecuteRequest) -> Outcome:
        shape = _SHAPES[TaskKind(request.type)]
        return Outcome("success", shape.message.format(file=self._folder / _file_name(request)))

    def _write(self, draft: str, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, 0o600, dir_fd=self._handle)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fsync(descriptor)

    def _show(self, draft: str, name: str) -> None:
        """Let the file appear, whole, in one step; afterwards it is on disk under its name.

        A rename replaces a symlink itself, and never goes through it.
        """
        os.replace(draft, name, src_dir_fd=self._handle, dst_dir_fd=self._handle)
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise Unclear(f"{self._folder / name}: may not be on disk: {error.strerror}") from error

    def _holds(self, name: str, content: bytes) -> bool:
        """Say whether a regular file of our own has this very content."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            # Looked at first: a stranger's file may not let itself be opened.
            status = os.stat(name, dir_fd=self._handle, follow_symlinks=False)
            if not _is_ours(status, len(content)):
                return False
            descriptor = os.open(name, flags, dir_fd=self._handle)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return False
            raise
        try:
            if not _is_ours(os.fstat(descriptor), len(content)):
                return False
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read() == content
        finally:
            os.close(descriptor)

    def _remove_drafts(self, prefix: str) -> None:
        for name in os.listdir(self._handle):  # noqa: PTH208  a Path has no descriptor
            if name.startswith(prefix):
                self._unlink(name)

    def _unlink(self, name: str) -> None:
        with suppress(OSError):  # gone already, or a stranger's: then it is not ours to remove
            os.unlink(name, dir_fd=self._handle)


def _is_ours(status: os.stat_result, size: int) -> bool:
    regular = stat.S_ISREG(status.st_mode)
    return regular and status.st_uid == os.geteuid() and status.st_size == size


def _file_name(request: ExecuteRequest) -> str:
    return _SHAPES[TaskKind(request.type)].file.format(id=request.request_id)


def _content(request: ExecuteRequest) -> bytes | None:
    """Return what the task's file holds; None if that is too much."""
    if request.type == TaskKind.RELOAD:
        return f"Reload task executed at {request.request_id}\n".encode("ascii")
    return laid_out(bytes(request.payload), MAX_FILE_BYTES)
