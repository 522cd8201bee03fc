"""The command: what it takes, how it ends, and how a control plane learns of its agents."""

import os
import signal
import subprocess
import sys

import pytest

from edgeplane.swarm.addresses import address_of, name_of
from edgeplane.transport.base import Address
from edgeplane.transport.push import PushTransport
from edgeplane.wire import ExecuteRequest
from kit.history import Effect, History, Killed, Restarted
from kit.processes import AGENT_TOKEN, ControlPlane
from kit.swarm import PROGRAM, Swarm, SwarmEffects


def _run(*arguments):
    """Run the command to its end; return its exit status and what it said of an error."""
    env = {"PATH": os.environ["PATH"], "AGENT_TOKEN": AGENT_TOKEN}
    done = subprocess.run(
        [PROGRAM, *arguments], env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.fixture
def swarm(tmp_path):
    """Return a swarm of forty that has not been started."""
    made = Swarm(tmp_path, 40)
    yield made
    made.kill()


async def _ask(swarm, *asked):
    client = PushTransport(AGENT_TOKEN)
    for number, request_id in asked:
        address = Address(address_of(number), swarm.port)
        await client.deliver(address, ExecuteRequest(request_id, "reload"), 20)
    await client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_when_asked_to_and_says_what_it_came_to(swarm, number):
    """Exit status 0, one line of JSON."""
    swarm.up()
    await _ask(swarm, (1, "r1"), (40, "r2"), (1, "r1"))
    swarm.send(number)
    assert swarm.wait() == 0
    told = swarm.summary()
    assert (told["requests"], told["effects"], told["duplicates"]) == (3, 2, 1)
    assert (told["most_connections"], told["connections_made"]) == (2, 2)
    assert told["latency_ms"]["p99"] > 0
    assert told["peak_per_second"] > 0


async def test_killed_and_started_again_it_answers_from_its_journal(swarm):
    """Its effects are lines that outlive it, and become events."""
    swarm.up()
    await _ask(swarm, (3, "r1"))
    swarm.kill()
    swarm.up()
    await _ask(swarm, (3, "r1"), (4, "r1"))
    history = History()
    SwarmEffects(swarm.effects, history).flush()
    assert [event.file for event in history.events if isinstance(event, Effect)] == [
        "127.1.0.3/r1",
        "127.1.0.4/r1",
    ]
    assert swarm.stop() == 0
    assert swarm.summary()["duplicates"] == 1


async def test_deaths_become_events(tmp_path):
    """Of the agent that died, not of the swarm."""
    swarm = Swarm(tmp_path, 1, ["--kill", "1", "--down", "0", "--seed", "2"])
    swarm.up()
    with pytest.raises(Exception, match="no answer"):
        await _ask(swarm, (1, "r1"))
    assert swarm.stop() == 0
    history = History()
    SwarmEffects(swarm.effects, history).stop()
    kinds = [type(event) for event in history.events if not isinstance(event, Effect)]
    assert kinds[:2] == [Killed, Restarted]
    assert {event.who for event in history.events if isinstance(event, Killed)} == {"127.1.0.1"}


def test_registering_twice_is_registering_once(tmp_path):
    """Each agent has its node, with its address, its port and its name."""
    swarm = Swarm(tmp_path, 40)
    control = ControlPlane(tmp_path / "control").up()
    try:
        ids = swarm.register(control)
        assert swarm.register(control) == ids
        assert list(ids) == [address_of(number) for number in range(1, 41)]
        node = control.data("GET", f"/nodes/{ids[address_of(40)]}")
        told = (node["name"], node["mainIP"], node["agentPort"])
        assert told == (name_of(40), "127.1.0.40", swarm.port)
        assert control.data("GET", "/nodes?pageSize=1")["total"] == 40
    finally:
        control.kill()


def test_what_it_cannot_start_with_is_one_line(swarm, tmp_path):
    """A port that is taken, a journal that another has, a folder that is not there."""
    swarm.up()
    code, words = _run("1", "--no-journal", "--port", str(swarm.port))
    assert code == 1
    assert words.startswith("edgeplane-swarm: --port: cannot listen on 0.0.0.0:")
    for journal, why in (("journal.db", "locked"), ("nowhere/journal.db", "unable to open")):
        code, words = _run("1", "--port", "0", "--journal", str(tmp_path / journal))
        assert (code, words.count("\n")) == (1, 1)
        assert why in words
    assert _run("0")[0] == _run("10001")[0] == _run("1", "--drop", "2")[0] == 2


def test_it_needs_nothing_of_the_server():
    """What an edge node installs is enough."""
    gone = ("sqlalchemy", "alembic", "fastapi", "starlette", "pydantic", "jwt", "redis", "pymysql")
    block = f"import sys; sys.modules.update(dict.fromkeys({gone!r}))"
    code = f"{block}; from edgeplane.swarm.cli import main; main(['--help'])"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
