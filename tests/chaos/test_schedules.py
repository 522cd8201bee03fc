"""Random schedules: three hundred fresh ones in every run of the suite, and what they are made of.

How a schedule is played, and why with real processes, stands in ``chaos.playing``.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from random import SystemRandom

import pytest

from chaos.ground import Ground
from chaos.many import Failure, play_many
from chaos.playing import play
from chaos.schedules import Fault, Schedule, draw
from edgeplane.observe.crashpoints import AGENT_POINTS, CONTROL_POINTS
from kit.forks import Forks
from kit.processes import Agent

SCHEDULES = 300


@pytest.mark.timeout(1200)
def test_three_hundred_random_schedules():
    """After each, all that was asked for has ended as it may, once, and as clients were told."""
    given = os.environ.get("CHAOS_SEED")
    first = int(given) if given else SystemRandom().randrange(10**8)
    print(f"CHAOS_SEED={first}: schedules {first} to {first + SCHEDULES - 1}")
    folder = Path(tempfile.mkdtemp(prefix="edgeplane-chaos-"))
    folder.chmod(0o755)
    results = list(play_many(iter(range(first, first + SCHEDULES)), folder))
    failures = [result for result in results if isinstance(result, Failure)]
    if not failures:
        shutil.rmtree(folder)
    assert not failures, "\n".join(map(str, failures))
    assert len(results) == SCHEDULES


def test_a_seed_is_a_schedule():
    """The same again from the same seed, another from another."""
    assert [str(draw(seed)) for seed in range(50)] == [str(draw(seed)) for seed in range(50)]
    assert len({str(draw(seed)) for seed in range(50)}) == 50


def test_schedules_have_everything_in_them():
    """Every act, every fault, every crash point, both databases, both kinds of agents."""
    drawn = [draw(seed) for seed in range(2_000)]
    acts = {act.what for one in drawn for act in one.acts}
    assert acts == {
        *("create", "anonymous", "cancel", "retry"),
        *("operate", "pause", "resume", "stop", "retry_failed"),
    }
    faults = [fault for one in drawn for fault in one.faults]
    assert {fault.how for fault in faults} == {
        *("kill", "freeze", "crash_at", "database"),
        *("cut", "claim"),
    }
    assert {fault.who.rstrip("0123456789") for fault in faults} == {
        *("control", "agent", "swarm", "mariadbd"),
    }
    points = {fault.point.partition(":")[0] for fault in faults if fault.point}
    assert points == {*CONTROL_POINTS, *AGENT_POINTS}
    several = [one for one in drawn if one.controls > 1]
    assert 0.05 < len(several) / len(drawn) < 0.12
    assert {one.redis for one in several} == {False, True}
    ways = {(one.swarm is None, one.controls > 1, frozenset(one.syncs)) for one in drawn}
    both, one_way = frozenset((False, True)), (frozenset((False,)), frozenset((True,)))
    alone = {(False, several, way) for several in (False, True) for way in one_way}
    assert ways == alone | {
        (True, several, w) for several in (False, True) for w in (*one_way, both)
    }


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Make what runs share."""
    made = Ground(tmp_path_factory.mktemp("ground"))
    yield made
    made.close()


def test_a_schedule_that_goes_wrong_is_told(ground, tmp_path):
    """With its folder kept; here one process ends as no fault let it."""
    never = Fault(0.0, "crash_at", "control0", point="no.such.point")
    bad = Schedule(
        seed=1,
        controls=1,
        redis=False,
        agents=1,
        nodes=1,
        swarm=None,
        acts=(),
        faults=(never,),
        syncs=(False,),
    )
    found = play(bad, ground, tmp_path / "bad")
    assert len(found) == 1
    assert "no crash point is named" in found[0]
    assert {file.name for file in (tmp_path / "bad").iterdir()} >= {"schedule.txt", "control0.log"}
    shown = str(Failure(1, tmp_path, tuple(found * 12)))
    assert "and 2 more" in shown
    assert "again: make chaos SEED=1" in shown
    assert str(tmp_path) in shown


def test_a_lost_task_is_found(ground, tmp_path, monkeypatch):
    """What the tables do not hold any more was lost: the whole way of a verdict can fail."""
    calm = replace(draw(3, replicas=False), faults=())
    assert play(calm, ground, tmp_path / "calm") == []
    monkeypatch.setattr("kit.tables.Tables.tasks", lambda tables: [])
    found = play(calm, ground, tmp_path / "lost")
    assert any("stored as nothing" in line for line in found)


def test_a_fork_is_a_process_like_any_other(tmp_path):
    """It serves, ends with its status, tells by which signal it died, and dies with its kin."""
    forks = Forks()
    agent = Agent(tmp_path)
    agent.how = forks.start
    agent.up()
    assert agent.post("/tasks/execute", {"requestId": "r", "type": "reload"})["code"] == 0
    assert agent.stop() == 0
    assert "Agent server running" in agent.output
    agent.up()
    agent.kill()
    assert agent.wait() == -signal.SIGKILL
    with pytest.raises(AssertionError, match="it ended"):
        agent.up(AGENT_HTTP_ADDR="nowhere")
    assert agent.wait() == 2
    agent.up()
    with pytest.raises(subprocess.TimeoutExpired):
        agent.wait(0.01)
    forks.close()
    assert agent.wait() == -signal.SIGKILL


def test_schedules_are_played_by_a_command(tmp_path):
    """One seed alone, as it is printed for one that failed."""
    seed = next(seed for seed in range(100) if draw(seed).controls == 1)
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--seed", str(seed)],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"seed {seed}: 1 control planes on SQLite" in done.stdout
    assert "1 schedules in" in done.stdout
    assert not list(tmp_path.iterdir())
