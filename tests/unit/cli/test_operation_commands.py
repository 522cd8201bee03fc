"""``edgeplane purge`` and ``edgeplane op``: what is sent, what is shown, how waiting ends."""

import json
import sys

import pytest

from unit.cli.fake_api import NODE, TASK, page

COUNTS = {
    **dict.fromkeys(["unsent", "pending", "running", "waiting", "unreachable", "failed"], 0),
    "skipped": 1,
    "success": 3,
}
OPERATION = {
    "id": 5,
    "requestId": "o-1",
    "type": "purge_cache",
    "payload": {"urls": ["/a"]},
    "target": {"all": True},
    "state": "running",
    "reason": None,
    "total": 4,
    "counts": {**COUNTS, "success": 0, "pending": 3},
    "failures": 0,
    "maxConcurrency": None,
    "maxFailures": "5%",
    "timeoutSeconds": 30,
    "maxAttempts": 5,
    "deadlineSeconds": 86400,
    "createdBy": "admin",
    "createdAt": "2026-01-23T10:00:00.000Z",
    "finishedAt": None,
    "updatedAt": "2026-01-23T10:00:00.000Z",
}
DONE = {**OPERATION, "state": "done", "counts": COUNTS}
FAILED = {**DONE, "counts": {**COUNTS, "success": 1, "failed": 2}}
CREATE = "/api/v1/operations/create"


@pytest.fixture
def created(logged_in):
    """Return a control plane that creates operation 5."""
    logged_in.answer("POST", CREATE, OPERATION)
    return logged_in


def test_a_purge_sends_urls_and_target(created, edgeplane):
    """By names and ids, by labels, or for all; limits and times under the API's names."""
    created.answer("GET", "/api/v1/nodes", page(NODE))
    assert edgeplane("purge", "/a", "/b", "--node", "edge-1", "--node", "9").code == 0
    sent = created.requests[-1].json
    assert (sent["type"], sent["payload"]) == ("purge_cache", {"urls": ["/a", "/b"]})
    assert sent["target"] == {"nodeIds": [7, 9]}
    assert sent["requestId"]
    options = ("--max-concurrency", "10%", "--max-failures", "3", "--request-id", "mine")
    times = ("--timeout", "5", "--deadline", "60", "--max-attempts", "1")
    labels = ("--label", "region=eu", "--label", "tier=edge")
    assert edgeplane("purge", "/a", *labels, *options, *times).code == 0
    assert created.requests[-1].json == {
        "type": "purge_cache",
        "payload": {"urls": ["/a"]},
        "target": {"labels": {"region": "eu", "tier": "edge"}},
        "requestId": "mine",
        "maxConcurrency": "10%",
        "maxFailures": 3,
        "timeoutSeconds": 5,
        "maxAttempts": 1,
        "deadlineSeconds": 60,
    }
    outcome = edgeplane("purge", "/a", "--all")
    assert created.requests[-1].json["target"] == {"all": True}
    assert "pending" in outcome.out


@pytest.mark.parametrize("target", [(), ("--all", "--node", "1"), ("--all", "--label", "a=b")])
def test_a_purge_needs_one_target(created, edgeplane, target):
    """Nothing is sent without, nor to two."""
    outcome = edgeplane("purge", "/a", *target)
    assert outcome.code == 2
    assert "exactly one of --node, --label and --all" in outcome.err
    assert created.requests == []


def test_any_kind_can_be_asked_for(created, edgeplane):
    """With a payload as a task takes it."""
    payload = '{"z": 1, "a": 9007199254740993}'
    arguments = ("op", "create", "--type", "apply_config", "--payload", payload, "--all")
    assert edgeplane(*arguments).code == 0
    assert payload.encode() in created.requests[-1].body


def test_waiting_shows_progress_and_names_the_failures(created, edgeplane):
    """A line for each change; in the end the nodes and their errors, and the exit code tells."""
    path = "/api/v1/operations/5"
    created.answer("GET", path, OPERATION)
    created.answer("GET", path, FAILED)
    waiting = {**TASK, "status": "failed", "nextRetryAt": "2026-01-23T10:00:00.000Z"}
    gone = {**TASK, "nodeId": 8, "status": "failed", "lastError": "no room"}
    lost = {**TASK, "status": "failed", "lastError": "nginx -t: no"}
    created.answer("GET", f"{path}/tasks", page(lost, waiting, gone))
    created.answer("GET", "/api/v1/nodes/7", NODE)
    created.refuse("GET", "/api/v1/nodes/8", 404, 3001, "node 8 not found")
    outcome = edgeplane("purge", "/a", "--all", "--wait")
    assert outcome.code == 1
    first, second, *named = outcome.err.splitlines()
    assert first.startswith("operation 5 running [#######...")
    assert first.endswith("25% 0 of 4 succeeded, 3 pending, 1 skipped")
    assert second.endswith("100% 1 of 4 succeeded, 2 failed, 1 skipped")
    assert named == ["failed at edge-1 (node 7): nginx -t: no", "failed at node 8: no room"]
    assert "failed" in outcome.out


def test_a_watch_is_told_and_looks_twice_a_second_at_most(logged_in, edgeplane, monkeypatch):
    """However many of its tasks move; what happened meanwhile is seen by the last look."""
    path = "/api/v1/operations/5"
    stream = logged_in.stream("/api/v1/events")
    stream.put(b"retry: 2000\n\nid: 1\n\n")
    pauses, take = [], logged_in.take

    def moving(request):
        for _ in range(200 if request.path == path else 0):
            stream.put(b"id: 2\nevent: succeeded\ndata: {}\n\n")
        return take(request)

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            logged_in.answers["GET", path] = []
            logged_in.answer("GET", path, DONE)

    monkeypatch.setattr(logged_in, "take", moving)
    monkeypatch.setattr("edgeplane.client.news.time.sleep", sleep)
    logged_in.answer("GET", path, OPERATION)
    assert edgeplane("op", "watch", "5").code == 0
    assert len(pauses) == 2
    assert all(0 < pause <= 0.5 for pause in pauses), pauses
    (asked,) = [request for request in logged_in.requests if "/events" in request.path]
    assert asked.path.endswith("?operationId=5")


def test_a_watch_ends_as_the_operation_does(logged_in, edgeplane):
    """0 where nothing failed, 1 where it was stopped, 6 where it has not ended in time."""
    path = "/api/v1/operations/5"
    logged_in.answer("GET", path, DONE)
    outcome = edgeplane("op", "watch", "5", "--json")
    assert (outcome.code, json.loads(outcome.out)) == (0, DONE)
    logged_in.answers.clear()
    logged_in.answer("GET", path, {**DONE, "state": "stopped", "reason": "3 nodes failed"})
    outcome = edgeplane("op", "watch", "5")
    assert outcome.code == 1
    assert "3 nodes failed" in outcome.out
    logged_in.answers.clear()
    logged_in.answer("GET", path, OPERATION)
    assert edgeplane("op", "watch", "5", "--wait-timeout", "0").code == 6


def test_on_a_terminal_one_line_is_drawn_anew(logged_in, edgeplane, monkeypatch):
    """It ends with a line of its own."""
    for seen in (OPERATION, OPERATION, DONE):
        logged_in.answer("GET", "/api/v1/operations/5", seen)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    outcome = edgeplane("op", "watch", "5")
    assert outcome.err.count("\r\x1b[K") == 2
    assert outcome.err.endswith("succeeded, 1 skipped\n")


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry-failed"])
def test_each_verb_is_one_request(logged_in, edgeplane, verb):
    """And what it leads to is shown."""
    logged_in.answer("POST", f"/api/v1/operations/{verb}", {**OPERATION, "state": "paused"})
    outcome = edgeplane("op", verb, "5")
    assert outcome.code == 0
    assert logged_in.requests[-1].json == {"id": 5}
    assert "paused" in outcome.out
    logged_in.answers.clear()
    logged_in.refuse("POST", f"/api/v1/operations/{verb}", 409, 3003, "operation 5 is done: no")
    assert edgeplane("op", verb, "5").code == 5


def test_lists_and_looks(logged_in, edgeplane):
    """Filters become the query; a further page is named; JSON is the data."""
    logged_in.answer("GET", "/api/v1/operations", {**page(OPERATION), "nextCursor": "b5"})
    outcome = edgeplane("op", "list", "--state", "running", "--page-size", "1")
    assert logged_in.requests[-1].path == "/api/v1/operations?pageSize=1&state=running"
    assert outcome.out.splitlines()[1].split()[:6] == ["5", "purge_cache", "running", "4", "0", "0"]
    assert "--cursor b5" in outcome.err
    stopped = {**FAILED, "state": "stopped", "reason": "2 nodes failed", "maxFailures": 2}
    logged_in.answers.clear()
    logged_in.answer("GET", "/api/v1/operations", page(OPERATION, {**stopped, "failures": 2}))
    _, running, failed = edgeplane("op", "list").out.splitlines()
    assert running.split()[6] == "3"  # of 4: one was skipped
    assert failed.split()[6] == "0"
    assert failed.endswith("2 nodes failed")
    logged_in.answer("GET", "/api/v1/operations/6", {**stopped, "failures": 2})
    assert "2 failed nodes (2 so far)" in edgeplane("op", "show", "6").out
    logged_in.answer("GET", "/api/v1/operations/5", OPERATION)
    assert "5%" in edgeplane("op", "show", "5").out
    assert json.loads(edgeplane("op", "show", "5", "--json").out) == OPERATION


def test_a_lost_answer_says_how_to_ask_again(logged_in, edgeplane):
    """With the request id that makes it safe."""
    logged_in.raw("POST", CREATE, b"", status=0)
    outcome = edgeplane("purge", "/a", "--all", "--request-id", "mine")
    assert outcome.code == 7
    assert "ask again with --request-id mine" in outcome.err


def test_the_tasks_of_an_operation_are_listed(logged_in, edgeplane):
    """By status, walked by cursor; JSON is the data."""
    path = "/api/v1/operations/5/tasks"
    failed = {**TASK, "status": "failed", "lastError": "disk full", "operationId": 5}
    logged_in.answer("GET", path, {**page(failed), "nextCursor": "b12"})
    outcome = edgeplane("op", "tasks", "5", "--status", "failed", "--page-size", "1")
    assert logged_in.requests[-1].path == f"{path}?pageSize=1&status=failed"
    assert outcome.out.splitlines()[1].endswith("disk full")
    assert "--cursor b12" in outcome.err
    assert json.loads(edgeplane("op", "tasks", "5", "--json").out)["list"] == [failed]
    logged_in.answer("GET", "/api/v1/agent-tasks/12", failed)
    assert ["operation", "5"] in map(str.split, edgeplane("task", "show", "12").out.splitlines())


def test_more_failures_than_are_named_are_a_command_away(logged_in, edgeplane):
    """The line can be pasted."""
    many = {**FAILED, "counts": {**COUNTS, "failed": 21}}
    tasks = [{**TASK, "id": n, "status": "failed", "lastError": "no"} for n in range(21)]
    logged_in.answer("GET", "/api/v1/operations/5", many)
    logged_in.answer("GET", "/api/v1/operations/5/tasks", page(*tasks))
    logged_in.answer("GET", "/api/v1/nodes/7", NODE)
    told = edgeplane("op", "watch", "5").err
    assert told.count("failed at edge-1") == 20
    assert "and 1 more: edgeplane op tasks 5 --status failed" in told


def test_a_pause_is_waited_for_until_nothing_runs(logged_in, edgeplane):
    """Not until somebody resumes; one that ended meanwhile says how."""
    path = "/api/v1/operations/5"
    paused = {**OPERATION, "state": "paused"}
    busy = {**paused, "counts": {**COUNTS, "success": 0, "pending": 1, "running": 2}}
    logged_in.answer("POST", f"{path[:-2]}/pause", busy)
    logged_in.answer("GET", path, busy)
    assert edgeplane("op", "pause", "5", "--wait-timeout", "0").code == 6
    logged_in.answer("GET", path, paused)
    outcome = edgeplane("op", "pause", "5", "--wait")
    assert outcome.code == 0
    assert "2 running" in outcome.err
    assert edgeplane("op", "watch", "5", "--wait-timeout", "0").code == 6  # waits for its end
    logged_in.answers.pop(("GET", path))
    logged_in.answer("GET", path, FAILED)
    logged_in.answer("GET", f"{path}/tasks", page())
    assert edgeplane("op", "pause", "5", "--wait").code == 1


def test_who_stops_watching_is_told_that_it_goes_on(logged_in, edgeplane, monkeypatch):
    """And how to come back to it."""
    logged_in.answer("GET", "/api/v1/operations/5", OPERATION)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeplane.client.news.News.wait", interrupt)
    outcome = edgeplane("op", "watch", "5")
    assert outcome.code == 130
    assert "operation 5 goes on; see it with: edgeplane op watch 5\n" in outcome.err
