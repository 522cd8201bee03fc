"""Processes killed at any moment while creates stream in: nothing is lost, nothing done twice."""

import os
import random
import signal
import time

import pytest

from kit.waiting import until

CREATES = 200


@pytest.fixture
def chance():
    """Return the chance of a run: its seed is printed, and CHAOS_SEED gives it again."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CHAOS_SEED={seed}")
    return random.Random(seed)


def _nodes(control, agents):
    """Register two nodes' rows for each agent."""
    return [
        control.add_node(agent.port, f"n{agent.port}-{number}")
        for agent in agents
        for number in range(2)
    ]


def _agents(stage):
    return [stage.agent(f"agent{number}") for number in range(2)]


def _kill_at_random(stage, chance, control, victims):
    """Kill each of these in turn, somewhere in a stream of creates, and start it again at once."""
    nodes = _nodes(control, [victim for victim in dict.fromkeys(victims) if victim is not control])
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
    stream = stage.stream([control], stage.asks(_nodes(control, agents), CREATES))
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
    stream = stage.stream(controls, stage.asks(_nodes(controls[0], agents), CREATES))
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
    stream = stage.stream(controls, stage.asks(_nodes(controls[0], agents), CREATES))
    stage.accepted(chance.randrange(CREATES // 4, CREATES))
    stage.kill(chance.choice(controls))
    stream.wait()
    assert stage.finish() == []


def test_a_replica_frozen_past_its_lease_harms_nobody(mariadb_stage):
    """Another takes over what it had sent; when it wakes up, its answers are late and dropped."""
    stage, settings = mariadb_stage
    agent = stage.agent()
    frozen = stage.control("control1", settings)
    nodes = _nodes(frozen, [agent])
    asks = stage.asks(nodes, 20)
    agent.send(signal.SIGSTOP)  # so that an attempt is out when its owner freezes
    assert stage.ask(frozen, asks[0])
    until(stage.tables.leases, 10, "an attempt is out")
    frozen.send(signal.SIGSTOP)
    stage.history.kill("the first replica, frozen")
    agent.send(signal.SIGCONT)
    serving = stage.control("control2", settings)
    for ask in asks[1:]:
        assert stage.ask(serving, ask)
    until(lambda: len(stage.tables.final_ids()) == len(asks), 15, "the other finished everything")
    frozen.send(signal.SIGCONT)
    stage.history.restart("the first replica")
    stream = stage.stream([frozen, serving], stage.asks(nodes, 20))
    stream.wait()
    until(lambda: "late results dropped: 1" in frozen.output, 10, "the late answer is dropped")
    assert stage.finish() == []


def test_a_replica_frozen_inside_a_transaction_is_rid_of_its_locks(mariadb_stage):
    """Its connection stays open and holds rows; the server gives them back within the bound."""
    stage, settings = mariadb_stage
    agents = _agents(stage)
    frozen = stage.control("control1", settings)
    serving = stage.control("control2", settings)
    nodes = _nodes(frozen, agents)
    serving.send(signal.SIGSTOP)  # so that what is locked is the other's
    until(lambda: stage.tables.locked_rows() == 0, 5, "no transaction is open")
    stream = stage.stream([frozen], stage.asks(nodes, 100))

    def caught() -> bool:
        frozen.send(signal.SIGSTOP)
        time.sleep(0.1)  # what the server was about to finish is finished
        if stage.tables.locked_rows():
            return True
        frozen.send(signal.SIGCONT)
        return False

    until(caught, 20, "it is inside a transaction")
    stage.history.kill("the first replica, frozen")
    serving.send(signal.SIGCONT)
    until(lambda: stage.tables.locked_rows() == 0, 15, "the rows are free again")
    until(lambda: not stage.tables.leases(), 15, "the other has taken over")
    frozen.send(signal.SIGCONT)
    stage.history.restart("the first replica")
    stream.wait()
    assert stage.finish() == []
