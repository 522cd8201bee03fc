"""What tests need to watch real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from kit.waiting import until


def alive(pid):
    """Whether a process runs (a dead one nobody has waited for does not)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class Up:
    """A running ``edgeplane up`` on free ports, with the lines it printed."""

    def __init__(self, folder, *options, **env):
        self.folder = folder
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgeplane", "up", *options],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **env, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        self._out = self.process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._out:
            self.lines.append(line.rstrip())

    def wait_for(self, text):
        """Wait until a line holds this text."""
        until(lambda: any(text in line for line in self.lines), 30, f"{text!r} in {self.lines}")

    @property
    def children(self):
        """The ids of its two daemons."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def stop(self, number=signal.SIGTERM):
        """End it; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(40)

    def close(self):
        """Make sure it is gone, and read what is left of its lines."""
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)
        self._reader.join(10)
        self._out.close()
