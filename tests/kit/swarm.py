"""A swarm of simulated agents as a process, and what it says it did as events of the history."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeplane.swarm.addresses import address_of, name_of
from kit.history import Effect, Event, History, Killed, Restarted
from kit.ports import free_port
from kit.processes import AGENT_TOKEN, ControlPlane, Process

PROGRAM = str(Path(sys.executable).with_name("edgeplane-swarm"))


class Swarm(Process):
    """``edgeplane-swarm`` on a free port, with its journal and its effects in a folder.

    With ``control``, the URL of a sync listener, its agents connect out instead.
    """

    def __init__(
        self, folder: Path, agents: int, options: Sequence[str] = (), control: str | None = None
    ) -> None:
        self.agents = agents
        self.control = control
        self.port = free_port()
        self.effects = folder / "effects.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        files = ["--journal", str(folder / "journal.db"), "--effects", str(self.effects)]
        place = ["--control", control] if control else ["--port", str(self.port)]
        command = [PROGRAM, str(agents), *place, *files, *options]
        super().__init__(command, {"AGENT_TOKEN": AGENT_TOKEN}, folder)

    def up(self) -> "Swarm":
        """Start it and wait until it listens."""
        self.start()
        self.wait_until_up()
        return self

    def wait_until_up(self) -> None:
        """Wait until it listens, having been started."""
        self.wait_for(f"Swarm of {self.agents} agents running")

    def register(self, control: ControlPlane) -> dict[str, int]:
        """Create its nodes; return the node of each address."""
        url = f"http://127.0.0.1:{control.port}"
        command = [PROGRAM, "register", str(self.agents), "--url", url]
        command += ["--transport", "sync"] if self.control else ["--port", str(self.port)]
        subprocess.run(
            command, env={"EDGEPLANE_TOKEN": control.token}, check=True, stdout=subprocess.DEVNULL
        )
        ids = _ids(control, self.agents)
        return {address_of(n): ids[name_of(n)] for n in range(1, self.agents + 1)}

    def summary(self) -> dict[str, Any]:
        """Return what it printed when it ended."""
        self._read_to_the_end()
        return dict(json.loads(self.output.splitlines()[-1]))


class SwarmEffects:
    """Reads a swarm's file of effects; an agent's folder is its address."""

    def __init__(self, file: Path, history: History) -> None:
        self._file = file
        self._history = history
        self._at = 0

    def flush(self) -> None:
        """Tell of every whole line that is there by now."""
        with self._file.open("rb") as lines:
            lines.seek(self._at)
            for line in lines:
                if line.endswith(b"\n"):
                    self._at += len(line)
                    self._history.add(event_of(json.loads(line)))

    def stop(self) -> None:
        """Tell of the rest."""
        self.flush()


def event_of(told: dict[str, Any]) -> Event:
    """Turn a line of a swarm's file into an event."""
    at, agent = told["at"], told["agent"]
    if told["event"] == "effect":
        name = told["requestId"]
        return Effect(
            at=at,
            request_id=name,
            file=f"{agent}/{name}",
            epoch=told["epoch"],
            taken=told["taken"],
            generation=told["generation"],
        )
    return (Killed if told["event"] == "killed" else Restarted)(at=at, who=agent)


def _ids(control: ControlPlane, most: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for page in range(1, most // 100 + 2):
        nodes = control.data("GET", f"/nodes?page={page}&pageSize=100")["list"]
        found |= {node["name"]: int(node["id"]) for node in nodes}
    return found
