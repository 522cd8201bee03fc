"""``edgeplane up``: the whole on one machine, with real processes."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgeplane.cli import local
from edgeplane.cli.exits import Stop
from edgeplane.cli.local import Keys, Place
from edgeplane.environ import ListenAddress
from kit.ports import free_port
from kit.waiting import until
from unit.cli.real_processes import Up, alive

pytest.importorskip("fastapi", reason="needs the server extra")


@pytest.fixture
def up(tmp_path):
    """Return a function that starts ``edgeplane up``; whatever it started is gone at the end."""
    started = []

    def start(*options, **env):
        ports = (
            *("--listen", f"127.0.0.1:{free_port()}"),
            *("--agent-listen", f"127.0.0.1:{free_port()}"),
        )
        started.append(Up(tmp_path / "folder", *(options or ports), **env))
        return started[-1]

    yield start
    for each in started:
        each.close()


#: Where ``up`` keeps the tables, as the page on operations says it.
_STORE = {"EDGEPLANE_STATE_DIR": ".state/control"}


def _edgeplane(folder, *arguments, **env):
    done = subprocess.run(
        [sys.executable, "-m", "edgeplane", *arguments],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_from_nothing_to_a_first_task(up, tmp_path, monkeypatch):
    """One command, and a task runs from another terminal; one signal, and all is gone."""
    monkeypatch.setenv("MYSQL_DSN", "root:password@tcp(192.0.2.1:3306)/elsewhere")
    (tmp_path / "folder" / ".env").write_text("MYSQL_DSN=nonsense\nHTTP_ADDR=nonsense\n")
    first = up()
    first.wait_for("Ctrl-C stops it.")
    state = tmp_path / "folder" / ".state"
    for name in ("agent_token", "admin_password", "session.json"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    code, out = _edgeplane(
        first.folder, "task", "create", "--node", "local", "--type", "reload", "--wait", "--json"
    )
    assert code == 0, out
    task = json.loads(out)
    written = state / "agent" / "work" / f"cmdb_reload_{task['requestId']}.txt"
    assert written.exists()
    password = (state / "admin_password").read_text().strip()
    token = (state / "agent_token").read_text().strip()
    children = first.children
    assert len(children) == 2
    assert first.stop(signal.SIGINT) == 0
    assert not any(alive(pid) for pid in children)
    assert not (state / "session.json").exists()
    printed = "\n".join(first.lines)
    assert password not in printed
    assert token not in printed

    again = up()
    again.wait_for("Ctrl-C stops it.")
    code, out = _edgeplane(again.folder, "node", "list", "--json")
    assert code == 0
    (port,) = map(int, re.findall(r"agent at http://127.0.0.1:(\d+)/", "\n".join(again.lines)))
    assert [(node["name"], node["agentPort"]) for node in json.loads(out)["list"]] == [
        ("local", port)
    ]
    assert (state / "admin_password").read_text().strip() == password
    assert again.stop() == 0


def test_a_daemon_that_dies_is_started_again(up):
    """Kill both daemons: both come back, and a task runs again."""
    running = up()
    running.wait_for("Ctrl-C stops it.")
    before = running.children
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(running.children) - set(before)) == 2)
    begun = "Server running on"
    until(lambda: sum(begun in line for line in running.lines) == 2, 30)
    code, _ = _edgeplane(
        running.folder, "task", "create", "--node", "local", "--type", "reload", "--wait"
    )
    assert code == 0
    assert running.stop() == 0


def test_killed_outright_it_leaves_nobody_behind(up):
    """After kill -9 of ``up`` neither daemon lingers, and the folder can be used again."""
    killed = up()
    killed.wait_for("Ctrl-C stops it.")
    children = killed.children
    killed.stop(signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in children))
    again = up()
    again.wait_for("Ctrl-C stops it.")
    assert again.stop() == 0


def test_a_second_one_on_the_same_folder_is_one_line(up):
    """The folder belongs to one ``up`` at a time; the line names the other's process id."""
    first = up()
    until((first.folder / ".state" / "up.lock").exists)
    until((first.folder / ".state" / "agent_token").exists)
    second = up()
    assert second.process.wait(30) == 1
    second.wait_for(f"an edgeplane up runs here already (pid {first.process.pid})")
    assert len(second.lines) == 1
    first.stop()


@pytest.mark.parametrize("option", ["--listen", "--agent-listen"])
def test_a_taken_port_is_one_line(up, option):
    """A port in use is named with the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = "--agent-listen" if option == "--listen" else "--listen"
        refused = up(option, f"127.0.0.1:{port}", other, "127.0.0.1:0")
        assert refused.process.wait(30) == 1
        refused.wait_for(f"port {port} (127.0.0.1:{port}) cannot be used: address already in use")
    assert len(refused.lines) == 1
    assert option in refused.lines[0]


def test_a_daemon_that_cannot_start_ends_it(up):
    """What the daemon says is shown, the rest is stopped, and the exit code is 1."""
    refused = up(EDGEPLANE_CRASH_AT="nowhere")
    assert refused.process.wait(60) == 1
    refused.wait_for("did not start")


def test_a_malformed_address_is_one_line(up):
    """The option is named, with exit code 2."""
    refused = up("--listen", "8080")
    assert refused.process.wait(30) == 2
    refused.wait_for("--listen: must look like :8080")


def test_addresses_of_the_environment_count(up):
    """HTTP_ADDR and AGENT_HTTP_ADDR are the defaults, and named where they cannot be."""
    refused = up("--state-dir", "s", HTTP_ADDR="8080")
    assert refused.process.wait(30) == 2
    refused.wait_for("HTTP_ADDR: must look like :8080")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = up("--listen", "127.0.0.1:0", AGENT_HTTP_ADDR=address)
        assert refused.process.wait(30) == 1
        refused.wait_for("stop what listens there, or choose another port with AGENT_HTTP_ADDR")


@pytest.mark.parametrize(
    ("listen", "agent", "code", "line"),
    [
        ("127.0.0.1:0", "localhost:0", 2, "--agent-listen: the agent needs an IP address"),
        ("\u00e9" * 70 + ":0", "127.0.0.1:0", 2, "names no machine"),
        ("192.0.2.1:0", "127.0.0.1:0", 1, "cannot be used: cannot assign requested address"),
    ],
)
def test_addresses_are_looked_at_before_anything_starts(up, listen, agent, code, line):
    """One line, no daemon, and no advice to stop what does not listen."""
    refused = up("--listen", listen, "--agent-listen", agent)
    assert refused.process.wait(30) == code
    refused.wait_for(line)
    assert len(refused.lines) == 1
    assert "stop what listens" not in refused.lines[0]


def test_both_need_a_port_each():
    """The same port twice is one line, unless the addresses keep them apart."""
    one, other = ListenAddress("127.0.0.1", 8080), ListenAddress("127.0.0.2", 8080)
    for control, agent in ((one, one), (one, ListenAddress("", 8080))):
        with pytest.raises(Stop, match="need a port each"):
            local.check_apart(control, agent)
    local.check_apart(one, other)


def test_its_node_is_online_at_once(up):
    """The agent was asked before: the node is not shown as away until its first task."""
    running = up()
    running.wait_for("Ctrl-C stops it.")
    code, out = _edgeplane(running.folder, "node", "show", "local", "--json")
    assert (code, json.loads(out)["status"]) == (0, "online")


def test_where_admin_is_locked_out_the_advice_helps(up):
    """It goes on without a session; the lines it prints let somebody in again."""
    first = up()
    first.wait_for("Ctrl-C stops it.")
    code, _ = _edgeplane(first.folder, "user", "disable", "admin", **_STORE)
    assert code == 0
    assert first.stop() == 0
    again = up()
    again.wait_for("Ctrl-C stops it.")
    (line,) = [each for each in again.lines if "is disabled: " in each]
    assert line.endswith("edgeplane user enable admin")
    assert f"EDGEPLANE_STATE_DIR={again.folder}/.state/control " in line
    assert any("login --username NAME" in each for each in again.lines)
    assert not (again.folder / ".state" / "session.json").exists()
    assert _edgeplane(again.folder, "user", "enable", "admin", **_STORE)[0] == 0


def test_what_points_elsewhere_is_kept_from_the_daemons(tmp_path, monkeypatch):
    """MYSQL_DSN and REDIS_ADDR reach the daemons only with --use-environment."""
    monkeypatch.setenv("MYSQL_DSN", "dsn")
    monkeypatch.setenv("REDIS_ADDR", "redis")
    monkeypatch.setenv("AGENT_TOKEN", "a-token-of-the-environment")
    seen = []
    for use_environment in (False, True):
        place = Place(
            state=tmp_path / str(use_environment),
            control=ListenAddress("127.0.0.1", 1),
            agent=ListenAddress("", 2),
            use_environment=use_environment,
        )
        keys = local.prepare(place)
        control, agent = local.programs(place, keys)
        assert "ADMIN_PASSWORD" not in agent.env
        assert control.env["AGENT_TOKEN"] == agent.env["AGENT_TOKEN"] == keys.agent_token
        seen.append((control.env.get("MYSQL_DSN"), keys.agent_token == os.environ["AGENT_TOKEN"]))
        assert (place.control_url, place.agent_ip) == ("http://127.0.0.1:1", "127.0.0.1")
    assert seen == [(None, False), ("dsn", True)]


def test_a_chosen_admin_password_is_kept_at_the_first_start(tmp_path, monkeypatch):
    """ADMIN_PASSWORD counts once: later the file is what the user was made with."""
    place = Place(
        state=tmp_path / "s",
        control=ListenAddress("", 1),
        agent=ListenAddress("", 2),
        use_environment=False,
    )
    monkeypatch.setenv("ADMIN_PASSWORD", "chosen-password")
    assert local.prepare(place).admin_password == "chosen-password"
    monkeypatch.setenv("ADMIN_PASSWORD", "another-password")
    assert local.prepare(place).admin_password == "chosen-password"
    assert "chosen" not in repr(Keys(agent_token="chosen", admin_password="chosen"))


def test_a_password_that_cannot_be_is_not_kept(tmp_path, monkeypatch):
    """It is refused by name before anything is written, so that a better one can be chosen."""
    place = Place(
        state=tmp_path / "s",
        control=ListenAddress("", 1),
        agent=ListenAddress("", 2),
        use_environment=False,
    )
    monkeypatch.setenv("ADMIN_PASSWORD", "short")
    with pytest.raises(Stop, match="^ADMIN_PASSWORD: .* 8 to 256 characters"):
        local.prepare(place)
    assert not place.password_file.exists()


def test_a_state_folder_that_cannot_be_is_one_line():
    """A folder that cannot be made is refused with its name."""
    with (
        pytest.raises(Stop, match="--state-dir: /proc/nowhere"),
        local.held(Path("/proc/nowhere")),
    ):
        pass
