"""What is measured: a control plane and an agent as real processes, started and ended here."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import cores
from benchmarks.load import Door
from benchmarks.stores import Store, View
from kit.processes import Agent, ControlPlane, Process

NODES = 64  #: rows of ``nodes``, all of them addresses of the one agent
#: One agent stands for all nodes here, and takes 256 requests at once: no more may be under way.
MAX_IN_FLIGHT = 192
READY = "Agent server running"
_START_SECONDS = 20.0
_LISTENING = "0A"  #: a socket's state in the kernel's list


@dataclass
class Stage:
    """A running control plane, its agent, and a look into its database."""

    control: ControlPlane
    agent: Agent
    door: Door
    view: View
    agent_start_seconds: float
    _peers: set[tuple[str, str]] = field(default_factory=set)

    def connections_made(self) -> int:
        """Return how many connections the agent has had since last asked.

        The kernel lists each by its far end, closed ones for another 60 s.
        """
        port = f":{self.agent.port:04X}"
        seen = set()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            near, far, state = line.split()[1:4]
            if near.endswith(port) and state != _LISTENING:
                seen.add((near, far))
            elif far.endswith(port):  # the same connection, as its other end sees it
                seen.add((far, near))
        new = seen - self._peers
        self._peers |= seen
        return len(new)


@contextmanager
def on(store: Store, folder: Path) -> Iterator[Stage]:
    """Start a control plane on this store, an agent, and register its nodes."""
    with ExitStack() as stack:
        with cores.starting_on(cores.OTHERS):
            agent = Agent(folder / "agent", host="0.0.0.0")
            stack.callback(end, agent)
            start_seconds = start_agent(agent)
        settings = {**store.env, "EDGEPLANE_MAX_IN_FLIGHT": str(MAX_IN_FLIGHT)}
        control = ControlPlane(folder / "control", settings)
        stack.callback(end, control)
        with cores.starting_on(cores.CONTROL):
            control.up()
        node_ids = [
            control.add_node(agent.port, f"node-{number}", f"127.0.0.{number}")
            for number in range(1, NODES + 1)
        ]
        view = store.view()
        stack.callback(view.close)
        door = Door(control.port, control.token, node_ids)
        yield Stage(control, agent, door, view, start_seconds)


def start_agent(agent: Agent) -> float:
    """Start an agent; return the seconds from exec to the line that says it listens."""
    started = time.perf_counter()
    lines = agent.output.count(READY)
    agent.start()
    while agent.output.count(READY) == lines:
        if not agent.running or time.perf_counter() - started > _START_SECONDS:
            raise RuntimeError(f"the agent did not start: {agent.output[-2000:]}")
        time.sleep(0.001)
    return time.perf_counter() - started


def cpu_seconds(process: Process) -> float:
    """Return how much CPU time a process has had."""
    after_name = _stat(process.pid)
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def family_cpu_seconds(process: Process) -> float:
    """Return how much CPU time a process and all that came of it have had, living or dead."""
    stats = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            stats[int(place.name)] = _stat(int(place.name))
    family = {process.pid}
    while more := {pid for pid, stat in stats.items() if int(stat[1]) in family} - family:
        family |= more
    ticks = sum(sum(map(int, stats[pid][11:15])) for pid in family if pid in stats)
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the words of a process's line after its name, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def rss_mib(process: Process) -> float:
    """Return how much memory of a process is resident, in MiB."""
    return rss_mib_of(process.pid)


def rss_mib_of(pid: int) -> float:
    """Return how much memory of the process with this id is resident, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in its status")


def end(process: Process) -> None:
    """End a process that may not have started: politely, then not."""
    if process.running:
        try:
            process.stop(10)
        finally:
            process.kill()
