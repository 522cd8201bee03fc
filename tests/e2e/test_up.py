"""``edgeplane up`` as a person uses it: one command, a second terminal, an end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kit.ports import free_port
from kit.processes import Process
from kit.waiting import until

EDGEPLANE = [sys.executable, "-m", "edgeplane"]


class Up(Process):
    """``edgeplane up`` on two ports given by number."""

    def __init__(self, folder):
        self.state = folder / "state"
        self.port, self.agent_port = free_port(), free_port()
        addresses = [
            *("--listen", f"127.0.0.1:{self.port}"),
            *("--agent-listen", f"127.0.0.1:{self.agent_port}"),
        ]
        command = [*EDGEPLANE, "up", "--state-dir", str(self.state), *addresses]
        super().__init__(command, {"PYTHONUNBUFFERED": "1"}, folder)

    def edgeplane(self, *arguments, **env):
        """Run a command in another terminal, with the session ``up`` has saved."""
        return subprocess.run(
            [*EDGEPLANE, *arguments],
            env={**os.environ, "EDGEPLANE_CONFIG_DIR": str(self.state), **env},
            cwd=self.state.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def daemons(self):
        """The process ids of the two it has started."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]


@pytest.fixture
def up(tmp_path):
    """Start it, and wait until it says that it runs."""
    up = Up(tmp_path)
    up.start()
    up.wait_for("Ctrl-C stops it.", 60)
    yield up
    up.kill()


def _gone(pids):
    """Whether none of these processes is left (one that nobody has reaped is dead, too)."""

    def alive(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    return not any(alive(pid) for pid in pids)


def test_one_command_and_a_first_task(up):
    """It tells address, user and where the secrets lie; tasks run; SIGTERM ends everything."""
    for fact in (f"http://127.0.0.1:{up.port}/", f"http://127.0.0.1:{up.agent_port}/", "admin"):
        assert fact in up.output
    assert str(up.state / "admin_password") in up.output
    assert (up.state / "admin_password").read_text().strip() not in up.output

    asked = ("task", "create", "--node", "local", "--type", "reload")
    done = up.edgeplane(*asked, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)
    assert (task["status"], task["attempts"]) == ("success", 1)
    assert (up.state / "agent" / "work" / f"cmdb_reload_{task['requestId']}.txt").exists()

    (up.state / "agent" / "work" / "cmdb_reload_blocked.txt").mkdir()
    failed = up.edgeplane(*asked, "--request-id", "blocked", "--wait", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["lastError"].startswith("failed to write file")
    codes = {
        "nobody": up.edgeplane("task", "create", "--node", "nobody", "--type", "reload"),
        "misspelt": up.edgeplane("task", "create", "--node", "local", "--type", "relaod"),
        "a stranger": up.edgeplane(
            "node", "list", "--url", f"http://127.0.0.1:{up.port}", EDGEPLANE_CONFIG_DIR="/nowhere"
        ),
        "a known id": up.edgeplane(
            *asked, "--request-id", task["requestId"], "--payload", '{"other": 1}'
        ),
        "nobody there": up.edgeplane(
            "node", "list", "--url", f"http://127.0.0.1:{free_port()}", EDGEPLANE_TOKEN="none"
        ),
    }
    wanted = {"nobody": 4, "misspelt": 2, "a stranger": 3, "a known id": 5, "nobody there": 7}
    assert {name: done.returncode for name, done in codes.items()} == wanted
    assert not any("Traceback" in done.stderr for done in codes.values())

    daemons = up.daemons
    assert len(daemons) == 2
    assert up.stop(40) == 0
    assert _gone(daemons)


def test_killed_outright_it_leaves_no_child(up):
    """A SIGKILL of ``up`` takes both daemons with it."""
    daemons = up.daemons
    assert len(daemons) == 2
    up.send(signal.SIGKILL)
    assert up.wait() == -signal.SIGKILL
    until(lambda: _gone(daemons), 10, f"{daemons} are gone")
