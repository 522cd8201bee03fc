"""Starts our programs in a fifth of the time: as forks of a process that has imported them already.

A fork runs the same ``main`` with the same arguments, environment and folder as the program would,
on a file table of its own; it is killed, stopped and waited for as any process is. What is left out
is the import of a thousand modules, most of what a start costs.
"""

import array
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

#: The programs, by the last part of their path; ``serve`` imports its parts when it is called.
_PROGRAMS = {
    "edgeplane": "edgeplane.cli.root",
    "edgeplane-agent": "edgeplane.agent.cli",
    "edgeplane-swarm": "edgeplane.swarm.cli",
}
_PARTS = ("edgeplane.cli.main", "edgeplane.cli.serve", "edgeplane.cli.server_parts")
_MORE = ("edgeplane.bootstrap", "edgeplane.store.migrate", "redis.asyncio", "pymysql", "argon2")
_MOST_BYTES = 64 << 10
_PR_SET_PDEATHSIG = 1


class Forked:
    """A fork, with as much of ``subprocess.Popen`` as the tests use."""

    def __init__(self, pid: int, life: socket.socket, stdout: IO[str]) -> None:
        self.pid = pid
        self.stdout: IO[str] | None = stdout
        self._life = life
        self._lock = threading.Lock()
        self._looking = 0
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return its exit status if it has ended: negative for the signal that ended it."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; raise ``subprocess.TimeoutExpired`` where that takes longer."""
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0)
        return status

    def __del__(self) -> None:
        """Let go of the socket of one nobody waited for."""
        self._life.close()

    def _look(self, seconds: float | None) -> int | None:
        """Wait; several threads may, and the word stays in the socket until all have read it."""
        with self._lock:
            if self._status is not None:
                return self._status
            self._looking += 1
        try:
            if select.select([self._life], [], [], seconds)[0]:
                told = self._life.recv(64, socket.MSG_PEEK)
                assert told, "the process that forks is gone"
                self._status = int(told)
        finally:
            with self._lock:
                self._looking -= 1
                if self._status is not None and not self._looking:
                    self._life.close()
        return self._status


class Forks:
    """The process that forks; ``close`` ends it, and whatever it has started."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kit.forks", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
            )
        self._socket = ours
        assert self._socket.recv(16) == b"ready"

    def start(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> Forked:
        """Start a program of ours; what it prints comes on ``stdout``."""
        asked = json.dumps({"command": list(command), "env": dict(env), "cwd": str(cwd)})
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        answer, answering = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe()
        handles = array.array("i", [write, theirs.fileno(), answering.fileno()])
        with theirs, answer, answering:
            self._socket.sendmsg(
                [asked.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)]
            )
            os.close(write)
            answering.close()
            pid = int(answer.recv(64))
        return Forked(pid, ours, os.fdopen(read, "r", errors="replace"))

    def close(self) -> None:
        """End it; its children die with it."""
        self._socket.close()
        self._process.wait(20)


class _Server:
    """What runs in the process that forks: one thread, no event loop, no open database."""

    def __init__(self, asking: socket.socket) -> None:
        self._asking = asking
        self._lives: dict[int, socket.socket] = {}
        self._woken, waking = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for who asks; the end follows

    def serve(self) -> Callable[[], Any] | None:
        """Fork when asked; return in the child what to run, and None in the parent at the end."""
        self._asking.send(b"ready")
        while True:
            ready, _, _ = select.select([self._asking.fileno(), self._woken], [], [])
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
            self._reap()
            if self._asking.fileno() not in ready:
                continue
            asked, handles, _, _ = socket.recv_fds(self._asking, _MOST_BYTES, 3)
            if not asked:
                self._end()
                return None
            child = self._fork(json.loads(asked), handles)
            if child is not None:
                return child

    def _fork(self, asked: dict[str, Any], handles: list[int]) -> Callable[[], Any] | None:
        stdout, life, answer = handles
        pid = os.fork()
        if pid == 0:
            _become(asked, stdout)
            return _main_of(asked["command"])
        os.close(stdout)
        self._lives[pid] = socket.socket(fileno=life)
        with socket.socket(fileno=answer) as answering:
            answering.send(str(pid).encode())
        return None

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._tell(*ended)

    def _end(self) -> None:
        for pid in self._lives:
            os.kill(pid, signal.SIGKILL)
        for pid in list(self._lives):
            self._tell(*os.waitpid(pid, 0))

    def _tell(self, pid: int, status: int) -> None:
        with self._lives.pop(pid) as life, suppress(OSError):  # nobody may listen any more
            life.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(asked: dict[str, Any], stdout: int) -> None:
    """Leave nothing of the process that forked but its modules."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(stdout, 1)
    os.dup2(stdout, 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.closerange(3, 1024)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])


def _main_of(command: Sequence[str]) -> Callable[[], Any]:
    """Return what a command runs: a script of ours, or ``python -m`` a package of ours."""
    if command[1:2] == ["-m"]:
        name, arguments = command[2], command[3:]
    else:
        name, arguments = Path(command[0]).name, command[1:]
    sys.argv = [name, *arguments]
    module = "edgeplane.cli.main" if name == "edgeplane" else _PROGRAMS[name]
    run: Callable[[], Any] = importlib.import_module(module).main
    return run


def main() -> None:
    """Import everything, then fork whenever asked."""
    for module in (*_PROGRAMS.values(), *_PARTS, *_MORE):
        importlib.import_module(module)
    gc.freeze()  # or every fork would copy what the collector touches
    run = _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if run is not None:
        run()


if __name__ == "__main__":
    main()
