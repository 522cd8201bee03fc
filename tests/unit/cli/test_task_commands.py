"""``edgeplane task``: what is sent, what is shown, and how waiting ends."""

import json

import pytest

from unit.cli.fake_api import NODE, TASK, page

ENDED = {**TASK, "status": "success", "attempts": 1, "result": "Reload completed"}
FAILED = {**TASK, "status": "failed", "attempts": 2, "lastError": "nginx -t: no"}
LATER = {**FAILED, "nextRetryAt": "2026-01-23T10:00:05.000Z"}


@pytest.fixture
def created(logged_in):
    """Return a control plane that creates task 12."""
    logged_in.answer("POST", "/api/v1/agent-tasks/create", TASK)
    return logged_in


def test_create_sends_what_was_asked(created, edgeplane):
    """Every option reaches the body under the API's name, and the payload unchanged."""
    payload = '{"z": 1, "a": 9007199254740993}'
    outcome = edgeplane(
        *("task", "create", "--node", "7", "--type", "apply_config", "--payload", payload),
        *("--request-id", "r-1", "--timeout", "5", "--max-attempts", "1", "--deadline", "60"),
    )
    assert outcome.code == 0
    assert created.requests[-1].json == {
        "nodeId": 7,
        "type": "apply_config",
        "payload": json.loads(payload),
        "requestId": "r-1",
        "timeoutSeconds": 5,
        "maxAttempts": 1,
        "deadlineSeconds": 60,
    }
    assert payload.encode() in created.requests[-1].body
    assert "pending" in outcome.out


def test_create_finds_the_node_by_name(created, edgeplane):
    """A name is looked up, and only the very same name counts."""
    created.answer("GET", "/api/v1/nodes", page({**NODE, "id": 9, "name": "edge-10"}, NODE))
    assert edgeplane("task", "create", "--node", "edge-1", "--type", "reload").code == 0
    assert created.requests[-1].json["nodeId"] == 7
    outcome = edgeplane("task", "create", "--node", "edge-2", "--type", "reload")
    assert (outcome.code, outcome.err) == (4, "edgeplane: no node is named 'edge-2'\n")


def test_create_makes_a_request_id(created, edgeplane):
    """Without an id one is made, so that a lost answer can be asked for again."""
    edgeplane("task", "create", "--node", "7", "--type", "reload")
    edgeplane("task", "create", "--node", "7", "--type", "reload")
    first, second = (request.json["requestId"] for request in created.requests)
    assert first != second


def test_a_lost_answer_says_how_to_ask_again(logged_in, edgeplane):
    """When the answer to create is lost, the line names the id that makes asking again safe."""
    logged_in.raw("POST", "/api/v1/agent-tasks/create", b"", status=0)
    outcome = edgeplane("task", "create", "--node", "7", "--type", "reload")
    assert outcome.code == 7
    assert f"--request-id {logged_in.requests[0].json['requestId']}" in outcome.err


def test_a_payload_comes_from_a_file_or_from_standard_input(created, edgeplane, tmp_path):
    """``@file`` is read; its bytes are sent as they are."""
    (tmp_path / "payload.json").write_text('{ "urls": ["/a"] }')
    options = ("task", "create", "--node", "7", "--type", "purge_cache")
    assert edgeplane(*options, "--payload", f"@{tmp_path}/payload.json").code == 0
    assert b'{ "urls": ["/a"] }' in created.requests[-1].body


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("[1]", "must be a JSON object"),
        ("{", "must be a JSON object"),
        ('{"a":1} x', "must be a JSON object"),
        ("@/nowhere/at/all", "cannot be read"),
        ('{"a":"' + "x" * (1 << 20) + '"}', "larger than"),
    ],
)
def test_a_payload_that_cannot_be_is_refused_here(logged_in, edgeplane, payload, why):
    """What the server would refuse anyway is refused before anything is sent."""
    outcome = edgeplane("task", "create", "--node", "7", "--type", "reload", "--payload", payload)
    assert outcome.code == 2
    assert why in outcome.err
    assert logged_in.requests == []


def test_waiting_shows_progress_and_the_outcome(created, edgeplane):
    """Progress goes to standard error, the outcome to standard output and the exit code."""
    for state in (TASK, LATER, ENDED):
        created.answer("GET", "/api/v1/agent-tasks/12", state)
    outcome = edgeplane("task", "create", "--node", "7", "--type", "reload", "--wait")
    assert outcome.code == 0
    assert outcome.err.splitlines() == [
        "task 12: pending",
        "task 12: failed, attempt 2, next try at 2026-01-23T10:00:05.000Z: nginx -t: no",
        "task 12: success, attempt 1: Reload completed",
    ]
    assert "Reload completed" in outcome.out


def test_waiting_for_a_failure_is_exit_code_one(created, edgeplane):
    """A task that failed for good ends the wait with 1, and standard output holds it."""
    created.answer("GET", "/api/v1/agent-tasks/12", FAILED)
    outcome = edgeplane("task", "create", "--node", "7", "--type", "reload", "--wait", "--json")
    assert outcome.code == 1
    assert "for good: nginx -t: no" in outcome.err
    assert json.loads(outcome.out) == FAILED


def test_waiting_no_longer_than_asked_is_exit_code_six(created, edgeplane):
    """When the time has passed, the exit code tells it apart from failure."""
    created.answer("GET", "/api/v1/agent-tasks/12", TASK)
    options = ("--wait-timeout", "0.1", "--json")
    outcome = edgeplane("task", "create", "--node", "7", "--type", "reload", *options)
    assert outcome.code == 6
    assert json.loads(outcome.out) == TASK


def test_retry_and_watch_wait_the_same_way(logged_in, edgeplane):
    """Retry can wait, watch always does."""
    logged_in.answer("POST", "/api/v1/agent-tasks/retry", TASK)
    logged_in.answer("GET", "/api/v1/agent-tasks/12", ENDED)
    assert edgeplane("task", "retry", "12").out.splitlines()[3].split() == ["status", "pending"]
    assert logged_in.requests[-1].json == {"id": 12}
    assert edgeplane("task", "retry", "12", "--wait").code == 0
    assert edgeplane("task", "watch", "12").err == "task 12: success, attempt 1: Reload completed\n"


def test_a_task_is_cancelled(logged_in, edgeplane):
    """What made way or was taken back has ended, and not as it was asked for."""
    gone = {**TASK, "status": "cancelled", "lastError": "cancelled", "cancelRequested": True}
    logged_in.answer("POST", "/api/v1/agent-tasks/cancel", gone)
    logged_in.answer("GET", "/api/v1/agent-tasks/12", gone)
    assert edgeplane("task", "cancel", "12").code == 0
    assert logged_in.requests[-1].json == {"id": 12}
    waited = edgeplane("task", "cancel", "12", "--wait")
    assert (waited.code, waited.err) == (1, "task 12: cancelled: cancelled\n")
    made_way = {**TASK, "status": "superseded", "supersededBy": 13}
    logged_in.answer("GET", "/api/v1/agent-tasks/12", made_way)
    assert edgeplane("task", "watch", "12").err == "task 12: superseded by task 13\n"


def test_a_watch_tells_that_a_cancel_was_asked_for(logged_in, edgeplane):
    """While the attempt is still out."""
    running = {**TASK, "status": "running", "attempts": 1}
    for seen in (running, running, {**running, "cancelRequested": True}, ENDED):
        logged_in.answer("GET", "/api/v1/agent-tasks/12", seen)
    assert edgeplane("task", "watch", "12").err.splitlines() == [
        "task 12: running, attempt 1",
        "task 12: running, attempt 1, to be cancelled",
        "task 12: success, attempt 1: Reload completed",
    ]


def test_the_log_shows_each_attempt(logged_in, edgeplane):
    """When, where to, by whom, how it ended, and what was captured; nothing steers the terminal."""
    out = {
        "number": 2,
        "begunAt": "2026-01-23T10:00:05.000Z",
        "endedAt": None,
        "outcome": None,
        "message": None,
        "output": None,
        "replica": "a-replica",
        "address": None,
    }
    ended = {
        **out,
        "number": 1,
        "endedAt": "2026-01-23T10:00:06.250Z",
        "outcome": "failed",
        "message": "nginx -t: no\x1b[2J",
        "output": "line one\n\nline\x1b[2J two\n",
        "address": "192.0.2.7:9090",
    }
    data = {**page(out, ended), "nextCursor": "b1"}
    logged_in.answer("GET", "/api/v1/agent-tasks/12/attempts", data)
    shown = edgeplane("task", "log", "12", "--page-size", "2")
    assert logged_in.requests[-1].path.endswith("/agent-tasks/12/attempts?pageSize=2")
    assert shown.out.splitlines() == [
        "attempt 2: out now",
        "  begun    2026-01-23T10:00:05.000Z",
        "  ended    -",
        "  address  -",
        "  replica  a-replica",
        "  message  -",
        "",
        "attempt 1: failed after 1.250 s",
        "  begun    2026-01-23T10:00:05.000Z",
        "  ended    2026-01-23T10:00:06.250Z",
        "  address  192.0.2.7:9090",
        "  replica  a-replica",
        "  message  nginx -t: no\\x1b[2J",
        "  | line one",
        "  |",
        "  | line\\x1b[2J two",
    ]
    assert shown.err == "more with --cursor b1\n"
    assert json.loads(edgeplane("task", "log", "12", "--json").out) == data


def test_a_task_that_was_never_sent_has_an_empty_log(logged_in, edgeplane):
    """It is said, and is no failure."""
    logged_in.answer("GET", "/api/v1/agent-tasks/12/attempts", page())
    shown = edgeplane("task", "log", "12")
    assert (shown.code, shown.out, shown.err) == (0, "", "task 12: no attempt has begun\n")


def test_a_list_is_a_table(logged_in, edgeplane):
    """Rows are aligned; what an agent wrote cannot steer the terminal."""
    evil = {**FAILED, "id": 3, "lastError": "\x1b[2Jgone\nforged\u202e"}
    logged_in.answer("GET", "/api/v1/agent-tasks", {**page(TASK, evil), "nextCursor": "b3"})
    outcome = edgeplane("task", "list", "--node", "7", "--status", "failed", "--type", "reload")
    assert logged_in.requests[-1].path.endswith("?nodeId=7&type=reload&status=failed")
    head, first, second = outcome.out.splitlines()
    assert head.split()[:4] == ["ID", "NODE", "TYPE", "STATUS"]
    assert head.index("STATUS") == first.index("pending") == second.index("failed")
    assert "\\x1b[2Jgone\\nforged\\u202e" in second
    assert outcome.err == "more with --cursor b3\n"


def test_json_is_the_data_of_the_api(logged_in, edgeplane):
    """With --json the answer's data is printed whole, keys this version does not know included."""
    data = {**page(TASK), "newKey": 12345678901234567890123}
    logged_in.answer("GET", "/api/v1/agent-tasks", data)
    outcome = edgeplane("task", "list", "--json")
    assert json.loads(outcome.out) == data
    assert outcome.err == ""
    assert edgeplane("--json", "task", "list").out == outcome.out
