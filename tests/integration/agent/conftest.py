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
from kit.asking import Asker
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
        """Ask for an execution; the payload is JSON text and travels as it is, or is left out."""
        body = json.dumps({"requestId": request_id, "type": kind, **more})
        if payload is not None:
            body = f'{body[:-1]}, "payload": {payload}}}'
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

    @property
    def running(self):
        """Whether it is there."""
        return self._process.poll() is None

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


class Asked:
    """Whoever is asked in replies to its exchanges, and answers in them."""

    _asker: Asker

    def execute(self, *asked, **more):
        """Ask for an execution."""
        return self._asker.execute(*asked, **more)

    def execute_batch(self, *tasks):
        """Ask for many executions at once."""
        return self._asker.execute_batch(*tasks)

    def cancel(self, *asked, **more):
        """Ask for a request to have no effect; return None where that is not answered."""
        return self._asker.cancel(*asked, **more)


class OutboundAgent(Asked, AgentProcess):
    """The same, connecting out."""

    def __init__(self, folder: Path, **environment):
        self._asker = Asker()
        place = {"EDGEPLANE_CONTROL": self._asker.url, "EDGEPLANE_NODE": "edge-1"}
        super().__init__(folder, **{"AGENT_HTTP_ADDR": None, **place, **environment})
        self._asker.is_alive = lambda: self.running

    def close(self):
        """End what it connects to, once it is gone."""
        self._asker.close()


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


@pytest.fixture(params=["push", "sync"])
def launch_either(request, tmp_path):
    """Return a function that starts the agent on the same folders, listening or connecting out."""
    kind = AgentProcess if request.param == "push" else OutboundAgent
    started = []

    def start(**environment):
        started.append(kind(tmp_path, **environment))
        return started[-1]

    yield start
    for agent in started:
        agent.kill()
        if isinstance(agent, OutboundAgent):
            agent.close()


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """Return one agent that runs for a whole module; tests tell their tasks apart by id."""
    running = AgentProcess(tmp_path_factory.mktemp("agent"))
    yield running
    running.kill()


@pytest.fixture(scope="module")
def outbound(tmp_path_factory):
    """Return one agent that connects out, for a whole module."""
    running = OutboundAgent(tmp_path_factory.mktemp("outbound"))
    yield running
    running.kill()
    running.close()


class SwarmAgent:
    """One agent of a swarm, spoken to as the real one is."""

    token, host = TOKEN, address_of(2)
    call, cancel = AgentProcess.call, AgentProcess.cancel
    execute, execute_batch = AgentProcess.execute, AgentProcess.execute_batch

    def __init__(self, folder):
        self._swarm = Swarm(folder, 3).up()
        self.port = self._swarm.port

    def effects(self):
        """Return the effects it has made."""
        return _effects(self._swarm, self.host)

    def kill(self):
        """End it, and all others."""
        self._swarm.kill()


class OutboundSwarmAgent(Asked):
    """The only agent of a swarm that connects out."""

    def __init__(self, folder):
        self._asker = Asker()
        self._swarm = Swarm(folder, 1, control=self._asker.url).up()
        self._asker.is_alive = lambda: self._swarm.running

    def effects(self):
        """Return the effects it has made."""
        return _effects(self._swarm, address_of(1))

    def kill(self):
        """End it, and what it connects to."""
        self._swarm.kill()
        self._asker.close()


def _effects(swarm, address):
    lines = map(json.loads, swarm.effects.read_text().splitlines())
    return [line for line in lines if line["agent"] == address]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory):
    """Return the real agent's double."""
    double = SwarmAgent(tmp_path_factory.mktemp("swarm"))
    yield double
    double.kill()


@pytest.fixture(scope="module")
def outbound_swarm(tmp_path_factory):
    """Return the double of one that connects out."""
    double = OutboundSwarmAgent(tmp_path_factory.mktemp("outbound-swarm"))
    yield double
    double.kill()


# What is asked of all keeps them from drifting apart.


@pytest.fixture(scope="module", params=["agent", "swarm"])
def either(request):
    """Return the real agent or its double, which listen: for what is told of doors."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=["agent", "outbound"])
def real(request):
    """Return the real agent, which listens or connects out."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=["agent", "swarm", "outbound", "outbound_swarm"])
def each(request):
    """Return any of them: for what an agent promises whichever way it is asked."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=["outbound", "outbound_swarm"])
def caller(request):
    """Return the real agent or its double, which connect out."""
    return request.getfixturevalue(request.param)
