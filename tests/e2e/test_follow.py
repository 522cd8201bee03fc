"""Following tasks at real processes: nothing polls, nothing is lost, no stop waits."""

import contextlib
import json
import threading
import time
import urllib.request
from collections import Counter
from itertools import pairwise

import pytest

from edgeplane.client.records import NewOperation, NewTask, Target
from edgeplane.client.rest import Client
from kit.processes import Agent, ControlPlane
from kit.waiting import until


@pytest.fixture
def control(tmp_path):
    """Run a control plane on SQLite."""
    control = ControlPlane(tmp_path / "control").up()
    yield control
    control.kill()


@pytest.fixture
def agent(tmp_path):
    """Run an agent."""
    agent = Agent(tmp_path / "agent").up()
    yield agent
    agent.kill()


class Reader:
    """Reads the stream in a thread, and comes back whenever it breaks off."""

    def __init__(self, control):
        self._control = control
        self._ending = threading.Event()
        self.breaks = 0
        self.last = ""
        self.events = []
        self.there = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def end(self):
        """Stop coming back."""
        self._ending.set()
        self._thread.join(20)

    def _follow(self):
        while not self._ending.is_set():
            with contextlib.suppress(OSError):
                self._read()
            self.breaks += 1
            self._ending.wait(0.02)

    def _read(self):
        headers = {"Authorization": f"Bearer {self._control.token}", "Last-Event-ID": self.last}
        url = f"http://127.0.0.1:{self._control.port}/api/v1/events"
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            for raw in answer:
                name, _, value = raw.decode().rstrip("\n").partition(": ")
                if name == "id":
                    self.last = value
                    self.there.set()
                if name == "data":
                    self.events.append(json.loads(value))


def test_a_wait_is_told_and_does_not_ask(control, agent, monkeypatch):
    """The library follows the stream from the task's creation to its end."""
    monkeypatch.setattr("edgeplane.client.news.time.sleep", lambda _: pytest.fail("it slept"))
    client = Client(f"http://127.0.0.1:{control.port}", control.token)
    task = client.create_task(NewTask(node_id=control.add_node(agent.port), type="reload"))
    *_, last = client.wait(task.id, 20)
    assert last.status == "success"
    (attempt,) = client.list_attempts(task.id).list
    assert (attempt.outcome, attempt.address) == ("succeeded", f"127.0.0.1:{agent.port}")
    assert attempt.replica
    client.close()


def test_an_operation_is_watched_and_not_asked(control, monkeypatch):
    """While it is paused nobody asks how far it is; what happens then is told at once."""
    client = Client(f"http://127.0.0.1:{control.port}", control.token)
    get, looks = client.get_operation, []

    def counted(which):
        looks.append(which)
        return get(which)

    monkeypatch.setattr(client, "get_operation", counted)
    nodes = Target(node_ids=[control.add_node(1)])
    operation = client.create_operation(NewOperation(type="reload", target=nodes))
    control.data("POST", "/operations/pause", {"id": operation.id})
    until(lambda: not get(operation.id).counts["running"], 20, "nothing of it is out")
    assert [seen.state for seen in client.wait_operation(operation.id, 2.5)] == ["paused"]
    assert (
        len(looks) <= 4
    )  # at first, when the stream had begun, for what it began with, at the end
    watching = client.wait_operation(operation.id, 20)
    assert next(watching).state == "paused"
    control.data("POST", "/operations/cancel", {"id": operation.id})
    assert [seen.state for seen in watching][-1] == "cancelled"
    assert len(looks) <= 12
    client.close()


def test_a_wait_ends_when_its_time_is_up(control):
    """Nothing happens at a node that is away from the second attempt on: six is the exit code."""
    node = control.add_node(1)
    client = Client(f"http://127.0.0.1:{control.port}", control.token)
    task = client.create_task(NewTask(node_id=node, type="reload"))
    started = time.monotonic()
    *_, last = client.wait(task.id, 1.0)
    assert not last.final
    assert time.monotonic() - started < 5
    client.close()


def test_a_stop_does_not_wait_for_who_follows(control):
    """SIGTERM ends the streams, and the process with them."""
    reader = Reader(control)
    assert reader.there.wait(20)
    started = time.monotonic()
    assert control.stop() == 0
    assert time.monotonic() - started < 5
    reader.end()


def test_each_move_is_told_once_whatever_is_killed(control, agent):
    """SIGKILL in the midst of the work, three times: each task is created and done once."""
    node = control.add_node(agent.port)
    reader = Reader(control)
    assert reader.there.wait(20)
    made = []
    for _ in range(3):
        for _ in range(20):
            asked = {"nodeId": node, "type": "purge_cache", "payload": {"urls": ["/a"]}}
            made.append(control.data("POST", "/agent-tasks/create", asked)["id"])
        control.kill()
        control.up()
    for task_id in made:
        control.wait_for_task(task_id)

    def done():
        return sum(event["type"] == "succeeded" for event in list(reader.events)) >= len(made)

    until(done, 20, "all successes are told")
    told = Counter((event["type"], event["taskId"]) for event in reader.events)
    assert {key: told[key] for key in told if key[0] in {"created", "succeeded"}} == {
        (kind, task_id): 1 for kind in ("created", "succeeded") for task_id in made
    }
    assert all(one["id"] < next_one["id"] for one, next_one in pairwise(reader.events))
    assert reader.breaks >= 3
    control.kill()
    reader.end()
