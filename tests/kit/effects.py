"""Counts effects from outside: the kernel says which files appear in an agent's folder (inotify).

Neither the agent nor its journal has a part in it. What counts is a file that appears under a
task's own name, by being made there or moved there, or is written again there; drafts have other
names.
"""

import ctypes
import os
import re
import select
import struct
import threading
import time
from pathlib import Path

from kit.history import Effect, History

_IN_CLOSE_WRITE, _IN_MOVED_TO, _IN_CREATE = 0x8, 0x80, 0x100
_IN_ISDIR, _IN_Q_OVERFLOW = 0x4000_0000, 0x4000
_HEADER = struct.Struct("iIII")
_NAME = re.compile(r"cmdb_(?:apply_config|reload|purge_cache)_(?P<request_id>.+)\.(?:json|txt)")
_libc = ctypes.CDLL(None, use_errno=True)


class EffectsLost(Exception):
    """The kernel dropped events: the count is worth nothing."""


class Effects:
    """Watches one folder from construction until ``stop``; tells the history of each effect."""

    def __init__(self, folder: Path, history: History) -> None:
        self._folder = folder
        self._history = history
        self._lost = False
        self._being_made: set[str] = set()  #: counted as made; the first close after is part of it
        self._draining = threading.Lock()
        self._handle = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        wanted = _IN_CREATE | _IN_MOVED_TO | _IN_CLOSE_WRITE
        _check(_libc.inotify_add_watch(self._handle, os.fsencode(folder), wanted))
        self._end_read, self._end_write = os.pipe()
        self._thread = threading.Thread(target=self._watch, name="effects", daemon=True)
        self._thread.start()

    def flush(self) -> None:
        """Tell of everything that has happened by now; raise EffectsLost where some was dropped."""
        self._drain()
        if self._lost:
            raise EffectsLost(str(self._folder))

    def stop(self) -> None:
        """Tell of everything that has happened, and end; raise EffectsLost as ``flush`` does."""
        os.close(self._end_write)
        self._thread.join()
        try:
            self.flush()
        finally:
            os.close(self._handle)
            os.close(self._end_read)

    def _watch(self) -> None:
        while True:
            ready, _, _ = select.select([self._handle, self._end_read], [], [])
            self._drain()
            if self._end_read in ready:
                return

    def _drain(self) -> None:
        with self._draining:
            while True:
                try:
                    self._read(os.read(self._handle, 64 << 10))
                except BlockingIOError:
                    return

    def _read(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            _, mask, _, length = _HEADER.unpack_from(data, at)
            name = data[at + _HEADER.size : at + _HEADER.size + length].rstrip(b"\0")
            at += _HEADER.size + length
            self._tell(mask, os.fsdecode(name))

    def _tell(self, mask: int, name: str) -> None:
        self._lost = self._lost or bool(mask & _IN_Q_OVERFLOW)
        found = _NAME.fullmatch(name)
        if found is None or mask & _IN_ISDIR:
            return
        if mask & _IN_CREATE:
            self._being_made.add(name)
        elif mask & _IN_CLOSE_WRITE and name in self._being_made:
            self._being_made.discard(name)
            return
        file = str(self._folder / name)
        self._history.add(Effect(at=time.monotonic(), request_id=found["request_id"], file=file))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
