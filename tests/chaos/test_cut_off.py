"""Three replicas on hosts of their own; one is cut off, killed or frozen under load.

Its nodes are served by the others within the bound, nothing is lost or done twice, and once it is
back it goes on, and changes nothing that it no longer owns.
"""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chaos.stage import Stage
from kit.checker import REPAIR_SECONDS
from kit.nets import Host, Net
from kit.processes import ControlPlane
from kit.servers import MariaDB, Redis
from kit.tables import Tables
from kit.waiting import until

REPLICAS, AGENTS, NODES = 3, 3, 3
CONNECTING = 6  #: agents that connect out, two to each replica at first
_numbers = count(1)


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """A control plane, the host it runs on, and what it calls itself in the tables."""

    control: ControlPlane
    host: Host

    def owned(self, tables: Tables) -> set[int]:
        """Return the nodes it holds."""
        mine = f"{self.host.name}-"
        return {node_id for node_id, who in tables.owners().items() if who and who.startswith(mine)}


@pytest.fixture
def net() -> Iterator[Net]:
    """Make a network; it is gone at the end."""
    made = Net()
    yield made
    made.close()


@pytest.fixture
def mariadb(net: Net) -> Iterator[MariaDB]:
    """Start a MariaDB that the hosts reach."""
    with TemporaryDirectory(prefix="edgeplane-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        server = MariaDB(folder / "mariadb", net.address)
        server.start()
        yield server
        server.kill()


@pytest.fixture
def redis(net: Net, tmp_path: Path) -> Iterator[Redis]:
    """Start a Redis that the hosts reach."""
    server = Redis(tmp_path / "redis", net.address)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def replicated(net, mariadb, redis, stages):
    """Start three replicas, each on its host; return them with their stage."""
    database = f"cut_{next(_numbers)}"
    settings = {"MYSQL_DSN": mariadb.create_database(database), "REDIS_ADDR": redis.address}
    stage = stages(Tables.of_mariadb(mariadb, database))
    replicas = []
    for number in range(REPLICAS):
        host = net.add_host(f"replica{number}")
        control = ControlPlane(
            stage.folder / host.name, settings, host=host.address, inside=host.inside
        )
        replicas.append(Replica(stage.enlist(host.name, control), host))
    return stage, replicas


@pytest.fixture(params=["push", "sync"])
def scene(request, net, replicated):
    """Start agents for all, which are called or connect out; return what there is."""
    stage, replicas = replicated
    first = replicas[0].control
    if request.param == "push":
        agents = [stage.agent(f"agent{number}", host=net.address) for number in range(AGENTS)]
        return stage, replicas, stage.nodes(first, agents, NODES)
    urls = [f"http://{r.host.address}:{r.control.sync_port}" for r in replicas]
    nodes = []
    for number in range(CONNECTING):
        turn = number % REPLICAS
        agent, node_id = stage.connecting(first, f"edge{number}", urls[turn:] + urls[:turn])
        agent.wait_until_up()
        nodes.append(node_id)
    return stage, replicas, nodes


def _pull(stage: Stage, replica: Replica) -> None:
    replica.host.cut()
    stage.disturbed(replica.control)


def _kill(stage: Stage, replica: Replica) -> None:
    stage.kill(replica.control)


def _freeze(stage: Stage, replica: Replica) -> None:
    stage.freeze(replica.control)


def _plug_in(stage: Stage, replica: Replica) -> None:
    replica.host.mend()


def _start(stage: Stage, replica: Replica) -> None:
    stage.restart(replica.control)


def _wake(stage: Stage, replica: Replica) -> None:
    replica.control.send(signal.SIGCONT)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("away", "back"),
    [(_pull, _plug_in), (_kill, _start), (_freeze, _wake)],
    ids=["cut", "killed", "frozen"],
)
def test_a_replica_that_is_gone_is_replaced_in_time_and_comes_back(scene, away, back):
    """Whether its host can be reached, its process is dead, or it stands still."""
    stage, replicas, nodes = scene
    victim, others = replicas[0], [replica.control for replica in replicas[1:]]
    everybody = stage.stream([replica.control for replica in replicas], stage.asks(nodes, 60))
    everybody.wait()
    load = stage.stream(others, stage.endless(nodes))
    until(lambda: len(victim.owned(stage.tables)) > 1, 30, "it holds nodes")
    away(stage, victim)
    gone = time.monotonic()
    held = victim.owned(stage.tables)
    seconds = _served_again(stage, victim, others[0], held or set(nodes))
    print(f"{away.__name__}: {len(held)} nodes held; served again after {seconds:.1f} s")
    assert seconds < REPAIR_SECONDS
    until(lambda: time.monotonic() > gone + 11, 20)  # so that its leases are all past
    before = stage.tables.owned()
    back(stage, victim)
    _ask(stage, victim.control, nodes)
    if not stage.connects_out:  # agents that have gone elsewhere have no reason to come back
        until(lambda: victim.owned(stage.tables), 40, "it goes on")
    load.stop()
    load.wait()
    assert {node_id for node_id, _, _ in before} == set(nodes)
    assert stage.finish() == []


def _served_again(stage, victim, control, nodes):
    """Return after how many seconds each of these nodes has carried out something new."""
    begun = time.monotonic()
    _ask(stage, control, nodes)
    until(lambda: not victim.owned(stage.tables), 40, "it holds nothing")
    return time.monotonic() - begun


def _ask(stage, control, nodes):
    """Ask a replica for something new at each of these nodes, and wait until it is done."""
    asks = [ask for ask in stage.asks(sorted(nodes), 3 * len(nodes)) if ask.node_id in nodes]
    for ask in asks:
        until(partial(stage.ask, control, ask), 40, "it is taken")
    wanted = {ask.request_id for ask in asks}
    until(lambda: wanted <= stage.tables.final_ids(), 40, "all are done")
