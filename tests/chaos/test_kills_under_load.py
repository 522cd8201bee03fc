"""Processes killed at any moment while creates stream in: nothing is lost, nothing done twice."""

import os
import random
import re
import signal
import time

import pytest

from chaos.stage import PATIENCE
from kit.waiting import until

CREATES = 200


@pytest.fixture
def chance():
    """Return the chance of a run: its seed is printed, and CHAOS_SEED gives it again."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CHAOS_SEED={seed}")
    return random.Random(seed)


def _agents(stage):
    return [stage.agent(f"agent{number}") for number in range(2)]


def _kill_at_random(stage, chance, control, victims, nodes=None):
    """Kill each of these in turn, somewhere in a stream of creates, and start it again at once.

    ``nodes``: where those of the victims are registered already.
    """
    nodes = nodes or stage.nodes(
        control, [victim for victim in dict.fromkeys(victims) if victim is not control]
    )
    stream = stage.stream([control], stage.asks(nodes, CREATES))
    moments = sorted(chance.sample(range(CREATES // 10, CREATES), len(victims)))
    for moment, victim in zip(moments, victims, strict=True):
        stage.accepted(moment)
        time.sleep(chance.uniform(0, 0.02))  # so that it may strike inside a transaction, too
        stage.kill(victim)
        stage.restart(victim)
    stream.wait()
    assert stage.finish() == []


def test_agents_and_control_plane_killed_on_sqlite(stage, chance):
    """Each is killed, several times, under two hundred creates."""
    agents = _agents(stage)
    control = stage.control()
    victims = [*agents, control, control, chance.choice(agents)]
    chance.shuffle(victims)
    _kill_at_random(stage, chance, control, victims)


def test_agents_that_connect_out_and_control_plane_killed_on_sqlite(stage, chance):
    """They come back by themselves, and are asked again for what they had not told."""
    control = stage.control()
    url = f"http://{control.host}:{control.sync_port}"
    made = [stage.connecting(control, f"edge{number}", [url]) for number in range(3)]
    for agent, _ in made:
        agent.wait_for("connected to control plane")
    agents = [agent for agent, _ in made]
    victims = [*agents, control, control, chance.choice(agents)]
    chance.shuffle(victims)
    _kill_at_random(stage, chance, control, victims, [node_id for _, node_id in made])


def test_agents_and_control_plane_killed_on_mariadb(mariadb_stage, chance):
    """The same, where a dead owner's leases have to lapse first."""
    stage, settings = mariadb_stage
    agents = _agents(stage)
    control = stage.control("control", settings)
    victims = [*agents, control]
    chance.shuffle(victims)
    _kill_at_random(stage, chance, control, victims)


def test_the_database_killed_under_load(mariadb_stage, mortal_mariadb, chance):
    """With MariaDB killed, what was answered is there, and what was not is sent again."""
    stage, settings = mariadb_stage
    agents = _agents(stage)
    control = stage.control("control", settings)
    stream = stage.stream([control], stage.asks(stage.nodes(control, agents), CREATES))
    for moment in sorted(chance.sample(range(CREATES // 10, CREATES), 2)):
        stage.accepted(moment)
        mortal_mariadb.kill()
        stage.history.kill("mariadbd")
        mortal_mariadb.start()
        stage.history.restart("mariadbd")
    stream.wait()
    assert stage.finish() == []


def test_redis_killed_under_load(mariadb_stage, mortal_redis, chance):
    """Without Redis hints are lost, and nothing else; both replicas go on."""
    stage, settings = mariadb_stage
    settings["REDIS_ADDR"] = mortal_redis.address
    agents = _agents(stage)
    controls = [stage.control(name, settings) for name in ("control1", "control2")]
    stream = stage.stream(controls, stage.asks(stage.nodes(controls[0], agents), CREATES))
    stage.accepted(chance.randrange(CREATES // 10, CREATES))
    mortal_redis.kill()
    stage.history.kill("redis-server")
    stream.wait()
    assert stage.finish() == []


@pytest.mark.parametrize("with_redis", [False, True])
def test_a_replica_killed_for_good_is_replaced_by_the_other(
    mariadb_stage, mortal_redis, chance, with_redis
):
    """The survivor finishes everything within the bound; nobody starts the dead one again."""
    stage, settings = mariadb_stage
    if with_redis:
        settings["REDIS_ADDR"] = mortal_redis.address
    agents = _agents(stage)
    controls = [stage.control(name, settings) for name in ("control1", "control2")]
    stream = stage.stream(controls, stage.asks(stage.nodes(controls[0], agents), CREATES))
    stage.accepted(chance.randrange(CREATES // 4, CREATES))
    stage.kill(chance.choice(controls))
    stream.wait()
    assert stage.finish() == []


def test_a_replica_frozen_past_its_lease_harms_nobody(mariadb_stage):
    """Another takes over; its late sends are refused, and late answers it gets are dropped.

    Of one agent it has an attempt that is carried out while it is frozen. What it sent the other is
    on its way for so long that the agent hears of the new owner first.
    """
    stage, settings = mariadb_stage
    agents = _agents(stage)
    relay = stage.relay(agents[1])
    frozen = stage.control("control1", settings)
    direct = stage.nodes(frozen, agents[:1])
    relayed = stage.nodes(frozen, agents[1:], port=relay.port)
    relay.hold()
    agents[0].send(signal.SIGSTOP)  # so that an attempt is out when its owner freezes
    out = [*stage.asks(direct, 1), *stage.asks(relayed, 8)]
    for ask in out:
        assert stage.ask(frozen, ask)
    held = 4  # of each node one config task and one purge; what is left queues up behind them
    until(lambda: relay.waiting() == held, 10, "the sends are on their way")
    until(lambda: len(stage.tables.leases()) == held + 1, 10, "all attempts are out")
    stage.freeze(frozen)
    agents[0].send(signal.SIGCONT)
    relay.pass_on()
    serving = stage.control("control2", settings)
    asks = stage.asks([*direct, *relayed], 20)
    for ask in asks:
        assert stage.ask(serving, ask)
    done = len(out) + len(asks)
    until(lambda: len(stage.tables.final_ids()) == done, PATIENCE, "the other finished everything")
    assert "stale epoch" not in serving.output
    frozen.send(signal.SIGCONT)
    relay.release()
    stage.stream([frozen, serving], stage.asks([*direct, *relayed], 20)).wait()
    until(lambda: _late(frozen) == held + 1, PATIENCE, "the late answers are dropped")
    assert frozen.output.count("409: stale epoch") == held
    assert stage.finish() == []


def _late(control):
    """Return how many results a control plane says it dropped."""
    return sum(int(found) for found in re.findall(r"late results dropped: (\d+)", control.output))


def test_a_replica_frozen_inside_a_transaction_is_rid_of_its_locks(mariadb_stage):
    """Its connection stays open and holds rows; the server gives them back within the bound."""
    stage, settings = mariadb_stage
    agents = _agents(stage)
    frozen = stage.control("control1", settings)
    serving = stage.control("control2", settings)
    nodes = stage.nodes(frozen, agents)
    serving.send(signal.SIGSTOP)  # so that what is locked is the other's
    until(lambda: stage.tables.locked_rows() == 0, 5, "no transaction is open")
    stream = stage.stream([frozen], stage.endless(nodes))

    def caught() -> bool:
        frozen.send(signal.SIGSTOP)
        time.sleep(0.1)  # what the server was about to finish is finished
        if stage.tables.locked_rows():
            return True
        frozen.send(signal.SIGCONT)
        return False

    until(caught, PATIENCE, "it is inside a transaction")
    stage.freeze(frozen)
    stream.stop()
    serving.send(signal.SIGCONT)
    until(lambda: stage.tables.locked_rows() == 0, PATIENCE, "the rows are free again")
    until(lambda: not stage.tables.leases(), PATIENCE, "the other has taken over")
    frozen.send(signal.SIGCONT)
    stream.wait()
    assert stage.finish() == []
