"""What a control plane can rely on, asked of a real agent through a socket.

Where it is ``each`` (or ``real``), it is asked by calling it and by answering its calls; what is
told of doors (paths, methods, tokens, bodies as a whole) is asked of those that have one.
"""

import re
import socket
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

EXECUTE = "/agent/v1/tasks/execute"
BATCH = "/agent/v1/tasks/execute-batch"
CANCEL = "/agent/v1/tasks/cancel"
HEALTH = "/agent/v1/health"


@pytest.mark.parametrize(
    ("kind", "file", "message"),
    [
        ("apply_config", "cmdb_apply_config_{}.json", "Config applied and saved to {}"),
        ("reload", "cmdb_reload_{}.txt", "Reload completed and logged to {}"),
        ("purge_cache", "cmdb_purge_cache_{}.json", "Cache purged and saved to {}"),
    ],
)
def test_each_kind_is_carried_out_and_told(real, kind, file, message):
    """Status 200, code 0, the documented message, file and log line."""
    path = real.files / file.format(f"do-{kind}")
    status, answer = real.execute(f"do-{kind}", kind)
    assert status == 200
    assert answer == {
        "code": 0,
        "message": "success",
        "data": {
            "requestId": f"do-{kind}",
            "status": "success",
            "message": message.format(path),
        },
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    real.logged(f"[SUCCESS] Task do-{kind} ({kind}) completed: {message.format(path)}\n")


def test_a_payload_arrives_with_its_order_and_its_numbers(real):
    """Neither keys nor digits are touched; the layout is two spaces deep."""
    payload = '{"vhost":"example.com","upstream":["192.168.1.1:80"],"big":1180591620717411303424}'
    real.execute("layout", payload=payload)
    assert (real.files / "cmdb_apply_config_layout.json").read_text() == (
        '{\n  "vhost": "example.com",\n  "upstream": [\n    "192.168.1.1:80"\n  ],\n'
        '  "big": 1180591620717411303424\n}'
    )


def test_a_payload_may_be_absent(real):
    """Then it is an empty object."""
    status, answer = real.execute("bare", payload=None)
    assert (status, answer["data"]["status"]) == (200, "success")
    assert (real.files / "cmdb_apply_config_bare.json").read_text() == "{}"


def test_a_repeated_request_is_answered_without_being_done_again(real):
    """The file is not touched, and the log says why."""
    first = real.execute("again")
    before = (real.files / "cmdb_apply_config_again.json").stat()
    assert real.execute("again", attempt=2) == first
    after = (real.files / "cmdb_apply_config_again.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    real.logged("[IDEMPOTENT] Request again already processed, returning cached result\n")


def test_duplicates_at_the_same_time_make_one_effect(real):
    """Everyone gets the same answer; the task is carried out once."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: real.execute("many"), range(40)))
    assert all(answer == answers[0] for answer in answers)
    assert real.err.count("[SUCCESS] Task many ") == 1


def test_a_known_id_with_another_payload_or_type_is_refused(real):
    """409, and what was done stays done."""
    real.execute("bound")
    for other in ({"payload": '{"a":2}'}, {"kind": "purge_cache"}):
        status, answer = real.execute("bound", **other)
        assert (status, answer["code"], answer["data"]) == (409, 3002, None)
        assert "bound" in answer["message"]
    assert (real.files / "cmdb_apply_config_bound.json").read_text() == '{\n  "a": 1\n}'


def test_a_request_is_bound_to_what_it_asked_and_done_once(each):
    """Asked for again, also side by side, it is answered alike; with anything else, refused."""
    before = len(each.effects())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: each.execute("once"), range(16)))
    assert all(answer == answers[0] for answer in answers)
    assert (answers[0][0], answers[0][1]["data"]["status"]) == (200, "success")
    assert each.execute("once", payload='{ "a" : 1 }', attempt=3) == answers[0]
    for other in ({"payload": '{"a":2}'}, {"kind": "purge_cache"}):
        status, answer = each.execute("once", **other)
        assert (status, answer["code"], answer["data"]) == (409, 3002, None)
        assert answer["message"] == "requestId: once was used for another type or payload"
    assert len(each.effects()) == before + 1


def test_a_failure_is_kept_until_a_higher_attempt(real):
    """What stands in the way is named; once it is gone a new attempt succeeds."""
    obstacle = real.files / "cmdb_apply_config_blocked.json"
    obstacle.mkdir()
    failure = f"failed to write file: {obstacle}: Is a directory"
    for _ in range(2):
        status, answer = real.execute("blocked", attempt=1)
        assert (status, answer["code"]) == (200, 0)
        assert answer["data"] == {"requestId": "blocked", "status": "failed", "message": failure}
    real.logged(f"[ERROR] Task blocked (apply_config) failed: {failure}\n")
    obstacle.rmdir()
    assert real.execute("blocked", attempt=1)[1]["data"]["status"] == "failed"
    assert real.execute("blocked", attempt=2)[1]["data"]["status"] == "success"
    assert obstacle.is_file()


@pytest.mark.parametrize(
    ("method", "path", "token", "status", "code"),
    [
        ("POST", EXECUTE, None, 401, 1001),
        ("POST", EXECUTE, "wrong", 401, 1001),
        ("POST", BATCH, None, 401, 1001),
        ("POST", CANCEL, None, 401, 1001),
        ("GET", BATCH, ..., 405, 2003),
        ("GET", CANCEL, ..., 405, 2003),
        ("GET", HEALTH, None, 401, 1001),
        ("GET", EXECUTE, ..., 405, 2003),
        ("POST", HEALTH, ..., 405, 2003),
        ("GET", "/", ..., 404, 3001),
        ("POST", EXECUTE + "/", ..., 404, 3001),
    ],
)
def test_every_refusal_is_an_envelope(either, method, path, token, status, code):
    """Whichever door was tried."""
    shown = either.token if token is ... else token
    got, _, answer = either.call(method, path, "{}" if method == "POST" else None, token=shown)
    assert (got, answer["code"], answer["data"]) == (status, code, None)
    assert set(answer) == {"code", "message", "data"}
    assert answer["message"]


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ("not json", 400, 2002, "body"),
        ('{"type":"reload"}', 400, 2001, "requestId"),
        ('{"requestId":"a"}', 400, 2001, "type"),
        ('{"requestId":"","type":"reload"}', 400, 2001, "requestId"),
        ('{"requestId":"a","type":"reboot"}', 400, 2002, "type"),
        ('{"requestId":"../a","type":"reload"}', 400, 2002, "requestId"),
        ('{"requestId":"a","type":"reload","payload":[]}', 400, 2002, "payload"),
        ('{"requestId":"a","type":"reload","other":1}', 400, 2002, "other"),
        ('{"requestId":"a","type":"reload","attempt":0}', 400, 2003, "attempt"),
        ('{"requestId":"a","type":"reload","timeoutSeconds":9999}', 400, 2003, "timeoutSeconds"),
        (b'{"requestId":"a","type":"reload","payload":{"k":"\xff"}}', 400, 2002, "body"),
        (
            '{"requestId":"a","type":"reload","payload":' + '{"a":' * 100 + "1" + "}" * 101,
            400,
            2002,
            "payload",
        ),
        (
            '{"requestId":"a","type":"reload","payload":' + '{"a":' * 20000 + "1" + "}" * 20001,
            400,
            2002,
            "body",
        ),
        (b" " * (2 << 20), 413, 2003, "body"),
    ],
)
def test_a_bad_request_is_refused_by_field_and_leaves_nothing(either, body, status, code, field):
    """The next request is served as if it had not been."""
    before = either.effects()
    got, _, answer = either.call("POST", EXECUTE, body)
    assert (got, answer["code"]) == (status, code)
    assert answer["message"].startswith(f"{field}: ")
    assert either.effects() == before
    assert either.call("GET", HEALTH)[0] == 200


def test_a_stale_epoch_is_refused(each):
    """An owner that lost the node can do nothing more there; of another node nothing is said."""
    before = len(each.effects())
    assert each.execute("epoch-1", nodeId=3, epoch=7)[0] == 200
    status, answer = each.execute("epoch-2", nodeId=3, epoch=6)
    assert (status, answer["code"]) == (409, 3003)
    assert answer["message"] == "stale epoch 6 for node 3: this agent follows 7"
    assert len(each.effects()) == before + 1
    assert each.execute("epoch-3", nodeId=4, epoch=6)[0] == 200


def test_a_batch_answers_each_task_for_itself(real):
    """In the order asked; a refusal has the code and the status it would have had alone."""
    real.execute("batch-known", nodeId=5, epoch=7, generation=9)
    status, answer = real.execute_batch(
        {"requestId": "batch-new"},
        {"requestId": "batch-known"},
        {"requestId": "batch-known", "payload": {}, "attempt": 2},
        {"requestId": "batch-stale", "nodeId": 5, "epoch": 6},
        {"requestId": "batch-old", "nodeId": 5, "generation": 8},
        {"requestId": "batch-new"},
    )
    assert (status, answer["code"], answer["message"]) == (200, 0, "success")
    done = [
        {
            "requestId": name,
            "status": "success",
            "message": f"Config applied and saved to {real.files}/cmdb_apply_config_{name}.json",
        }
        for name in ("batch-new", "batch-known")
    ]
    assert answer["data"] == {
        "results": [
            *done,
            {
                "requestId": "batch-known",
                "httpStatus": 409,
                "code": 3002,
                "error": "requestId: batch-known was used for another type or payload",
            },
            {
                "requestId": "batch-stale",
                "httpStatus": 409,
                "code": 3003,
                "error": "stale epoch 6 for node 5: this agent follows 7",
            },
            {
                "requestId": "batch-old",
                "httpStatus": 409,
                "code": 3003,
                "error": "generation: 8 is older than 9, which this agent has begun for node 5",
                "data": {"begunGeneration": 9},
            },
            done[0],
        ]
    }
    assert real.err.count("[SUCCESS] Task batch-new ") == 1
    real.logged("[IDEMPOTENT] Request batch-known already processed, returning cached result\n")


def test_a_malformed_task_refuses_its_whole_batch(either):
    """It is named by its place, and nothing is done."""
    before = either.effects()
    status, answer = either.execute_batch(
        *({"requestId": f"good{number}"} for number in range(3)),
        {"requestId": "bad", "type": "reboot"},
    )
    assert (status, answer["code"], answer["data"]) == (400, 2002, None)
    assert answer["message"].startswith("tasks[3].type: must be one of ")
    assert either.effects() == before


def test_a_malformed_task_of_a_reply_is_refused_alone(caller):
    """In the words it would have had at the door; what came with it is carried out."""
    before = len(caller.effects())
    kind = {"requestId": "odd-kind", "type": "reboot"}
    payload = {"requestId": "odd-payload", "payload": [1]}
    first, odd, other, last = caller.execute_batch(
        {"requestId": "even"}, kind, payload, {"requestId": "even-too"}
    )[1]["data"]["results"]
    assert (first["status"], last["status"]) == ("success", "success")
    assert [(one["httpStatus"], one["code"]) for one in (odd, other)] == [(400, 2002)] * 2
    assert odd["error"].startswith("type: must be one of ")
    assert other["error"].startswith("payload: ")
    assert len(caller.effects()) == before + 2


def test_a_batch_of_a_hundred_is_answered_at_once(each):
    """Each task has its own effect, and its own result in the order asked."""
    before = len(each.effects())
    tasks = [{"requestId": f"hundred{number}", "type": "purge_cache"} for number in range(100)]
    status, answer = each.execute_batch(*tasks)
    results = answer["data"]["results"]
    assert status == 200
    assert [result["requestId"] for result in results] == [task["requestId"] for task in tasks]
    assert {result["status"] for result in results} == {"success"}
    assert len(each.effects()) == before + 100


def test_a_batch_has_its_bounds(either):
    """In tasks and in bytes; past them nothing is done."""
    before = either.effects()
    tasks = [{"requestId": f"more{number}", "type": "purge_cache"} for number in range(101)]
    status, answer = either.execute_batch(*tasks)
    assert (status, answer["code"]) == (400, 2003)
    assert answer["message"] == "tasks: must have a length of at most 100"
    big = [{"requestId": f"big{number}", "payload": {"a": "x" * 600_000}} for number in range(2)]
    status, answer = either.execute_batch(*big)
    assert (status, answer["code"]) == (413, 2003)
    assert either.effects() == before


def test_an_outdated_generation_is_refused_and_marked(each):
    """409 as for a stale epoch; the data says that the task itself is past."""
    assert each.execute("gen-7", nodeId=4, generation=7)[0] == 200
    assert each.execute("gen-7-again", nodeId=4, generation=7)[0] == 200
    status, answer = each.execute("gen-5", nodeId=4, generation=5)
    assert (status, answer) == (
        409,
        {
            "code": 3003,
            "message": "generation: 5 is older than 7, which this agent has begun for node 4",
            "data": {"begunGeneration": 7},
        },
    )
    assert not any("gen-5" in str(effect) for effect in each.effects())


def test_a_cancel_says_how_the_request_stands(each):
    """One that has ended is done; one that arrives afterwards does nothing; epochs fence it."""
    each.execute("cancel-late")
    status, answer = each.cancel("cancel-late")
    assert (status, answer) == (
        200,
        {
            "code": 0,
            "message": "success",
            "data": {"requestId": "cancel-late", "state": "done"},
        },
    )
    assert each.cancel("cancel-early", nodeId=6, epoch=2)[1]["data"]["state"] == "unknown"
    status, answer = each.execute("cancel-early", nodeId=6, epoch=2)
    assert (status, answer["data"]) == (
        200,
        {
            "requestId": "cancel-early",
            "status": "failed",
            "message": "cancelled before it took effect",
        },
    )
    assert not any("cancel-early" in str(effect) for effect in each.effects())


def test_a_cancel_of_a_past_owner_changes_nothing(each):
    """Who calls is refused; who answers calls hears nothing of it. The request is carried out."""
    assert each.execute("owned", nodeId=8, epoch=2)[0] == 200
    answer = each.cancel("owned-too", nodeId=8, epoch=1)
    if answer is not None:
        assert (answer[0], answer[1]["code"], answer[1]["data"]) == (409, 3003, None)
    assert each.execute("owned-too", nodeId=8, epoch=2)[1]["data"]["status"] == "success"


def test_a_malformed_cancel_is_refused_by_field(either):
    """As an execution is."""
    status, _, answer = either.call("POST", CANCEL, '{"requestId":"a","why":"no"}')
    assert (status, answer["message"]) == (400, "why: unknown field")


def test_a_symlink_in_the_files_place_leads_nowhere(real, tmp_path):
    """It is replaced; its target is not written."""
    target = tmp_path / "target"
    link = real.files / "cmdb_apply_config_link.json"
    link.symlink_to(target)
    assert real.execute("link")[1]["data"]["status"] == "success"
    assert not target.exists()
    assert not link.is_symlink()


def test_nothing_a_client_sends_forges_a_log_line(agent):
    """Every line of the log begins the way lines do, and none tells of the forged task."""
    forged = "x\\n2026-01-01T00:00:00.000Z INFO [SUCCESS] Task forged (reload) completed: yes"
    for body in (
        f'{{"requestId":"{forged}","type":"reload"}}',
        f'{{"requestId":"a","type":"{forged}"}}',
        f'{{"requestId":"a","type":"reload","{forged}":1}}',
    ):
        assert agent.call("POST", EXECUTE, body)[0] == 400
    agent.execute("after-forgery", payload='{"a":"\\n[SUCCESS] Task forged"}')
    agent.logged("[SUCCESS] Task after-forgery ")
    assert "forged" not in agent.err
    words = r"(\[[A-Z]+\] |request [\w.-]+ was to be cancelled: \w+$)"
    line = re.compile(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z (INFO|ERROR) {words}")
    assert [text for text in agent.err.splitlines() if not line.match(text)] == []


def test_a_connection_is_kept_and_what_is_no_http_is_refused_on_it(either):
    """One socket, two requests, then nonsense."""
    with socket.create_connection((either.host, either.port), timeout=20) as connection:
        file = connection.makefile("rb")
        for _ in range(2):
            head = (
                f"GET {HEALTH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {either.token}\r\n\r\n"
            )
            connection.sendall(head.encode())
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
            length = next(int(row[15:]) for row in file if row.startswith(b"content-length:"))
            while file.readline() != b"\r\n":
                pass
            assert file.read(length).startswith(b'{"code":0,')
        connection.sendall(b"nonsense\r\n\r\n")
        assert file.readline() == b"HTTP/1.1 400 Bad Request\r\n"
        assert b'{"code":2002,' in file.read()


def test_health_tells_how_the_agent_is(either):
    """Version, uptime, journal, executor, and what is running."""
    before = either.call("GET", HEALTH)[2]["data"]
    either.execute("one-more")
    after = either.call("GET", HEALTH)[2]["data"]
    assert set(after) == {
        "version",
        "uptimeSeconds",
        "journalEntries",
        "journalBytes",
        "executor",
        "running",
    }
    assert after["journalEntries"] == before["journalEntries"] + 1
    assert after["journalBytes"] > 0
    assert after["uptimeSeconds"] > before["uptimeSeconds"]
    assert (after["executor"], after["running"]) == ("simulated", [])


def test_the_token_is_nowhere_to_be_read(agent):
    """Neither in what it prints nor in what it logs."""
    agent.call("GET", HEALTH)
    assert agent.token not in agent.out + agent.err
