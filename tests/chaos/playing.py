"""Plays a schedule: real processes, real kills, and the checker's verdict at the end.

Why real processes, 300 times: an interpreter takes a second of CPU to import what a control plane
needs, and 40 ms to start one once that is done. So one process imports everything and forks
(``kit.forks``); the fork runs the program's own ``main``, listens on a real port, and is ended by a
real SIGKILL, at a named place or at any moment. A crash simulated inside one event loop would be
cheaper still, and a lie: ``finally`` blocks run, threads go on, and a file that was not synced is
there all the same.
"""

import time
from contextlib import ExitStack, suppress
from pathlib import Path

from chaos.cast import Cast
from chaos.clients import Clients
from chaos.ground import Ground, Place
from chaos.sampler import Sampler
from chaos.schedules import Act, Fault, Schedule, in_time
from edgeplane.swarm.addresses import address_of, name_of
from kit.checker import REPAIR_SECONDS
from kit.checks import check_all
from kit.effects import Effects
from kit.history import History
from kit.processes import Agent, ConnectingAgent, ControlPlane
from kit.relay import Relay
from kit.swarm import Swarm, SwarmEffects
from kit.tables import Away
from kit.waiting import until

#: What a repair may take with agents that connect out: with several faults in a row their waits
#: add up (the end of a hold, the way back, a refusal's ten seconds). One fault alone stays in 15 s.
SYNC_SECONDS = 25.0
SETTLE_SECONDS = 60.0  #: for all to end; whether a task took too long, the checker says
_LOOKS_SECONDS = 60.0  #: for the looks a run takes at least, on a machine that has much to do
_LOOK_SECONDS = {"sqlite": 0.05, "mariadb": 0.2}


def play(schedule: Schedule, ground: Ground, folder: Path) -> list[str]:
    """Run a schedule in a folder of its own; return what is wrong, a line each.

    What the processes printed and what was told to the history is left in the folder.
    """
    folder.mkdir(parents=True)
    (folder / "schedule.txt").write_text(f"{schedule}\n")
    with ExitStack() as stack:
        if schedule.controls == 1:
            place = ground.on_sqlite(folder / schedule.control_names[0])
        else:
            place = stack.enter_context(ground.on_mariadb(redis=schedule.redis))
        run = _Run(schedule, ground, folder, place)
        stack.callback(run.close)
        try:
            return run.run()
        except Exception as error:  # noqa: BLE001 (what breaks a run is a finding too)
            return [*run.cast.errors, f"the run broke: {error!r}"]


class _Run:
    """One run of a schedule."""

    def __init__(self, schedule: Schedule, ground: Ground, folder: Path, place: Place) -> None:
        self._schedule = schedule
        self._ground = ground
        self._folder = folder
        self._place = place
        self._history = History(folder / "history.jsonl")
        pause = _LOOK_SECONDS["sqlite" if place.servers is None else "mariadb"]
        self._sampler = Sampler(place.tables, self._history, pause)
        self._effects: list[Effects | SwarmEffects] = []
        self._works: list[Path] = []  #: the folder of each real agent
        self._clients: Clients | None = None
        self.cast = Cast(self._history, place.servers, stand_ins=schedule.controls > 1)

    def run(self) -> list[str]:
        """Play it to the end."""
        if self._schedule.redis and self._place.servers is not None:
            self._place.settings["REDIS_ADDR"] = self._place.servers.redis.address
        controls = self._make_controls()
        fleet = self._make_fleet(controls)
        self._start(fleet, out=False)
        for name, control in controls.items():
            self.cast.add(name, control, self._crash_of(name))
        nodes = self._register(next(iter(controls.values())), fleet)
        self._start(fleet, out=True)  # behind their nodes: a stranger is told to come much later
        self._clients = Clients(self._history, list(controls.values()), nodes, self._obstruct)
        self._sampler.start()
        self.cast.watch()
        self._do_all(self._clients)
        self._clients.wait()
        self.cast.wait()
        self._clients.resume_all()
        return self._verdict()

    def close(self) -> None:
        """See to it that nothing of it is left running."""
        if self._clients is not None:
            self._clients.give_up()
        self._sampler.stop()
        self.cast.close()
        for name, output in self.cast.outputs().items():
            (self._folder / f"{name}.log").write_text(output)
        self._stop_watching()

    def _make_controls(self) -> dict[str, ControlPlane]:
        controls = {}
        for name in self._schedule.control_names:
            control = ControlPlane(self._folder / name, self._place.settings)
            control.how = self._ground.forks.start
            control.token = self._place.token
            controls[name] = control
        return controls

    def _make_fleet(self, controls: dict[str, ControlPlane]) -> dict[str, Agent | Swarm]:
        schedule = self._schedule
        fleet: dict[str, Agent | Swarm] = {}
        for number, name in enumerate(schedule.agent_names):
            urls = self._urls(number, controls) if schedule.out(number) else []
            fleet[name] = self._make_agent(name, number, urls)
            fleet[name].how = self._ground.forks.start
        return fleet

    def _make_agent(self, name: str, number: int, urls: list[str]) -> Agent | Swarm:
        schedule, folder = self._schedule, self._folder / name
        if schedule.swarm is not None:
            swarm = Swarm(folder, schedule.agents, schedule.swarm, ",".join(urls) or None)
            swarm.effects.touch()
            self._effects.append(SwarmEffects(swarm.effects, self._history))
            return swarm
        agent = ConnectingAgent(folder, f"n{number}", urls) if urls else Agent(folder)
        self._works.append(agent.work)
        self._effects.append(Effects(agent.work, self._history))
        return agent

    def _urls(self, number: int, controls: dict[str, ControlPlane]) -> list[str]:
        """Return where an agent connects out to: not all to the same one first."""
        ports = [control.sync_port for control in controls.values()]
        name = self._schedule.agent_names[number]
        if any(fault.how == "cut" and fault.who == name for fault in self._schedule.faults):
            relays = [Relay(port) for port in ports]
            self.cast.relayed(name, relays)
            ports = [relay.port for relay in relays]
        first = (self._schedule.seed + number) % len(ports)
        return [f"http://127.0.0.1:{port}" for port in (*ports[first:], *ports[:first])]

    def _start(self, fleet: dict[str, Agent | Swarm], *, out: bool) -> None:
        for number, (name, agent) in enumerate(fleet.items()):
            if self._schedule.out(number) is out:
                self.cast.add(name, agent, self._crash_of(name))

    def _crash_of(self, who: str) -> Fault | None:
        faults = self._schedule.faults
        return next((f for f in faults if f.how == "crash_at" and f.who == who), None)

    def _register(self, control: ControlPlane, fleet: dict[str, Agent | Swarm]) -> list[int]:
        """Make the nodes: of each agent in turn; of a swarm one each."""
        made = []
        faulty = any(act.fails for act in self._schedule.acts)
        agents = list(fleet.values())
        for place, home in enumerate(self._schedule.homes):
            transport = "sync" if self._schedule.out(home) else "push"
            swarm = agents[0]
            if isinstance(swarm, Swarm):
                name, who = name_of(place + 1), address_of(place + 1)
                made.append(control.add_node(swarm.port, name, who, transport))
                self._history.place(made[-1], who, Path(who), faulty=True)
            else:
                name, who = f"n{place}", self._schedule.agent_names[home]
                made.append(control.add_node(agents[home].port, name, transport=transport))
                self._history.place(made[-1], who, self._works[home], faulty=faulty)
            self.cast.claimable(place, name, who)
        return made

    def _obstruct(self, act: Act, there: bool) -> None:
        """Put a folder where a task's file is to be, at its agent; or take it away."""
        if not self._works:
            return
        work = self._works[self._schedule.homes[act.nodes[0]]]
        end = "txt" if act.kind == "reload" else "json"
        obstacle = work / f"cmdb_{act.kind}_r{act.number}.{end}"
        if there:
            with suppress(FileExistsError):  # the task was there before
                obstacle.mkdir()
        else:
            with suppress(OSError):  # the file has come meanwhile
                obstacle.rmdir()

    def _do_all(self, clients: Clients) -> None:
        happening = [fault for fault in self._schedule.faults if fault.how != "crash_at"]
        begun = time.monotonic()
        for each in in_time(self._schedule.acts, happening):
            time.sleep(max(0.0, begun + each.at - time.monotonic()))
            if isinstance(each, Fault):
                self.cast.befall(each)
            else:
                clients.act(each)

    def _verdict(self) -> list[str]:
        with suppress(AssertionError):  # the checker says what is missing
            until(self._settled, SETTLE_SECONDS)
        self._sampler.check(_LOOKS_SECONDS)
        self._sampler.stop()
        self.cast.stop()
        self._stop_watching()
        tasks, record = self._place.tables.tasks(), self._place.tables.record()
        repair = SYNC_SECONDS if any(self._schedule.syncs) else REPAIR_SECONDS
        found = [*self.cast.errors, *check_all(self._history.events, tasks, record, repair)]
        if found:  # MariaDB's tables are gone soon
            rows = (*tasks, *record.operations, *record.attempts, *record.moves)
            (self._folder / "tables.txt").write_text("".join(f"{row}\n" for row in rows))
        return found

    def _settled(self) -> bool:
        if self.cast.errors:
            return True
        with suppress(Away):
            return self._place.tables.unended() == 0
        return False

    def _stop_watching(self) -> None:
        while self._effects:
            self._effects.pop().stop()
