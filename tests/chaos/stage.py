"""One run: real processes, a stream of creates, and everything written down for the checker."""

import http.client
import itertools
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.sampler import Sampler
from kit.checks import check_all
from kit.effects import Effects
from kit.history import History
from kit.processes import Agent, ConnectingAgent, ControlPlane, Process
from kit.relay import Relay
from kit.swarm import Swarm, SwarmEffects
from kit.tables import Away, Tables, TaskRow
from kit.waiting import until

PATIENCE = 40.0  #: for what a repair may take; whether it was too slow, the checker says
_PAYLOADS: dict[str, dict[str, Any]] = {
    "apply_config": {"vhost": "example.com", "upstream": ["192.168.1.1:80"]},
    "reload": {},
    "purge_cache": {"urls": ["/static/*"]},
}


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
        self._names: dict[Process, str] = {}
        self._effects: list[Effects | SwarmEffects] = []
        self._relays: list[Relay] = []
        self._streams: list[Stream] = []
        self._sampler = Sampler(tables, self.history)
        self._numbers = itertools.count()
        self._node_numbers = itertools.count()

    def agent(self, name: str = "agent", *, host: str = "127.0.0.1", **env: str) -> Agent:
        """Begin to start an agent, and watch its folder from before its first line.

        ``nodes`` waits for it; meanwhile something else may start beside it.
        """
        agent = Agent(self.folder / name, host=host)
        self._names[agent] = name
        self._effects.append(Effects(agent.work, self.history))
        agent.start(**env)
        return agent

    def swarm(self, agents: int, *options: str) -> Swarm:
        """Begin to start a swarm; ``place`` waits for it."""
        swarm = Swarm(self.folder / "swarm", agents, options)
        self._names[swarm] = "swarm"
        swarm.effects.touch()
        self._effects.append(SwarmEffects(swarm.effects, self.history))
        swarm.start()
        return swarm

    def place(self, swarm: Swarm, control: ControlPlane) -> list[int]:
        """Register a node for each agent of a swarm."""
        swarm.wait_until_up()
        placed = swarm.register(control)
        for address, node_id in placed.items():
            self.history.place(node_id, address, Path(address))
        return list(placed.values())

    def control(self, name: str = "control", settings: Any = None, **env: str) -> ControlPlane:
        """Start a control plane; ``env`` is for this start only."""
        return self.enlist(name, ControlPlane(self.folder / name, settings), **env)

    def enlist(self, name: str, control: ControlPlane, **env: str) -> ControlPlane:
        """Start a control plane that somebody has made."""
        self._names[control] = name
        control.up(**env)
        self._sampler.start()
        return control

    def relay(self, agent: Agent) -> Relay:
        """Make a second way to an agent."""
        self._relays.append(Relay(agent.port))
        return self._relays[-1]

    def nodes(
        self, control: ControlPlane, agents: Iterable[Agent], count: int = 2, port: int = 0
    ) -> list[int]:
        """Register several nodes for each agent: two rows may well mean one machine."""
        made = []
        for agent in agents:
            agent.wait_until_up()
            for _ in range(count):
                name = f"n{next(self._node_numbers)}"
                made.append(control.add_node(port or agent.port, name, agent.host))
                self.history.place(made[-1], self._names[agent], agent.work)
        return made

    def connecting(
        self, control: ControlPlane, name: str, urls: list[str], **env: str
    ) -> tuple[ConnectingAgent, int]:
        """Register a node, and begin to start its agent, which connects out to these URLs."""
        agent = ConnectingAgent(self.folder / name, name, urls)
        self._names[agent] = name
        self._effects.append(Effects(agent.work, self.history))
        node_id = control.add_node(name=name, transport="sync")
        self.history.place(node_id, name, agent.work)
        agent.start(**env)
        return agent, node_id

    @property
    def connects_out(self) -> bool:
        """Whether it has agents that connect out."""
        return any(isinstance(each, ConnectingAgent) for each in self._names)

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
            self.history.accept(ask.request_id, answer["data"]["id"], ask.node_id)
            return True
        assert answer["status"] in {429, 500, 503}, answer
        return False

    def ask_all(self, control: ControlPlane) -> None:
        """Send every create that has not been answered yet; all must be answered now."""
        known = self.history.accepted
        for ask in self.asked:
            if ask.request_id not in known:
                assert self.ask(control, ask), control.output[-2000:]

    def endless(self, nodes: list[int]) -> Iterator[Ask]:
        """Make up creates for these nodes for as long as they are taken."""
        while True:
            yield from self.asks(nodes, 1)

    def stream(self, controls: list[ControlPlane], asks: Iterable[Ask]) -> "Stream":
        """Begin to send creates from several threads, each until it is answered."""
        self._streams.append(Stream(self, controls, asks))
        return self._streams[-1]

    def accepted(self, count: int) -> None:
        """Wait until so many creates have been answered."""
        until(lambda: len(self.history.accepted) >= count, 60, f"{count} creates answered")

    def kill(self, process: Process) -> None:
        """End it with SIGKILL."""
        process.kill()
        assert process.wait() == -signal.SIGKILL
        self.history.kill(self._names[process])

    def died(self, process: Process) -> None:
        """Wait until a process has died of SIGKILL by itself."""
        assert process.wait() == -signal.SIGKILL, process.output[-2000:]
        self.history.kill(self._names[process])

    def freeze(self, process: Process) -> None:
        """Stop it in its tracks; another stands in. Its waking up excuses nothing: tell of none."""
        process.send(signal.SIGSTOP)
        self.disturbed(process)

    def disturbed(self, process: Process) -> None:
        """Note that a process can do nothing just now, and another stands in."""
        self.history.disturb(self._names[process])

    def restart(self, process: Agent | ControlPlane) -> None:
        """Start it as it was, with nothing special in its environment."""
        process.up()
        self.history.restart(self._names[process])

    def row(self, request_id: str) -> TaskRow | None:
        """Return a task's row, if it is stored."""
        return next((row for row in self.tables.tasks() if row.request_id == request_id), None)

    def verdict(self, seconds: float = PATIENCE) -> list[str]:
        """Wait until every task is final, and return what is wrong so far."""
        self._all_final(seconds)
        self._sampler.check()
        for effects in self._effects:
            effects.flush()
        return self._judge()

    def finish(self, seconds: float = PATIENCE) -> list[str]:
        """Wait until every task is final, end all processes, and return what is wrong."""
        self._all_final(seconds)
        self._sampler.check()
        self._sampler.stop()
        left = [process for process in self._names if process.running]
        for process in left:
            process.send(signal.SIGTERM)
        for process in left:
            assert process.wait() == 0, process.output[-2000:]
        self._stop_watching()
        return self._judge()

    def close(self) -> None:
        """See to it that nothing of this run is left."""
        for stream in self._streams:
            stream.give_up()
        for process in self._names:
            process.kill()
        for stream in self._streams:
            stream.join()
        self._sampler.stop()
        for relay in self._relays:
            relay.close()
        self._stop_watching()

    def _judge(self) -> list[str]:
        return check_all(self.history.events, self.tables.tasks(), self.tables.record())

    def _all_final(self, seconds: float) -> None:
        wanted = {ask.request_id for ask in self.asked}
        assert wanted == set(self.history.accepted)
        with suppress(AssertionError):  # the checker says what is missing
            until(lambda: wanted <= self._final_ids(), seconds)

    def _stop_watching(self) -> None:
        while self._effects:
            self._effects.pop().stop()

    def _final_ids(self) -> set[str]:
        with suppress(Away):
            return self.tables.final_ids()
        return set()


class Stream:
    """Clients that send creates side by side, each to any replica, until it is answered."""

    def __init__(self, stage: Stage, controls: list[ControlPlane], asks: Iterable[Ask]) -> None:
        self._stage = stage
        self._controls = itertools.cycle(controls)
        self._asks = iter(asks)
        self._taking = threading.Lock()
        self._stopped = self._hopeless = False
        self._given_up: list[Exception] = []
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more; what has been sent is still sent until it is answered, or given up."""
        self._stopped = True

    def give_up(self) -> None:
        """Take no more, and send nothing again."""
        self._stopped = self._hopeless = True

    def wait(self) -> None:
        """Wait until all have been answered."""
        self.join()
        assert not self._given_up, self._given_up

    def join(self) -> None:
        """Wait until all have been answered or given up."""
        for thread in self._threads:
            thread.join(70)
            assert not thread.is_alive()

    def _send(self) -> None:
        try:
            while (ask := self._next()) is not None:
                end = time.monotonic() + 60
                while not self._stage.ask(next(self._controls), ask):
                    never = self._hopeless or time.monotonic() > end
                    assert not never, f"{ask.request_id} was never answered"
                    time.sleep(0.05)  # a client waits a little before it asks again
        except Exception as error:  # noqa: BLE001 (``wait`` tells of it)
            self._given_up.append(error)

    def _next(self) -> Ask | None:
        with self._taking:
            return None if self._stopped else next(self._asks, None)
