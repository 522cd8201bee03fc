"""Real control planes and agents as processes, started and ended by the tests."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from kit.ports import free_port
from kit.waiting import until

ADMIN_PASSWORD = "a-password-for-tests"
AGENT_TOKEN = "an-agent-token-for-the-tests"
JWT_SECRET = "a-jwt-secret-for-the-tests-only-0123456789"


class Started(Protocol):
    """A process as it was started: what is used of ``subprocess.Popen``."""

    pid: int
    stdout: IO[str] | None

    def poll(self) -> int | None:
        """Return its exit status, if it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""


Start = Callable[[Sequence[str], Mapping[str, str], Path], Started]


def popen(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> Started:
    """Start a program as a shell would."""
    return subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


class Process:
    """A process of ours: its output is read all the time and kept."""

    how: Start = staticmethod(popen)  #: how it is started; ``kit.forks`` is faster

    def __init__(self, command: list[str], env: Mapping[str, str], cwd: Path) -> None:
        self.command = command
        self._env = {**_clean_environ(), **env}
        self._cwd = cwd
        self._process: Started | None = None
        self._lines: list[str] = []
        self._begin = 0  #: the line its last start began with
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """Everything it has printed, both streams, over all its starts."""
        return "".join(self._lines)

    def start(self, **env: str) -> None:
        """Start it; ``env`` adds to its environment for this start."""
        self._read_to_the_end()
        self._begin = len(self._lines)
        self._process = self.how(self.command, {**self._env, **env}, self._cwd)
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def wait_for(self, words: str, seconds: float = 20.0) -> None:
        """Wait until it has printed these words since its last start."""

        def printed() -> bool:
            ended = not self.running
            if ended:
                self._read_to_the_end()
            found = any(words in line for line in self._lines[self._begin :])
            assert found or not ended, f"it ended: {self.output[-2000:]}"
            return found

        until(printed, seconds, f"{words!r} in {self.output[-2000:]}")

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self, seconds: float = 20.0) -> int:
        """End it with SIGTERM; return its exit status."""
        self.send(signal.SIGTERM)
        return self.wait(seconds)

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):  # a fork that ends just now: its word is on its way
                os.kill(self._process.pid, number)

    def wait(self, seconds: float = 20.0) -> int:
        """Wait until it has ended; return its exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def _read_to_the_end(self) -> None:
        """Wait for the last words of a process that has ended."""
        if self._reader is not None:
            self._reader.join(5)

    def _read(self, process: Started) -> None:
        assert process.stdout is not None
        with process.stdout:
            self._lines.extend(process.stdout)


class ControlPlane(Process):
    """``edgeplane serve`` on a free port; SQLite unless ``MYSQL_DSN`` is given.

    Args:
        folder: its own; its state is in there.
        env: further settings.
        host: the address it listens at.
        inside: what its command begins with, to run elsewhere than here.

    """

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str] | None = None,
        *,
        host: str = "127.0.0.1",
        inside: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.port = free_port()
        self.sync_port = free_port()  #: where agents that connect out come in
        self.patience = 30.0  #: seconds a call may take
        self.folder = folder
        self.token = ""
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "EDGEPLANE_STATE_DIR": str(folder / "state"),
            "HTTP_ADDR": f"{host}:{self.port}",
            "SYNC_HTTP_ADDR": f"{host}:{self.sync_port}",
            "AGENT_TOKEN": AGENT_TOKEN,
            "JWT_SECRET": JWT_SECRET,
            "ADMIN_PASSWORD": ADMIN_PASSWORD,
            "MIGRATE": "1",
            **(env or {}),
        }
        command = [*inside, sys.executable, "-m", "edgeplane", "serve"]
        super().__init__(command, settings, folder)

    def up(self, **env: str) -> "ControlPlane":
        """Start it, wait until it answers, and log in."""
        self.start(**env)
        until(self._answers, 30, "the control plane answers")
        if not self.token:
            login = {"username": "admin", "password": ADMIN_PASSWORD}
            self.token = self.call("POST", "/auth/login", login)["data"]["token"]
        return self

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None
    ) -> dict[str, Any]:
        """Call the API; return the envelope, with the HTTP status added as ``status``."""
        data = (
            body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        )
        headers = {"Content-Type": "application/json"}
        bearer = self.token if token is None else token
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        request = urllib.request.Request(
            f"http://{self.host}:{self.port}/api/v1{path}", data, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=self.patience) as answer:
                return {**json.load(answer), "status": answer.status}
        except urllib.error.HTTPError as error:
            with error:
                return {**json.load(error), "status": error.code}

    def data(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API and return its data; fail unless it succeeded."""
        answer = self.call(method, path, body)
        assert answer["code"] == 0, answer
        return answer["data"]

    def add_node(
        self, port: int = 9090, name: str = "node", ip: str = "127.0.0.1", transport: str = "push"
    ) -> int:
        """Register a node; return its id."""
        node = {"name": name, "mainIP": ip, "agentPort": port, "transport": transport}
        return int(self.data("POST", "/nodes/create", node)["id"])

    def task(self, task_id: int) -> dict[str, Any]:
        """Return a task."""
        return dict(self.data("GET", f"/agent-tasks/{task_id}"))

    def wait_for_task(
        self, task_id: int, status: str = "success", seconds: float = 20.0
    ) -> dict[str, Any]:
        """Wait until a task has this status (``failed`` counts with or without a next retry)."""

        def there() -> dict[str, Any] | None:
            task = self.task(task_id)
            return task if task["status"] == status else None

        found = until(there, seconds, f"task {task_id} is {status}")
        assert found is not None
        return found

    def _answers(self) -> bool:
        assert self.running, f"it ended: {self.output[-2000:]}"
        try:
            return bool(self.call("GET", "/ping", token="")["code"] == 0)
        except OSError:
            return False


class Agent(Process):
    """``edgeplane-agent run`` on a free port, with its files in ``<folder>/work``."""

    def __init__(
        self, folder: Path, env: Mapping[str, str] | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.host = host
        self.port = free_port()
        self.work = folder / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        settings = {
            "EDGEPLANE_AGENT_STATE_DIR": str(folder / "state"),
            "AGENT_HTTP_ADDR": f"{host}:{self.port}",
            "AGENT_TOKEN": AGENT_TOKEN,
            "EDGEPLANE_SIMULATED_DIR": str(self.work),
            **(env or {}),
        }
        program = str(Path(sys.executable).with_name("edgeplane-agent"))
        super().__init__([program, "run"], settings, folder)

    def up(self, **env: str) -> "Agent":
        """Start it and wait until it listens."""
        self.start(**env)
        self.wait_until_up()
        return self

    def wait_until_up(self) -> None:
        """Wait until it listens, having been started."""
        self.wait_for("Agent server running on")

    def post(self, path: str, body: Any) -> dict[str, Any]:
        """Call the agent as a control plane would; return the envelope."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/agent/v1{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {AGENT_TOKEN}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))


class ConnectingAgent(Agent):
    """The same program, listening nowhere: it connects out to these URLs for the node it names."""

    def __init__(self, folder: Path, node: str, controls: Sequence[str]) -> None:
        super().__init__(folder, {"EDGEPLANE_CONTROL": ",".join(controls), "EDGEPLANE_NODE": node})

    def wait_until_up(self) -> None:
        """Wait until it has heard of a control plane, or told why it does not."""
        self.wait_for("control plane http", 60.0)


def _clean_environ() -> dict[str, str]:
    """Return this environment without any setting of ours, nor a proxy."""
    ours = (
        *("EDGEPLANE_", "MYSQL_", "REDIS_", "JWT_", "AGENT_", "METRICS_"),
        *("HTTP_ADDR", "SYNC_HTTP_ADDR", "MIGRATE", "ADMIN_"),
    )
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and "proxy" not in name.lower()
    }
