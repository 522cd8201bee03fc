"""The real agent, as a process on a loopback port."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeplane.swarm.addresses import address_of
from kit.processes import AGENT_TOKEN as TOKEN
from kit.swarm import Swarm

PATIENCE = 20.0


def until(probe, what):
    """Return the first true answer of a probe into another process; fail after the patience."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return answer


class AgentProcess:
    """One run of ``edgeplane-agent run`` on folders that outlive it.

    ``before``: lines of Python that come before its own.
    """

    token = TOKEN
    host = "127.0.0.1"

    def __init__(self, folder: Path, arguments=(), *, before="", **environment):
        self.files = folder / "files"
        self.state = folder / "state"
        self.files.mkdir(exist_ok=True)
        runs = len(list(folder.glob("run*.out")))
        self._out, self._err = folder / f"run{runs}.out", folder / f"run{runs}.err"
        values = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AGENT_TOKEN": TOKEN,
            "AGENT_HTTP_ADDR": "127.0.0.1:0",
            "EDGEPLANE_AGENT_STATE_DIR": str(self.state),
            "EDGEPLANE_SIMULATED_DIR": str(self.files),
            **environment,
        }
        command = "\nfrom edgeplane.agent.cli import main; main()"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-c", before + command, "run", *arguments],
                env={name: value for name, value in values.items() if value is not None},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def effects(self):
        """Return the effects it has made."""
        return sorted(self.files.iterdir())

    @property
    def out(self):
        """What it has printed."""
        return self._out.read_text()

    @property
    def err(self):
        """What it has logged."""
        return self._err.read_text()

    @property
    def port(self):
        """Where it listens; waits until it does."""
        ready = r"Agent server running on .*:(\d+)\n"
        until(lambda: re.search(ready, self.out) or self._process.poll() is not None, "the start")
        found = re.search(ready, self.out)
        assert found, self.err
        return int(found[1])

    def logged(self, text):
        """Wait until a text is in the log."""
        return until(lambda: text in self.err, text)

    def call(self, method, path, body=None, *, token=TOKEN, headers=None):
        """Send one request; return status, headers and body of the answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        shown = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            connection.request(method, path, body, {**shown, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), json.loads(answer.read())
        finally:
            connection.close()

    def execute(self, request_id, kind="apply_config", payload='{"a":1}', **more):
        """Ask for an execution; the payload is JSON text and travels as it is."""
        fields = {"requestId": request_id, "type": kind, **more}
        body = f'{json.dumps(fields)[:-1]}, "payload": {payload}}}'
        status, _, answer = self.call("POST", "/agent/v1/tasks/execute", body)
        return status, answer

    def execute_batch(self, *tasks):
        """Ask for many executions at once; each is a dict of what it has beside its defaults."""
        filled = [{"type": "apply_config", "payload": {"a": 1}, **task} for task in tasks]
        body = json.dumps({"tasks": filled})
        status, _, answer = self.call("POST", "/agent/v1/tasks/execute-batch", body)
        return status, answer

    def cancel(self, request_id, **more):
        """Ask for a request to have no effect."""
        body = json.dumps({"requestId": request_id, **more})
        status, _, answer = self.call("POST", "/agent/v1/tasks/cancel", body)
        return status, answer

    def kill(self):
        """End it as a power cut would."""
        self._process.kill()
        return self.exit_code()

    def stop(self, number=signal.SIGTERM):
        """Ask it to end; return its exit code."""
        self._process.send_signal(number)
        return self.exit_code()

    def signal(self, number):
        """Send a signal, and do not wait."""
        self._process.send_signal(number)

    def exit_code(self):
        """Wait for its end."""
        return self._process.wait(PATIENCE)

    def memory_kib(self):
        """Return what it holds in memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


@pytest.fixture
def launch(tmp_path):
    """Return a function that starts the agent, each time on the same folders."""
    started = []

    def start(*arguments, **environment):
        started.append(AgentProcess(tmp_path, arguments, **environment))
        return started[-1]

    yield start
    for agent in started:
        agent.kill()


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """Return one agent that runs for a whole module; tests tell their tasks apart by id."""
    running = AgentProcess(tmp_path_factory.mktemp("agent"))
    yield running
    running.kill()


class SwarmAgent:
    """One agent of a swarm, spoken to as the real one is."""

    token, host = TOKEN, address_of(2)
    call, cancel = AgentProcess.call, AgentProcess.cancel
    execute, execute_batch = AgentProcess.execute, AgentProcess.execute_batch

    def __init__(self, folder):
        self._swarm = Swarm(folder, 3).up()
        self.port = self._swarm.port
        self.kill = self._swarm.kill

    def effects(self):
        """Return the effects it has made."""
        lines = map(json.loads, self._swarm.effects.read_text().splitlines())
        return [line for line in lines if line["agent"] == self.host]


@pytest.fixture(scope="module", params=["agent", "swarm"])
def either(request, tmp_path_factory):
    """Return the real agent or its double: what is asked of both keeps them from drifting apart."""
    if request.param == "agent":
        yield request.getfixturevalue("agent")
        return
    double = SwarmAgent(tmp_path_factory.mktemp("swarm"))
    yield double
    double.kill()
