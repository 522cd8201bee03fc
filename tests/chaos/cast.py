"""The processes of a run, and what befalls them: killed, frozen, dead by themselves, back again."""

import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from chaos.ground import Servers
from chaos.schedules import Fault
from kit.claimant import claim
from kit.history import History
from kit.ports import give_back
from kit.processes import Agent, ConnectingAgent, ControlPlane
from kit.relay import Relay
from kit.swarm import Swarm
from kit.waiting import until

_LOOK_SECONDS = 0.01
_START_SECONDS = 40.0


class Actor:
    """A process with its name; whoever changes whether it runs holds ``changing``."""

    def __init__(self, name: str, process: ControlPlane | Agent | Swarm) -> None:
        self.name = name
        self.process = process
        self.armed = False  #: it kills itself at some place, if it ever comes there
        self.changing = threading.Lock()

    def begin(self, **env: str) -> None:
        """Start it and wait until it serves; one whose database is away is started again."""
        self.armed = "EDGEPLANE_CRASH_AT" in env
        if isinstance(self.process, ConnectingAgent):  # it is back: how soon it comes is its affair
            self.process.start(**env)
            return
        if not isinstance(self.process, ControlPlane):
            self.process.up(**env)
            return
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.process.up(**env)
            except AssertionError:
                if time.monotonic() > end or "database" not in self.process.output[-500:]:
                    raise
                time.sleep(0.2)
            else:
                return


class Cast:
    """All actors of a run; sees to it that who dies comes back.

    Args:
        history: is told of every death and return.
        servers: what else may be killed.
        stand_ins: whether other control planes serve while one is frozen.

    """

    def __init__(self, history: History, servers: Servers | None, *, stand_ins: bool) -> None:
        self._history = history
        self._servers = servers
        self._stand_ins = stand_ins
        self._actors: dict[str, Actor] = {}
        self._back_after: dict[str, float] = {}
        self._claims: dict[int, tuple[str, str]] = {}
        self._relays: dict[str, list[Relay]] = {}
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self.errors: list[str] = []

    def add(self, name: str, process: ControlPlane | Agent | Swarm, crash_at: Fault | None) -> None:
        """Start a process, and watch it from there on."""
        actor = Actor(name, process)
        self._actors[name] = actor
        self._back_after[name] = crash_at.seconds if crash_at else 0.0
        actor.begin(**({"EDGEPLANE_CRASH_AT": crash_at.point} if crash_at else {}))

    def claimable(self, place: int, node: str, who: str) -> None:
        """Say which name the node of a place has, and who speaks for it."""
        self._claims[place] = (node, who)

    def relayed(self, name: str, relays: list[Relay]) -> None:
        """Say over which relays an agent's process connects out."""
        self._relays[name] = relays

    def watch(self) -> None:
        """Begin to bring back who dies by itself."""
        self._run(self._watch)

    def befall(self, fault: Fault) -> None:
        """Let a fault happen now, beside whatever else does."""
        deeds: Mapping[str, Callable[[Fault], None]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "database": self._kill_database,
            "cut": self._cut,
            "claim": self._claim,
        }
        self._run(deeds[fault.how], fault)

    def wait(self) -> None:
        """Wait until all that happened is over, and everybody is back."""
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.name != "watch":
                thread.join(60)
                assert not thread.is_alive(), f"{thread.name} hangs"
        until(lambda: self.errors or self._all_run(), _START_SECONDS, "all processes run")

    def stop(self) -> None:
        """End all as an operator does."""
        self._end_watch()
        for actor in self._actors.values():
            if isinstance(actor.process, ConnectingAgent):
                actor.process.wait_until_up()  # before, a SIGTERM would end it with no more ado
        for actor in self._actors.values():
            actor.process.send(signal.SIGTERM)
        for actor in self._actors.values():
            status = actor.process.wait(30)
            if status != 0 and not (actor.armed and status == -signal.SIGKILL):
                self.errors.append(f"{actor.name}: ended with {status}, not with 0")

    def close(self) -> None:
        """Leave nothing running, however it went."""
        self._end_watch()
        for actor in self._actors.values():
            actor.process.kill()
            give_back(actor.process.port)
            if isinstance(actor.process, ControlPlane):
                give_back(actor.process.sync_port)
        for relays in self._relays.values():
            for relay in relays:
                relay.close()
                give_back(relay.port)

    def outputs(self) -> dict[str, str]:
        """Return what each has printed."""
        return {name: actor.process.output for name, actor in self._actors.items()}

    def _run(self, deed: Callable[..., None], *given: Fault) -> None:
        def run() -> None:
            try:
                deed(*given)
            except Exception as error:  # noqa: BLE001 (it is told with the verdict)
                self.errors.append(f"{name}: {error!r}")

        name = f"{given[0].how} {given[0].who}" if given else "watch"
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            for actor in self._actors.values():
                if actor.process.running or not actor.changing.acquire(blocking=False):
                    continue
                try:
                    self._see_to(actor)
                finally:
                    actor.changing.release()

    def _see_to(self, actor: Actor) -> None:
        """Bring it back, if it is still dead now that nobody else sees to it."""
        if actor.process.running or self._closing.is_set():
            return
        status = actor.process.wait(1)
        assert status == -signal.SIGKILL, f"{actor.name} ended by itself with {status}"
        self._history.kill(actor.name)
        time.sleep(self._back_after[actor.name])
        self._begin_again(actor)

    def _begin_again(self, actor: Actor) -> None:
        actor.begin()
        self._history.restart(actor.name)

    def _kill(self, fault: Fault) -> None:
        actor = self._actors[fault.who]
        with actor.changing:
            if not actor.process.running:
                return  # it died at its own place just now: whoever watches has seen it
            actor.process.kill()
            self._history.kill(actor.name)
            time.sleep(fault.seconds)
            self._begin_again(actor)

    def _freeze(self, fault: Fault) -> None:
        actor = self._actors[fault.who]
        with actor.changing:
            if not actor.process.running:
                return
            actor.process.send(signal.SIGSTOP)
            others = self._stand_ins and isinstance(actor.process, ControlPlane)
            (self._history.disturb if others else self._history.kill)(actor.name)
            try:
                time.sleep(fault.seconds)
            finally:
                actor.process.send(signal.SIGCONT)
            if not others:
                self._history.restart(actor.name)

    def _kill_database(self, fault: Fault) -> None:
        assert self._servers is not None
        self._servers.mariadb.kill()
        self._history.kill("mariadbd")
        time.sleep(fault.seconds)
        self._servers.mariadb.start()
        self._history.restart("mariadbd")

    def _cut(self, fault: Fault) -> None:
        """End the connections of an agent; that excuses nothing: it comes back by itself."""
        for relay in self._relays[fault.who]:
            relay.cut()

    def _claim(self, fault: Fault) -> None:
        """Let another speak for a node. Its own agent is kept out, and not there so long."""
        node, who = self._claims[fault.node]
        controls = [a.process for a in self._actors.values() if isinstance(a.process, ControlPlane)]
        self._history.kill(who)
        claim([control.sync_port for control in controls], node, fault.seconds)
        self._history.restart(who)

    def _all_run(self) -> bool:
        return all(
            actor.process.running and not actor.changing.locked() for actor in self._actors.values()
        )

    def _end_watch(self) -> None:
        self._closing.set()
        for thread in self._threads:
            with suppress(RuntimeError):
                thread.join(60)
