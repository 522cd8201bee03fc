"""The examples in Python do what their README says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.processes import ADMIN_PASSWORD, Agent, ControlPlane

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def control(tmp_path):
    """Start a control plane on SQLite."""
    control = ControlPlane(tmp_path / "control").up()
    yield control
    control.kill()


@pytest.fixture
def agent(tmp_path):
    """Start an agent."""
    agent = Agent(tmp_path / "agent").up()
    yield agent
    agent.kill()


def _first_task(**env):
    return subprocess.run(
        [sys.executable, EXAMPLES / "02-python-client" / "first_task.py"],
        env={**os.environ, "EDGEPLANE_USERNAME": "admin", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_python_client(control, agent):
    """It ends with a task that succeeded, and the second asking finds the same one."""
    settings = {
        "EDGEPLANE_URL": f"http://127.0.0.1:{control.port}",
        "EDGEPLANE_PASSWORD": ADMIN_PASSWORD,
        "AGENT_PORT": str(agent.port),
    }
    done = _first_task(**settings)
    assert (done.returncode, done.stderr) == (0, "")
    (file,) = agent.work.iterdir()
    lines = done.stdout.splitlines()
    assert lines[:2] == ["logged in as admin", f"node 1: 127.0.0.1, port {agent.port}"]
    assert lines[-3:] == [
        "task 1: success, attempts 1",
        f"Config applied and saved to {file}",
        "asked again: task 1, attempts 1",
    ]
    assert _first_task(**settings).stdout.splitlines()[-1] == "asked again: task 2, attempts 1"

    refused = _first_task(**{**settings, "EDGEPLANE_PASSWORD": "not-the-password"})
    assert refused.returncode == 1
    assert refused.stderr.startswith("first_task: ")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"EDGEPLANE_PASSWORD": ""}, "EDGEPLANE_PASSWORD is not set"),
        ({"EDGEPLANE_PASSWORD": "x", "EDGEPLANE_URL": "nowhere"}, "the address must look like"),
        ({"EDGEPLANE_PASSWORD": "x", "EDGEPLANE_URL": "http://127.0.0.1:1"}, "cannot reach"),
    ],
)
def test_what_the_python_client_lacks_is_one_line(env, words):
    """No traceback for who has just begun."""
    done = _first_task(**env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("first_task: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_wrong_python_is_told():
    """One without edgeplane says which to take."""
    script = EXAMPLES / "02-python-client" / "first_task.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("run it with .venv/bin/python\n")
    assert done.stderr.count("\n") == 1


def test_the_purge_of_a_fleet(control, agent, tmp_path):
    """Three of four nodes are purged, once, and the second asking finds the same operation."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        [EXAMPLES / "03-purge-a-fleet" / "purge_fleet.sh"],
        env={
            **os.environ,
            "PATH": path,
            "HOME": str(tmp_path),
            "EDGEPLANE_URL": f"http://127.0.0.1:{control.port}",
            "EDGEPLANE_USERNAME": "admin",
            "EDGEPLANE_PASSWORD": ADMIN_PASSWORD,
            "AGENT_PORT": str(agent.port),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "operation 1 done [##############################] 100% 3 of 3 succeeded" in run.stderr
    listed = run.stdout.split("the same operation\n")[1].splitlines()
    assert [line.split()[:6] for line in listed[1:]] == [
        ["1", "purge_cache", "done", "3", "3", "0"],
    ]
    assert len(list(agent.work.iterdir())) == 3


def test_every_example_is_listed_and_run():
    """A new folder needs its line in the README and a test here or beside it."""
    folders = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    assert folders == ["01-seed-walkthrough", "02-python-client", "03-purge-a-fleet"]
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"{name}/README.md" in listed for name in folders)
