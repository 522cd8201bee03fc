"""Child processes: they are kept up, stopped with grace, and never outlive their parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from edgeplane.cli import leash, processes
from edgeplane.cli.processes import Child, Program, describe_end, stop_all
from kit.waiting import until
from unit.cli.real_processes import alive

_SLEEPER = "import time; print('ready', flush=True); time.sleep(60)"
_STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + _SLEEPER


@pytest.fixture
def child(tmp_path):
    """Return a function that makes a child running a line of Python, stopped at the end."""
    made = []

    def make(code):
        program = Program(
            name="child", arguments=[sys.executable, "-c", code], env=os.environ, folder=tmp_path
        )
        made.append(Child(program))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.ask_to_stop()
        each.wait_stopped(time.monotonic())


def test_a_childs_lines_are_passed_on_under_its_name(child, capfd):
    """What a child says appears on standard error with its name, and no control characters."""
    quick = child("print('one\\x1b[2J'); import sys; print('two', file=sys.stderr)")
    assert quick.wait_stopped(time.monotonic() + 10)
    assert sorted(capfd.readouterr().err.splitlines()) == ["child | one\\x1b[2J", "child | two"]


def test_a_child_that_dies_is_started_again(child, capfd, monkeypatch):
    """A death is told and, after a pause that grows, made good."""
    monkeypatch.setattr(processes, "_FIRST_PAUSE", 0.01)
    kept = child(_SLEEPER)
    first = kept.pid
    os.kill(first, signal.SIGKILL)

    def again():
        kept.tend()
        return kept.pid != first and kept.ended is None

    until(again)
    assert "child ended (SIGKILL): starting it again in 0.01 s" in capfd.readouterr().err
    second = kept.pid
    os.kill(second, signal.SIGKILL)
    until(lambda: (kept.tend(), kept.pid != second)[1])
    assert "starting it again in 0.02 s" in capfd.readouterr().err


def test_children_stop_with_grace(child):
    """SIGTERM is enough for a child that heeds it."""
    heeding = child(_SLEEPER)
    stop_all([heeding])
    assert heeding.ended == -signal.SIGTERM


def test_a_child_that_does_not_heed_is_killed(child, capfd, monkeypatch):
    """When the grace is over SIGKILL follows, and that is told."""
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    stubborn = child(_STUBBORN)
    said = ""

    def ready():
        nonlocal said
        said += capfd.readouterr().err
        return "ready" in said

    until(ready)
    stop_all([stubborn])
    assert stubborn.ended == -signal.SIGKILL
    assert "did not stop in 0.2 s: killed" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")
def test_a_child_does_not_outlive_a_parent_that_is_killed(tmp_path):
    """When the parent is ended by kill -9, its child is gone at once."""
    code = f"""
import os, sys, time
from edgeplane.cli.processes import Child, Program
child = Child(Program(name="c", arguments=[sys.executable, "-c", {_STUBBORN!r}],
                      env=os.environ, folder=None))
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        pid = int(parent.stdout.readline())
        assert "ready" in parent.stderr.readline()
        assert alive(pid)
        parent.kill()
        until(lambda: not alive(pid))


def test_a_child_whose_parent_is_gone_already_does_not_begin():
    """The leash is checked after it was asked for: no gap is left in between."""
    done = subprocess.run(
        [sys.executable, str(leash.__file__), "1", sys.executable, "-c", "print('began')"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_ends_are_described():
    """An exit code or the name of a signal."""
    assert [describe_end(code) for code in (3, -9, -200)] == [
        "exit code 3",
        "SIGKILL",
        "signal 200",
    ]
