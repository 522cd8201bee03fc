"""An agent that connects out, as a process, against a control plane that answers as scripted."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kit.ports import free_port
from kit.processes import AGENT_TOKEN as TOKEN
from kit.sync_control import SyncControl, task

NODE = "edge-1"

#: On a machine that is busy with other tests a fast task may take more than a moment.
LONG_MOMENT = "from edgeplane.agent import syncing; syncing.MOMENT_SECONDS = 10.0"


@pytest.fixture
def control():
    """Make a control plane on loopback; at the end the agent must have kept to the protocol."""
    made = SyncControl()
    yield made
    made.close()


@pytest.fixture
def connect(launch, control):
    """Return a function that starts an agent which connects out to it."""

    def start(*arguments, **environment):
        usual = {
            "EDGEPLANE_CONTROL": control.url,
            "EDGEPLANE_NODE": NODE,
            "before": LONG_MOMENT,
        }
        return launch(*arguments, **{**usual, **environment})

    return start


def _success(request_id, path, words="Reload completed and logged to"):
    return {"requestId": request_id, "status": "success", "message": f"{words} {path}"}


def test_the_start_is_told_in_plain_lines(connect, control):
    """First what it does, then where it connects to; that it runs, once it is known there."""
    agent = connect()
    first = control.next()
    assert agent.out == f"Starting agent server...\nControl plane: {control.url}, node {NODE}\n"
    first.reply()
    second = control.next()
    agent.logged(f"INFO connected to control plane {control.url}\n")
    assert agent.out.splitlines()[2:] == [f"Agent running as node {NODE} (id 7)"]
    assert (first.request.node, first.request.exchange, first.request.again) == (NODE, 1, False)
    assert first.request.version
    assert second.request.session == first.request.session
    assert second.number == first.number  # on the same connection
    second.reply()
    control.next()
    assert agent.err.count("connected") == 1
    assert agent.out.count("\n") == 3


def test_options_override_the_environment(launch, control):
    """What is said on the command line counts."""
    agent = launch("--control", control.url, "--node", "other", EDGEPLANE_CONTROL="nonsense")
    assert control.next().request.node == "other"
    assert "node other\n" in agent.out


def test_the_machines_name_is_the_nodes_unless_set(connect, control):
    """So that an image of a machine needs no setting of its own."""
    connect(EDGEPLANE_NODE=None)
    assert control.next().request.node == os.uname().nodename


def test_a_fast_task_costs_one_exchange(connect, control):
    """Its result comes with the next exchange, on the same connection."""
    agent = connect()
    for number in range(5):
        name = f"r{number}"
        control.next().reply(task(name, attempt=3, nodeId=7, epoch=1))
        told = control.next()
        made = agent.files / f"cmdb_reload_{name}.txt"
        assert told.results == [(3, _success(name, made))]
        assert made.exists()
        told.reply(acknowledged=[(name, 3)])
    assert control.next().results == []
    assert control.connections == 1


def test_many_tasks_are_told_together(connect, control):
    """A hundred at once, each with its result, and none twice."""
    agent = connect()
    control.next().reply(*(task(f"r{number}") for number in range(100)))
    told = set()
    while len(told) < 100:
        exchange = control.next()
        told |= set(exchange.told)
        exchange.reply(acknowledged=[(name, 1) for name in exchange.told])
    assert len(list(agent.files.iterdir())) == 100


def test_a_killed_agent_answers_from_its_journal(connect, control):
    """Asked again in its new session, it makes no effect twice."""
    first = connect()
    control.next().reply(task("r1"))
    before = control.next()
    made = first.files / "cmdb_reload_r1.txt"
    seen = made.stat().st_mtime_ns, made.stat().st_ino
    first.kill()
    before.wait_until_gone()
    second = connect()
    exchange = control.next()
    assert exchange.request.session != before.request.session
    assert (exchange.request.exchange, exchange.request.again) == (1, False)
    assert exchange.results == []
    exchange.reply(task("r1"))
    again = control.next()
    assert again.results == before.results
    assert (made.stat().st_mtime_ns, made.stat().st_ino) == seen
    second.logged("[IDEMPOTENT] Request r1 already processed, returning cached result\n")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{"])
def test_a_lost_connection_is_made_anew_and_says_so(connect, control, said):
    """The reply is lost: all is to be sent again, and what was told is told again."""
    agent = connect()
    control.next().reply(task("r1"))
    told = control.next()
    told.hang_up(said)
    again = control.next()
    assert again.request.again
    assert again.request.session == told.request.session
    assert again.results == told.results
    again.reply(task("r1"), acknowledged=[])
    kept = control.next()
    assert (kept.results, kept.request.again) == (told.results, False)
    kept.reply(acknowledged=[("r1", 1)])
    assert control.next().results == []
    words = f"WARNING control plane {control.url} lost: connection closed before an answer\n"
    agent.logged(words)
    assert agent.err.count("[SUCCESS]") == 1
    assert agent.err.count("connected to control plane") == 2


def test_a_control_plane_that_comes_later_is_found(launch):
    """It is tried until it is there, and said once that it is not."""
    port = free_port()
    agent = launch(EDGEPLANE_CONTROL=f"http://127.0.0.1:{port}", EDGEPLANE_NODE=NODE)
    agent.logged(f"WARNING control plane http://127.0.0.1:{port} cannot be reached: ")
    control = SyncControl(port)
    try:
        assert control.next().request.exchange > 1
        assert agent.err.count("cannot be reached") == 1
    finally:
        agent.kill()
        control.close()


def test_the_next_control_plane_is_tried_where_one_is_dead(connect, control):
    """Both are named at the start; what is told to the second is what the first would have had."""
    dead = f"http://127.0.0.1:{free_port()}"
    agent = connect(EDGEPLANE_CONTROL=f"{dead}, {control.url}")
    control.next().reply(task("r1"))
    assert control.next().told == ["r1"]
    assert agent.out.splitlines()[1:3] == [
        f"Control plane: {dead}, node {NODE}",
        f"Control plane: {control.url}, node {NODE}",
    ]
    agent.logged(f"control plane {dead} cannot be reached: ")


def test_it_listens_nowhere(connect, control):
    """No socket of its process is one that others can connect to."""
    agent = connect(AGENT_HTTP_ADDR=f"127.0.0.1:{free_port()}")
    control.next().reply()
    control.next()
    pid = agent._process.pid
    links = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
    assert inodes
    listening, connected = set(), set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            (listening if fields[3] == "0A" else connected).add(fields[9])
    assert inodes & connected
    assert not inodes & listening


def test_an_idle_agent_ends_at_once(connect, control):
    """Nothing is to be told: no last exchange, exit 0."""
    agent = connect()
    control.next().reply()
    held = control.next()
    asked = time.monotonic()
    agent.signal(signal.SIGTERM)
    held.wait_until_gone()
    assert agent.exit_code() == 0
    assert time.monotonic() - asked < 5
    assert control.none_waits()
    assert "Traceback" not in agent.err


SLOW = """
import time
from pathlib import Path
from edgeplane.agent.executors.simulated import SimulatedExecutor

inner = SimulatedExecutor.execute

def execute(executor, request, permit):
    while not Path("go").exists():
        time.sleep(0.005)
    return inner(executor, request, permit)

SimulatedExecutor.execute = execute
"""


def test_what_runs_when_it_is_stopped_is_told_in_a_last_exchange(connect, control, tmp_path):
    """SIGTERM: nothing more is taken, what runs ends, and its result arrives."""
    agent = connect(before=SLOW)
    control.next().reply(task("r1"))
    held = control.next()
    agent.signal(signal.SIGTERM)
    held.wait_until_gone()
    (tmp_path / "go").touch()
    last = [control.next(), control.next()]
    last.sort(key=lambda exchange: exchange.request.exchange)
    made = agent.files / "cmdb_reload_r1.txt"
    assert last[0].results == [(1, _success("r1", made))]
    assert (last[0].request.again, last[1].results) == (False, [])
    last[0].reply(task("r2"))  # what comes now is not begun
    last[1].wait_until_gone()
    assert agent.exit_code() == 0
    assert [file.name for file in agent.files.iterdir()] == [made.name]


def test_a_control_plane_that_is_away_does_not_keep_it(connect, control, tmp_path):
    """The last exchange has its time, and no more."""
    agent = connect(before=SLOW)
    control.next().reply(task("r1"))
    held = control.next()
    agent.signal(signal.SIGTERM)
    held.wait_until_gone()
    (tmp_path / "go").touch()
    control.next()  # held for ever
    assert agent.exit_code() == 0
    assert (agent.files / "cmdb_reload_r1.txt").exists()


@pytest.mark.parametrize("point", ["agent.before_tell", "agent.after_tell"])
def test_an_agent_killed_while_it_tells_makes_one_effect(connect, control, point):
    """The result is in the journal: asked again it is told, and nothing is made again."""
    dying = connect(EDGEPLANE_CRASH_AT=point)
    control.next().reply(task("r1"))
    if point == "agent.after_tell":
        control.next().reply()
    assert dying.exit_code() == -signal.SIGKILL
    made = dying.files / "cmdb_reload_r1.txt"
    seen = made.stat().st_mtime_ns, made.stat().st_ino
    agent = connect()
    control.next().reply(task("r1"))
    assert control.next().results == [(1, _success("r1", made))]
    assert (made.stat().st_mtime_ns, made.stat().st_ino) == seen
    agent.logged("[IDEMPOTENT] Request r1")


def _certificate(folder, *names):
    file, key = folder / "control.crt", folder / "control.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=control", "-addext", f"subjectAltName={','.join(names)}"]
    command += ["-keyout", str(key), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + file.read_bytes())
    return both, file


@pytest.mark.parametrize(
    ("trusted", "name", "words"),
    [
        (False, "IP:127.0.0.1", "self-signed certificate"),
        (True, "DNS:elsewhere.example", "IP address mismatch"),
    ],
)
def test_a_bad_certificate_is_refused(launch, tmp_path, trusted, name, words):
    """Nothing is sent, above all no token; the log says why."""
    both, file = _certificate(tmp_path, name)
    control = SyncControl(certificate=both)
    environment = {"SSL_CERT_FILE": str(file)} if trusted else {}
    agent = launch(EDGEPLANE_CONTROL=control.url, EDGEPLANE_NODE=NODE, **environment)
    try:
        line = f"control plane {control.url} cannot be reached: its certificate is not trusted"
        agent.logged(line)
        agent.logged(words)
        assert control.connections == 0 or control.none_waits()
    finally:
        agent.kill()
        control.close()


def test_https_with_a_trusted_certificate(launch, tmp_path):
    """All the same over TLS, on one connection; a second one where it is needed."""
    both, file = _certificate(tmp_path, "IP:127.0.0.1")
    control = SyncControl(certificate=both)
    agent = launch(
        EDGEPLANE_CONTROL=control.url, EDGEPLANE_NODE=NODE, SSL_CERT_FILE=str(file), before=SLOW
    )
    try:
        control.next().reply(task("r1", payload={"a": "x" * 500_000}))
        held = control.next()
        (tmp_path / "go").touch()
        newer = control.next()
        assert newer.told == ["r1"]
        assert newer.number != held.number
        held.reply()
        newer.reply(acknowledged=[("r1", 1)])
        assert control.next().told == []
        assert control.connections == 2
    finally:
        agent.kill()
        control.close()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("control.example.com:8081", "control.example.com:8081"),
        ("ftp://control.example.com", "ftp://control.example.com"),
        ("http://good, http://control.example.com/path", "http://control.example.com/path"),
        ("https://me:word@control.example.com", "https://...@control.example.com"),
        ("http://control.example.com:0", "http://control.example.com:0"),
    ],
)
def test_a_malformed_url_ends_the_start_with_one_line(launch, value, shown):
    """Exit 2; the line names the setting and the URL, without what may be a password."""
    agent = launch("--control", value)
    assert agent.exit_code() == 2
    assert agent.err.startswith("edgeplane-agent: EDGEPLANE_CONTROL: must look like https://")
    assert agent.err.endswith(f"not {shown!r}\n")
    assert agent.err.count("\n") == 1
    assert agent.out == ""


def test_without_a_token_the_start_ends_with_where_to_find_one(connect, tmp_path):
    """One made up would be nobody's; one that was kept is taken."""
    agent = connect(AGENT_TOKEN=None)
    assert agent.exit_code() == 2
    assert agent.err.startswith("edgeplane-agent: AGENT_TOKEN: must be the control plane's")
    assert "agent_token of that one's state folder" in agent.err
    assert agent.err.count("\n") == 1
    assert not (agent.state / "agent_token").exists()


def test_a_token_that_is_kept_is_taken(connect, control, tmp_path):
    """Copied into the state folder it does as well as in a setting."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "agent_token").write_text(f"{TOKEN}\n")
    connect(AGENT_TOKEN=None)
    assert control.next().request.node == NODE


@pytest.mark.parametrize(
    "arguments", [("--listen", ":0", "--control", "http://a"), ("--listen", ":0")]
)
def test_to_listen_and_to_connect_out_exclude_each_other(launch, arguments):
    """A usage error, whether the control plane comes from an option or the environment."""
    agent = launch(*arguments, EDGEPLANE_CONTROL="http://a")
    assert agent.exit_code() == 2
    assert "it listens or connects out, not both" in agent.err


def test_a_weak_token_is_warned_of_in_words_that_fit(connect, control):
    """There is no port to reach it on."""
    agent = connect(AGENT_TOKEN="short")
    agent.logged("speak for this node")
    agent.kill()
    control.faults.clear()  # the scripted control plane expects another token
