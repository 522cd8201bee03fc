"""Child processes that live and die with this one: started, kept up, stopped with grace.

Start them from the main thread: Linux counts the death of the starting thread as the parent's.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeplane.cli import leash, output

GRACE_SECONDS = 15.0

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_SETTLED_SECONDS = 60.0  #: after so long a life, a death counts as the first again
_LINE_BYTES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run."""

    name: str
    arguments: Sequence[str]
    env: Mapping[str, str]
    folder: Path | None  #: working folder; None: this one


class Child:
    """One program, kept running by calling ``tend`` often."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._pause = _FIRST_PAUSE
        self._started_at = 0.0
        self._due: float | None = None

    def start(self) -> None:
        """Start it, in a process group of its own: a Ctrl-C here is not its business."""
        here = [sys.executable, "-I", "-S", str(leash.__file__), str(os.getpid())]
        process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            [*here, *self.program.arguments],
            env=dict(self.program.env),
            cwd=self.program.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        self._process, self._due, self._started_at = process, None, time.monotonic()
        self._pump = threading.Thread(
            target=_pass_on, args=(self.program.name, process.stdout), daemon=True
        )
        self._pump.start()

    @property
    def ended(self) -> int | None:
        """Its exit code if it has ended; negative: the signal that ended it."""
        return self._process.poll() if self._process is not None else None

    @property
    def pid(self) -> int | None:
        """Its process id once it was started."""
        return self._process.pid if self._process is not None else None

    def tend(self) -> None:
        """Start it again if it died, after a pause that grows while it goes on dying."""
        now = time.monotonic()
        if self._due is not None:
            if now >= self._due:
                self.start()
            return
        code = self.ended
        if code is None:
            return
        if now - self._started_at > _SETTLED_SECONDS:
            self._pause = _FIRST_PAUSE
        how = describe_end(code)
        output.tell(f"{self.program.name} ended ({how}): starting it again in {self._pause:g} s")
        self._due = now + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def ask_to_stop(self) -> None:
        """Send SIGTERM, if it runs."""
        self._due = None
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait_stopped(self, deadline: float) -> bool:
        """Wait for its end until a monotonic time, then kill it; return whether it went itself."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
            went = True
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            went = False
        if self._pump is not None:
            self._pump.join(1.0)
        return went


def stop_all(children: Sequence[Child]) -> None:
    """Stop all at once: SIGTERM, and SIGKILL for what is still there when the grace is over."""
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children:
        child.ask_to_stop()
    for child in children:
        if not child.wait_stopped(deadline):
            output.tell(f"{child.program.name} did not stop in {GRACE_SECONDS:g} s: killed")


def describe_end(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _pass_on(name: str, source: IO[bytes]) -> None:
    """Print a child's lines under its name; go on reading when nobody reads ours."""
    with source:
        while line := source.readline(_LINE_BYTES):
            with contextlib.suppress(OSError, ValueError):
                output.tell(f"{name} | {line.decode('utf-8', 'replace').rstrip()}")
