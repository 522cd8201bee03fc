"""How the agent starts, what stops it from starting, and how it ends."""

import signal
import socket
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

HEALTH = "/agent/v1/health"


def test_the_start_is_told_in_plain_lines(launch):
    """First what it does, then where it listens, then that it does."""
    agent = launch()
    port = agent.port
    assert agent.out == (
        "Starting agent server...\n"
        "HTTP address: 127.0.0.1:0\n"
        f"Agent server running on 127.0.0.1:{port}\n"
    )
    assert agent.err == ""
    assert agent.call("GET", HEALTH)[0] == 200


def test_an_empty_host_means_every_interface(launch):
    """The address is printed as it is written in the setting."""
    agent = launch(AGENT_HTTP_ADDR=":0")
    assert f"Agent server running on :{agent.port}\n" in agent.out
    assert agent.call("GET", HEALTH)[0] == 200


def test_a_missing_token_is_made_kept_and_shown_only_as_a_file(launch):
    """The line says where it lies; the next start takes the same."""
    agent = launch(AGENT_TOKEN=None)
    file = agent.state / "agent_token"
    assert agent.port
    token = file.read_text().strip()
    assert f"Agent token: kept in {file}\n" in agent.out
    assert token not in agent.out + agent.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert agent.call("GET", HEALTH, token=token)[0] == 200
    agent.stop()
    assert launch(AGENT_TOKEN=None).call("GET", HEALTH, token=token)[0] == 200


@pytest.mark.parametrize("weak", ["test-agent-token", "short"])
def test_a_weak_token_starts_with_a_warning_of_several_lines(launch, weak):
    """It names the setting, not the token."""
    agent = launch(AGENT_TOKEN=weak)
    assert agent.call("GET", HEALTH, token=weak)[0] == 200
    assert agent.err.count("\n") >= 4
    assert "WARNING: AGENT_TOKEN is" in agent.err
    assert weak not in agent.err.replace("is shorter", "").replace("AGENT_TOKEN", "")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("AGENT_HTTP_ADDR", "nowhere"),
        ("EDGEPLANE_AGENT_EXECUTOR", "magic"),
        ("EDGEPLANE_SIMULATED_DIR", "/nowhere/at/all"),
        ("EDGEPLANE_CRASH_AT", "agent.nowhere"),
        ("EDGEPLANE_CRASH_AT", "agent.after_begin:soon"),
    ],
)
def test_a_malformed_setting_ends_the_start_with_one_line(launch, setting, value):
    """Exit 2; the line names the setting."""
    agent = launch(**{setting: value})
    assert agent.exit_code() == 2
    assert agent.err.startswith(f"edgeplane-agent: {setting}: ")
    assert agent.err.count("\n") == 1
    assert agent.out == ""


def test_options_override_the_environment(launch, tmp_path):
    """What is said on the command line counts."""
    agent = launch(
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        str(tmp_path / "other"),
        "--executor",
        "simulated",
        AGENT_HTTP_ADDR="nonsense",
        EDGEPLANE_AGENT_EXECUTOR="nonsense",
    )
    assert agent.call("GET", HEALTH)[0] == 200
    assert (tmp_path / "other" / "journal.db").exists()
    assert not agent.state.exists()


def test_a_port_that_is_taken_ends_the_start_with_one_line(launch):
    """Exit 1, and what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        agent = launch(AGENT_HTTP_ADDR=address)
        assert agent.exit_code() == 1
    assert agent.err.startswith(
        f"edgeplane-agent: AGENT_HTTP_ADDR: cannot listen on {address}: the port is taken"
    )
    assert agent.err.count("\n") == 1


def test_a_second_agent_on_the_same_folder_is_refused(launch):
    """One line, exit 1; the first goes on, and after its end the folder is free."""
    first = launch()
    assert first.port
    second = launch()
    assert second.exit_code() == 1
    assert second.err.startswith(f"edgeplane-agent: {first.state}: in use by another agent")
    assert second.err.count("\n") == 1
    assert first.call("GET", HEALTH)[0] == 200
    first.kill()
    assert launch().call("GET", HEALTH)[0] == 200


def test_a_damaged_journal_ends_the_start_with_one_line(launch):
    """It never starts empty in its place."""
    agent = launch()
    agent.execute("a")
    agent.stop()
    journal = agent.state / "journal.db"
    journal.write_bytes(b"damaged" * 1000)
    again = launch()
    assert again.exit_code() == 1
    assert again.err.startswith(f"edgeplane-agent: {journal}: the journal is damaged")
    assert again.err.count("\n") == 1
    assert journal.read_bytes() == b"damaged" * 1000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(launch, number):
    """Exit 0 at once, though a connection is open and idle."""
    agent = launch()
    with socket.create_connection(("127.0.0.1", agent.port), timeout=20) as idle:
        agent.execute("a")
        asked = time.monotonic()
        assert agent.stop(number) == 0
        assert time.monotonic() - asked < 5
        assert idle.recv(1) == b""
    assert "Traceback" not in agent.err


def test_strangers_connections_leave_it_the_files_it_needs(launch):
    """One connection too many is refused in words, and those before it are served."""
    agent = launch(before="import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (100, 100))")
    address = ("127.0.0.1", agent.port)
    body = b'{"requestId":"a","type":"reload"}'
    head = (
        f"POST /agent/v1/tasks/execute HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        f"Authorization: Bearer {agent.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(120)
        ]
        refused = opened[-1].recv(1000)
        assert refused.startswith(b"HTTP/1.1 429 ")
        opened[0].sendall(head.encode() + body)
        assert opened[0].recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_request_caught_by_the_end_is_told_to_ask_again(launch):
    """It was not complete when the end began: nothing is executed, and it is answered."""
    agent = launch()
    body = b'{"requestId":"late","type":"reload"}'
    head = (
        f"POST /agent/v1/tasks/execute HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: Bearer {agent.token}\r\nContent-Length: {len(body)}\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", agent.port), timeout=20) as connection:
        file = connection.makefile("rb")
        connection.sendall(head.encode())
        assert file.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert file.readline() == b"\r\n"
        agent.signal(signal.SIGTERM)
        agent.logged("stopping")
        connection.sendall(body)
        answer = file.read()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b'{"code":5001,"message":"the agent is stopping; ask again' in answer
    assert agent.exit_code() == 0
    assert list(agent.files.iterdir()) == []


HUNG_DISK = """
import sys, time
from edgeplane.agent import server
from edgeplane.agent.journal import Journal
from edgeplane.agent.journal_file import JournalFile

def commit(file):
    print("hangs", file=sys.stderr, flush=True)
    time.sleep(1_000_000)

JournalFile.commit = commit
server.STOP_SECONDS = 0.1
Journal.close.__defaults__ = (0.1,)
"""


def test_a_disk_that_hangs_does_not_keep_it(launch):
    """A signal ends it, with a commit that never returns; whoever waits is told to ask again."""
    agent = launch(before=HUNG_DISK)
    assert agent.port
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(agent.execute, "a")
        agent.logged("hangs")
        assert agent.stop() == 0
        status, answer = asking.result()
    assert status == 500
    assert "ask again" in answer["message"]


def test_it_stays_small(launch):
    """Tens of megabytes, before and after work."""
    agent = launch()
    assert agent.call("GET", HEALTH)[0] == 200
    for number in range(50):
        agent.execute(f"r{number}", payload='{"a":"' + "x" * 100_000 + '"}')
    assert agent.memory_kib() < 80 * 1024
