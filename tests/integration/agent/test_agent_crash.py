"""An agent killed anywhere makes each effect once: tried at every crash point, and with kill -9."""

import http.client
import signal
from contextlib import suppress

import pytest

from edgeplane.observe.crashpoints import AGENT_POINTS

CANCEL_POINTS = ("agent.before_cancel", "agent.after_cancel")
TELL_POINTS = ("agent.before_tell", "agent.after_tell")  # see test_agent_syncs.py
EXECUTE_POINTS = [point for point in AGENT_POINTS if point not in {*CANCEL_POINTS, *TELL_POINTS}]

#: Where the effect is there when the process dies.
VISIBLE = {
    "agent.before_begin": False,
    "agent.after_begin": False,
    "agent.draft_written": False,
    "agent.after_effect": True,
    "agent.before_done": True,
    "agent.after_done": True,
    "agent.after_answer": True,
}
#: Where its ending is on record.
DONE = {"agent.after_done", "agent.after_answer"}
KINDS = {
    "apply_config": "cmdb_apply_config_r1.json",
    "reload": "cmdb_reload_r1.txt",
    "purge_cache": "cmdb_purge_cache_r1.json",
}
#: Of an answer there is one only where there is a call.
OUTBOUND_POINTS = [point for point in EXECUTE_POINTS if point != "agent.after_answer"]
ALONE = [("push", point, kind) for point in EXECUTE_POINTS for kind in KINDS]
ALONE += [("sync", point, "apply_config") for point in OUTBOUND_POINTS]
TOGETHER = [("push", point, passage) for point in EXECUTE_POINTS for passage in (1, 3)]
TOGETHER += [("sync", point, 3) for point in OUTBOUND_POINTS]


def _seen(file):
    status = file.stat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def test_every_crash_point_has_its_case():
    """A new point without an expectation fails here."""
    assert {*VISIBLE, *CANCEL_POINTS, *TELL_POINTS} == set(AGENT_POINTS)


@pytest.mark.parametrize(("launch_either", "point", "kind"), ALONE, indirect=["launch_either"])
def test_a_crash_anywhere_leaves_one_effect(launch_either, point, kind):
    """Asked again after the restart the task has succeeded, made once, with no draft left."""
    dying = launch_either(EDGEPLANE_CRASH_AT=point)
    file = dying.files / KINDS[kind]
    if point == "agent.after_answer":
        assert dying.execute("r1", kind)[1]["data"]["status"] == "success"
    else:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            dying.execute("r1", kind)
    assert dying.exit_code() == -signal.SIGKILL
    assert file.exists() is VISIBLE[point]
    before = _seen(file) if VISIBLE[point] else None

    agent = launch_either()
    status, answer = agent.execute("r1", kind)
    assert (status, answer["data"]["status"]) == (200, "success")
    assert answer["data"]["message"].endswith(str(file))
    assert before in (None, _seen(file))
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    line = "[IDEMPOTENT] Request r1" if point in DONE else f"[SUCCESS] Task r1 ({kind})"
    agent.logged(line)

    made = _seen(file)
    assert agent.execute("r1", kind, attempt=2) == (status, answer)
    assert _seen(file) == made


@pytest.mark.parametrize(
    ("launch_either", "point", "passage"), TOGETHER, indirect=["launch_either"]
)
def test_a_crash_in_a_batch_leaves_one_effect_of_each(launch_either, point, passage):
    """Asked again after the restart, all have succeeded, and what was there is not made again."""
    dying = launch_either(EDGEPLANE_CRASH_AT=f"{point}:{passage}")
    names = [f"r{number}" for number in range(5)]
    files = {name: dying.files / f"cmdb_apply_config_{name}.json" for name in names}
    asked = [{"requestId": name, "nodeId": 1, "epoch": 1} for name in names]
    with suppress(http.client.RemoteDisconnected, ConnectionResetError):
        for _ in range(passage):
            assert dying.execute_batch(*asked)[0] == 200
            assert point == "agent.after_answer"
    assert dying.exit_code() == -signal.SIGKILL
    before = {name: _seen(file) for name, file in files.items() if file.exists()}

    agent = launch_either()
    status, answer = agent.execute_batch(*asked)
    assert status == 200
    results = answer["data"]["results"]
    assert [result["requestId"] for result in results] == names
    assert {result["status"] for result in results} == {"success"}
    assert {name: _seen(files[name]) for name in before} == before
    assert sorted(agent.files.iterdir()) == sorted(files.values())
    assert agent.execute_batch(*asked) == (status, answer)


@pytest.mark.parametrize("point", CANCEL_POINTS)
def test_a_crash_while_cancelling_leaves_all_or_nothing(launch_either, point):
    """Asked again it is answered; and what is on record as cancelled does nothing afterwards."""
    dying = launch_either(EDGEPLANE_CRASH_AT=point)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        dying.cancel("r1")
    assert dying.exit_code() == -signal.SIGKILL
    agent = launch_either()
    if point == "agent.before_cancel":
        assert agent.execute("r1")[1]["data"]["status"] == "success"
        assert agent.cancel("r1")[1]["data"] == {"requestId": "r1", "state": "done"}
        return
    for _ in range(2):
        assert agent.execute("r1")[1]["data"]["message"] == "cancelled before it took effect"
        assert agent.cancel("r1")[1]["data"] == {"requestId": "r1", "state": "unknown"}
    assert list(agent.files.iterdir()) == []


@pytest.mark.parametrize("point", ["agent.after_begin", "agent.after_done"])
def test_the_latest_generation_is_remembered_across_kill_9(launch_either, point):
    """It was entered with the begin: an earlier one is refused though the later died with it."""
    dying = launch_either(EDGEPLANE_CRASH_AT=point)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        dying.execute("later", nodeId=1, generation=7)
    assert dying.exit_code() == -signal.SIGKILL
    agent = launch_either()
    status, answer = agent.execute("earlier", nodeId=1, generation=5)
    assert (status, answer["code"], answer["data"]) == (409, 3003, {"begunGeneration": 7})
    assert agent.cancel("earlier")[1]["data"]["state"] == "unknown"  # it has left no entry
    assert agent.execute("later", nodeId=1, generation=7)[1]["data"]["status"] == "success"
    assert [file.name for file in agent.files.iterdir()] == ["cmdb_apply_config_later.json"]


def test_a_success_is_remembered_across_kill_9(launch_either):
    """The file is not touched again, though the process that wrote it is long gone."""
    first = launch_either()
    said = first.execute("kept")
    file = first.files / "cmdb_apply_config_kept.json"
    made = _seen(file)
    first.kill()
    second = launch_either()
    assert second.execute("kept") == said
    assert _seen(file) == made
    second.logged("[IDEMPOTENT] Request kept already processed, returning cached result\n")
    assert "[SUCCESS]" not in second.err


def test_a_failure_is_remembered_across_kill_9_until_a_higher_attempt(launch_either):
    """The same attempt is answered from the journal, the next one runs."""
    first = launch_either()
    obstacle = first.files / "cmdb_reload_r1.txt"
    obstacle.mkdir()
    said = first.execute("r1", "reload")
    assert said[1]["data"]["status"] == "failed"
    first.kill()
    obstacle.rmdir()
    second = launch_either()
    assert second.execute("r1", "reload") == said
    assert second.execute("r1", "reload", attempt=2)[1]["data"]["status"] == "success"


def test_the_highest_epoch_is_remembered_across_kill_9(launch_either):
    """A zombie that comes back after the restart is refused, the owner of another node is not."""
    first = launch_either()
    assert first.execute("a", nodeId=1, epoch=9)[0] == 200
    first.kill()
    second = launch_either()
    status, answer = second.execute("b", nodeId=1, epoch=8)
    assert (status, answer["code"]) == (409, 3003)
    assert second.execute("b", nodeId=2, epoch=8)[0] == 200


def test_a_crash_in_a_crowd_loses_nothing_that_was_answered(launch):
    """Of many tasks, those answered before the crash are answered the same after it."""
    dying = launch(EDGEPLANE_CRASH_AT="agent.after_effect:20")
    told = {}
    for number in range(19):
        told[f"r{number}"] = dying.execute(f"r{number}")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        dying.execute("r19")
    seen = {name: _seen(dying.files / f"cmdb_apply_config_{name}.json") for name in told}
    agent = launch()
    assert {name: agent.execute(name) for name in told} == told
    assert {name: _seen(dying.files / f"cmdb_apply_config_{name}.json") for name in told} == seen
