"""One run: real processes, a stream of creates, and everything written down for the checker."""

import http.client
import itertools
import queue
import signal
import sqlite3
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql

from kit.checker import check
from kit.effects import Effects
from kit.history import Ended, History, Sampled
from kit.processes import Agent, ControlPlane, Process
from kit.tables import Tables, TaskRow
from kit.waiting import until

_SAMPLE_SECONDS = 0.05
_PAYLOADS: dict[str, dict[str, Any]] = {
    "apply_config": {"vhost": "example.com", "upstream": ["192.168.1.1:80"]},
    "reload": {},
    "purge_cache": {"urls": ["/static/*"]},
}
_AWAY = (OSError, http.client.HTTPException, sqlite3.Error, pymysql.MySQLError)


@dataclass(frozen=True, slots=True)
class Ask:
    """A create, as a client sends it: again and again, under one id, until it is answered."""

    request_id: str
    node_id: int
    kind: str


class Stage:
    """Everything of one run; ``finish`` waits for its end and returns the checker's verdict."""

    def __init__(self, folder: Path, tables: Tables) -> None:
        self.folder = folder
        self.tables = tables
        self.history = History(folder / "history.jsonl")
        self.asked: list[Ask] = []
        self._processes: list[Process] = []
        self._effects: list[Effects] = []
        self._finished = threading.Event()
        self._sampler: threading.Thread | None = None
        self._numbers = itertools.count()

    def agent(self, name: str = "agent", **env: str) -> Agent:
        """Start an agent, and watch its folder from before its first line."""
        agent = Agent(self.folder / name)
        self._processes.append(agent)
        self._effects.append(Effects(agent.work, self.history))
        return agent.up(**env)

    def control(self, name: str = "control", settings: Any = None, **env: str) -> ControlPlane:
        """Start a control plane; ``env`` is for this start only."""
        control = ControlPlane(self.folder / name, settings)
        self._processes.append(control)
        control.up(**env)
        if self._sampler is None:
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return control

    def asks(self, nodes: list[int], count: int) -> list[Ask]:
        """Make up creates for these nodes in turn, of every kind."""
        kinds = list(_PAYLOADS)
        made = []
        for _ in range(count):
            number = next(self._numbers)
            node = nodes[number % len(nodes)]
            made.append(Ask(f"r{number}", node, kinds[number // len(nodes) % len(kinds)]))
        self.asked += made
        return made

    def ask(self, control: ControlPlane, ask: Ask) -> bool:
        """Send a create once; whether it was answered with a task."""
        body = {"nodeId": ask.node_id, "type": ask.kind, "payload": _PAYLOADS[ask.kind]}
        try:
            answer = control.call(
                "POST", "/agent-tasks/create", {**body, "requestId": ask.request_id}
            )
        except (OSError, http.client.HTTPException, ValueError):
            return False
        if answer["code"] == 0:
            self.history.accept(ask.request_id, answer["data"]["id"])
            return True
        assert answer["status"] in {429, 500, 503}, answer
        return False

    def ask_all(self, control: ControlPlane) -> None:
        """Send every create that has not been answered yet; all must be answered now."""
        known = self.history.accepted
        for ask in self.asked:
            if ask.request_id not in known:
                assert self.ask(control, ask), control.output[-2000:]

    def stream(self, controls: list[ControlPlane], asks: list[Ask]) -> "Stream":
        """Begin to send creates from several threads, each until it is answered."""
        return Stream(self, controls, asks)

    def accepted(self, count: int) -> None:
        """Wait until so many creates have been answered."""
        until(lambda: len(self.history.accepted) >= count, 60, f"{count} creates answered")

    def kill(self, process: Process) -> None:
        """End it with SIGKILL."""
        process.kill()
        assert process.wait() == -signal.SIGKILL
        self.history.kill(process.command[-1])

    def died(self, process: Process) -> None:
        """Wait until a process has died of SIGKILL by itself."""
        assert process.wait() == -signal.SIGKILL, process.output[-2000:]
        self.history.kill(process.command[-1])

    def restart(self, process: Agent | ControlPlane) -> None:
        """Start it as it was, with nothing special in its environment."""
        process.up()
        self.history.restart(process.command[-1])

    def row(self, request_id: str) -> TaskRow | None:
        """Return a task's row, if it is stored."""
        return next((row for row in self.tables.tasks() if row.request_id == request_id), None)

    def verdict(self, seconds: float = 40.0) -> list[str]:
        """Wait until every task is final, and return what is wrong so far."""
        self._all_final(seconds)
        for effects in self._effects:
            effects.flush()
        return check(self.history.events, self.tables.tasks())

    def finish(self, seconds: float = 40.0) -> list[str]:
        """Wait until every task is final, end all processes, and return what is wrong."""
        self._all_final(seconds)
        self._end_sampling()
        left = [process for process in self._processes if process.running]
        for process in left:
            process.send(signal.SIGTERM)
        for process in left:
            assert process.wait() == 0, process.output[-2000:]
        self._stop_watching()
        return check(self.history.events, self.tables.tasks())

    def close(self) -> None:
        """See to it that nothing of this run is left."""
        self._end_sampling()
        for process in self._processes:
            process.kill()
        self._stop_watching()

    def _all_final(self, seconds: float) -> None:
        wanted = {ask.request_id for ask in self.asked}
        assert wanted == set(self.history.accepted)
        with suppress(AssertionError):  # the checker says what is missing
            until(lambda: wanted <= self._final_ids(), seconds)

    def _end_sampling(self) -> None:
        self._finished.set()
        if self._sampler is not None:
            self._sampler.join()

    def _stop_watching(self) -> None:
        while self._effects:
            self._effects.pop().stop()

    def _final_ids(self) -> set[str]:
        with suppress(*_AWAY):
            return self.tables.final_ids()
        return set()

    def _sample(self) -> None:
        over: set[str] = set()
        while True:
            with suppress(*_AWAY):
                running = self.tables.leases()
                if running:
                    self.history.add(Sampled(at=time.monotonic(), running=running))
                for request_id in self.tables.final_ids() - over:
                    over.add(request_id)
                    self.history.add(Ended(at=time.monotonic(), request_id=request_id))
            if self._finished.wait(_SAMPLE_SECONDS):
                return


class Stream:
    """Clients that send creates side by side, each to any replica, until it is answered."""

    def __init__(self, stage: Stage, controls: list[ControlPlane], asks: list[Ask]) -> None:
        self._stage = stage
        self._controls = itertools.cycle(controls)
        self._open: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self._end = time.monotonic() + 60
        for ask in asks:
            self._open.put(ask)
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Wait until all have been answered."""
        for thread in self._threads:
            thread.join(70)
            assert not thread.is_alive()

    def _send(self) -> None:
        while True:
            try:
                ask = self._open.get_nowait()
            except queue.Empty:
                return
            while not self._stage.ask(next(self._controls), ask):
                assert time.monotonic() < self._end, f"{ask.request_id} was never answered"
                time.sleep(0.05)  # a client waits a little before it asks again
