"""Every place where a process may be killed: it dies there, and all is well after its restart."""

import http.client
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import edgeplane
from chaos.stage import Ask, Stage
from edgeplane.model.clock import utc_now
from edgeplane.observe.crashpoints import AGENT_POINTS, CONTROL_POINTS
from edgeplane.store.database import make_engine
from edgeplane.store.urls import sqlite_url
from edgeplane.store.workers import Tx
from kit import factories
from kit.history import Retried
from kit.ports import free_port
from kit.processes import Agent, ControlPlane
from kit.tables import Tables
from kit.waiting import until


@dataclass(frozen=True, slots=True)
class Left:
    """What the first task's row and the agent's folder show where the first passage is deadly."""

    status: str | None  #: None: there is no row
    effect: bool
    passages: tuple[int, ...] = (1,)  #: the ones that are tried; later ones under a crowd of tasks


#: One for each point. With the agent dead the control plane lives on, and the row moves: ``*``.
CASES = {
    "create.before_commit": Left(None, effect=False),
    "create.after_commit": Left("pending", effect=False, passages=(1, 3)),
    "retry.after_commit": Left("pending", effect=False),
    "cancel.after_commit": Left("cancelled", effect=False),
    "claim.before_commit": Left("pending", effect=False),
    "claim.after_commit": Left("running", effect=False, passages=(1, 2)),
    "deliver.before_send": Left("running", effect=False),
    "deliver.after_answer": Left("running", effect=True, passages=(1, 3)),
    "settle.before_commit": Left("running", effect=True, passages=(1, 2)),
    "settle.after_commit": Left("success", effect=True),
    "operation.before_commit": Left(None, effect=False),
    "operation.after_commit": Left(None, effect=False),
    "fanout.claimed": Left(None, effect=False, passages=(1, 2)),
    "fanout.before_commit": Left(None, effect=False, passages=(1, 2)),
    "fanout.after_commit": Left("*", effect=False, passages=(1, 2)),
    "attach.after_commit": Left("*", effect=False),
    "agent.before_begin": Left("*", effect=False),
    "agent.after_begin": Left("*", effect=False, passages=(1, 3)),
    "agent.draft_written": Left("*", effect=False, passages=(1, 2)),
    "agent.after_effect": Left("*", effect=True, passages=(1, 3)),
    "agent.before_done": Left("*", effect=True),
    "agent.after_done": Left("*", effect=True, passages=(1, 2)),
    "agent.after_answer": Left("*", effect=True),
    "agent.before_cancel": Left("*", effect=False),
    "agent.after_cancel": Left("*", effect=False),
    "agent.before_tell": Left("*", effect=True, passages=(1, 3)),
    "agent.after_tell": Left("*", effect=True, passages=(1, 3)),
}


CANCEL_POINTS = ("agent.before_cancel", "agent.after_cancel")
#: Passed by an agent that connects out.
TELL_POINTS = ("agent.before_tell", "agent.after_tell")
EXECUTE_POINTS = [point for point in AGENT_POINTS if point not in {*CANCEL_POINTS, *TELL_POINTS}]
#: Passed on the way of an operation alone.
OPERATION_POINTS = [
    point for point in CONTROL_POINTS if point.startswith(("operation.", "fanout."))
]
#: Passed where an agent that connects out comes in.
ATTACH_POINT = "attach.after_commit"
TASK_POINTS = [point for point in CONTROL_POINTS if point not in {*OPERATION_POINTS, ATTACH_POINT}]


def _each(points):
    return [(point, passage) for point in points for passage in CASES[point].passages]


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """Start a control plane that lives through all deaths of agents."""
    folder = tmp_path_factory.mktemp("standing")
    stage = Stage(folder, Tables.of_sqlite(folder / "control" / "state" / "edgeplane.db"))
    yield stage, stage.control()
    stage.close()


def test_every_crash_point_has_its_case():
    """A new point without a case fails here."""
    assert set(CASES) == {*CONTROL_POINTS, *AGENT_POINTS}


def test_the_source_passes_every_point_and_no_other():
    """What the source says at its crash points and what the registry lists are the same."""
    passed = re.compile(r'crash_point[(,]\s*"([^"]+)"')
    source = Path(edgeplane.__file__).parent
    found = [name for file in source.rglob("*.py") for name in passed.findall(file.read_text())]
    assert sorted(found) == sorted((*CONTROL_POINTS, *AGENT_POINTS))


@pytest.mark.parametrize(("point", "passage"), _each(TASK_POINTS))
def test_a_control_plane_killed_there_loses_nothing(stage, point, passage):
    """It dies at the point; restarted, each task ends in one effect, within the bound."""
    agent = stage.agent()
    control = stage.control(EDGEPLANE_CRASH_AT=f"{point}:{passage}")
    nodes = stage.nodes(control, [agent])
    first = stage.asks(nodes, 1)[0]
    if point == "retry.after_commit":
        _fail_and_retry(stage, control, agent)
    elif point == "cancel.after_commit":
        _wait_and_cancel(stage, control, agent)
    elif passage == 1:
        assert stage.ask(control, first) is not point.startswith("create.")
    else:
        stage.asks(nodes, 7)
        for ask in stage.asked:
            stage.ask(control, ask)
    stage.died(control)
    if passage == 1:
        row = stage.row(first.request_id)
        assert (row.status if row else None) == CASES[point].status
        assert any(agent.work.glob("cmdb_*")) is CASES[point].effect
        stage.asks(nodes, 3)
    stage.restart(control)
    if not agent.running:
        stage.restart(agent)
    stage.ask_all(control)
    assert stage.finish() == []


@pytest.mark.parametrize(("point", "passage"), _each(OPERATION_POINTS))
def test_an_operation_is_carried_out_once_wherever_it_was_killed(stage, point, passage):
    """Asked for again under its request id, it is the same one; each node gets its task once."""
    agent = stage.agent()
    control = stage.control(EDGEPLANE_CRASH_AT=f"{point}:{passage}")
    nodes = stage.nodes(control, [agent], count=6)
    body = {
        "type": "purge_cache",
        "payload": {"urls": ["/a"]},
        "target": {"nodeIds": nodes},
        "maxConcurrency": 2,
        "requestId": "mine",
    }
    with suppress(OSError, http.client.HTTPException):
        control.call("POST", "/operations/create", body)
    stage.died(control)
    if passage == 1:
        rows = stage.tables.tasks()
        assert bool(rows) is (CASES[point].status is not None)
        assert any(agent.work.glob("cmdb_*")) is CASES[point].effect
    stage.restart(control)
    operation = control.data("POST", "/operations/create", body)
    path = f"/operations/{operation['id']}"
    done = until(lambda: _in_state(control, path, "done"), 40, "the operation is done")
    assert done["counts"] == {**dict.fromkeys(done["counts"], 0), "success": 6}
    made = control.data("GET", f"{path}/tasks")["list"]
    assert sorted(task["nodeId"] for task in made) == nodes
    for task in made:
        stage.asked.append(Ask(task["requestId"], task["nodeId"], task["type"]))
        stage.history.accept(task["requestId"], task["id"], task["nodeId"])
    assert stage.finish() == []


@pytest.mark.parametrize("point", ["fanout.before_commit:2", "fanout.after_commit:1"])
def test_a_fan_out_to_many_nodes_that_was_killed_makes_each_task_once(stage, point):
    """Killed between its chunks or in one: in the end there are exactly as many as nodes."""
    number = 2000
    control = stage.control()
    assert control.stop() == 0
    file = control.folder / "state" / "edgeplane.db"
    engine = make_engine(sqlite_url(file))
    with engine.begin() as connection:
        tx = Tx(connection, utc_now(), "sqlite")
        factories.add_nodes(tx, number, agent_port=free_port())
    engine.dispose()
    control.up(EDGEPLANE_CRASH_AT=point)
    body = {"type": "reload", "target": {"all": True}, "requestId": "mine"}
    with suppress(OSError, http.client.HTTPException):
        control.call("POST", "/operations/create", body)
    stage.died(control)
    stage.restart(control)
    operation = control.data("POST", "/operations/create", body)
    path = f"/operations/{operation['id']}"
    sent = until(lambda: _sent(control, path), 40, "all are sent")
    rows = stage.tables.tasks()
    assert len(rows) == len({row.node_id for row in rows}) == number
    assert sent["total"] == sum(sent["counts"].values()) == number
    assert control.stop() == 0


def _in_state(control, path, state):
    found = control.data("GET", path)
    return found if found["state"] == state else None


def _sent(control, path):
    found = control.data("GET", path)
    return found if found["counts"]["unsent"] == 0 else None


@pytest.mark.parametrize(("point", "passage"), _each(EXECUTE_POINTS))
def test_an_agent_killed_there_does_nothing_twice(standing, point, passage):
    """It dies at the point; restarted, each task ends in one effect, within the bound."""
    stage, control = standing
    agent = stage.agent(f"{point}-{passage}", EDGEPLANE_CRASH_AT=f"{point}:{passage}")
    nodes = stage.nodes(control, [agent])
    stage.asks(nodes, 1 if passage == 1 else 8)
    stage.ask_all(control)
    stage.died(agent)
    if passage == 1:
        assert any(agent.work.glob("cmdb_*")) is CASES[point].effect
        stage.asks(nodes, 3)
        stage.ask_all(control)  # they wait for the agent
    stage.restart(agent)
    assert stage.verdict() == []
    assert agent.stop() == 0


@pytest.mark.parametrize("point", CANCEL_POINTS)
def test_an_agent_killed_while_it_cancels_has_done_it_or_not(tmp_path, point):
    """A task that comes after its cancel has no effect once that is on record; else it has one."""
    agent = Agent(tmp_path).up(EDGEPLANE_CRASH_AT=point)
    with pytest.raises(OSError, match=r"closed|reset"):
        agent.post("/tasks/cancel", {"requestId": "r1"})
    assert agent.wait() == -signal.SIGKILL
    assert any(agent.work.glob("cmdb_*")) is CASES[point].effect
    agent.up()
    answer = agent.post("/tasks/execute", {"requestId": "r1", "type": "reload"})
    cancelled = point == "agent.after_cancel"
    assert answer["data"]["status"] == ("failed" if cancelled else "success")
    assert (agent.work / "cmdb_reload_r1.txt").exists() is not cancelled
    assert agent.post("/tasks/cancel", {"requestId": "r1"})["data"]["state"] == (
        "unknown" if cancelled else "done"
    )
    assert agent.stop() == 0


def _connecting_out(folder):
    """Make a control plane and an agent that connects out to it."""
    control = ControlPlane(folder / "control")
    url = f"http://127.0.0.1:{control.sync_port}"
    return control, Agent(folder / "agent", {"EDGEPLANE_CONTROL": url, "EDGEPLANE_NODE": "edge-1"})


def test_a_control_plane_killed_as_an_agent_comes_has_it_back(tmp_path):
    """The agent comes again by itself; what waited for it ends in one effect."""
    control, agent = _connecting_out(tmp_path)
    try:
        control.up(EDGEPLANE_CRASH_AT=ATTACH_POINT)
        node_id = control.add_node(transport="sync", name="edge-1")
        made = control.data("POST", "/agent-tasks/create", {"nodeId": node_id, "type": "reload"})
        agent.start()
        assert control.wait() == -signal.SIGKILL
        assert any(agent.work.glob("cmdb_*")) is CASES[ATTACH_POINT].effect
        control.up()
        assert control.wait_for_task(made["id"], seconds=45)["attempts"] >= 1
        assert [file.name for file in agent.work.iterdir()] == [
            f"cmdb_reload_{made['requestId']}.txt"
        ]
        assert agent.output.count("[SUCCESS]") == 1
        assert (agent.stop(), control.stop()) == (0, 0)
    finally:
        agent.kill()
        control.kill()


@pytest.mark.parametrize(("point", "passage"), _each(TELL_POINTS))
def test_an_agent_killed_while_it_tells_does_nothing_twice(tmp_path, point, passage):
    """Restarted, it tells from its journal what it had done, and does the rest."""
    control, agent = _connecting_out(tmp_path)
    try:
        node_id = control.up().add_node(transport="sync", name="edge-1")
        agent.start(EDGEPLANE_CRASH_AT=f"{point}:{passage}")
        asked = {"nodeId": node_id, "type": "reload"}
        made = [control.data("POST", "/agent-tasks/create", asked)["id"] for _ in range(5)]
        assert agent.wait() == -signal.SIGKILL
        seen = {file: file.stat().st_mtime_ns for file in agent.work.glob("cmdb_*")}
        assert bool(seen) is CASES[point].effect
        agent.start()
        for task_id in made:
            assert control.wait_for_task(task_id)["attempts"] >= 1
        there = {file: file.stat().st_mtime_ns for file in agent.work.glob("cmdb_*")}
        assert len(there) == 5
        assert {file: there[file] for file in seen} == seen
        assert (agent.stop(), control.stop()) == (0, 0)
    finally:
        agent.kill()
        control.kill()


def _fail_and_retry(stage, control, agent):
    """Let the first task fail for good, remove the cause, and ask for it again."""
    first = stage.asked[0]
    assert first.kind == "apply_config"
    obstacle = agent.work / f"cmdb_apply_config_{first.request_id}.json"
    obstacle.mkdir()
    assert stage.ask(control, first)
    task_id = stage.history.accepted[first.request_id]
    failed = control.wait_for_task(task_id, "failed")
    assert failed["nextRetryAt"] is None
    obstacle.rmdir()
    stage.history.add(Retried(at=time.monotonic(), request_id=first.request_id))
    with pytest.raises(OSError, match=r"closed|reset"):
        control.call("POST", "/agent-tasks/retry", {"id": task_id})


def _wait_and_cancel(stage, control, agent):
    """Let the first task wait for an agent that is gone, and take it back."""
    first = stage.asked[0]
    stage.kill(agent)
    assert stage.ask(control, first)
    task_id = stage.history.accepted[first.request_id]
    assert control.wait_for_task(task_id, "failed")["nextRetryAt"] is not None
    stage.history.withdraw(first.request_id)
    with pytest.raises(OSError, match=r"closed|reset"):
        control.call("POST", "/agent-tasks/cancel", {"id": task_id})
