"""``serve``, ``migrate`` and ``user``: the commands that need the control plane's own parts."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest

from edgeplane import environ, settings
from edgeplane.cli import server_parts
from edgeplane.model.errors import AlreadyExists, NotFound
from edgeplane.model.users import Role, User
from edgeplane.observe.logs import say

ADMIN = User(
    id=1,
    username="admin",
    role=Role.ADMIN,
    active=True,
    created_at=datetime(2026, 1, 23, tzinfo=UTC),
)


class _StartError(Exception):
    pass


class _Bootstrap(ModuleType):
    """Stands in for ``edgeplane.bootstrap``; keeps what it was called with."""

    StartError = _StartError

    def __init__(self):
        super().__init__("edgeplane.bootstrap")
        self.calls = []
        self.problem = None

    def serve(self, settings):
        if self.problem:
            raise _StartError(self.problem)
        self.calls.append(("serve", settings.migrate))
        return 0

    def migrate(self, _settings):
        say("Starting database migration...")
        return 6

    def migrate_down(self, _settings, revision):
        self.calls.append(("down", revision))

    def check_schema(self, _settings):
        return self.problem

    def with_store(self, _settings, use):
        return asyncio.run(use("the store"))


class _Users(ModuleType):
    """Stands in for the users' use cases."""

    def __init__(self, calls):
        super().__init__("edgeplane.services.users")
        self.calls = calls

    async def create(self, _database, username, password, role):
        if username == "taken":
            raise AlreadyExists("username: taken")
        self.calls.append(("create", username, password, role))
        return ADMIN

    async def list_all(self, _database):
        return [ADMIN]

    async def set_password(self, _database, username, password):
        self.calls.append(("password", username, password))

    async def set_role(self, _database, username, role):
        self.calls.append(("role", username, role))

    async def set_active(self, _database, username, *, active):
        self.calls.append(("active", username, active))
        raise NotFound(f"user {username} not found")


@pytest.fixture
def control(monkeypatch):
    """Return a stand-in for the control plane's own parts."""
    bootstrap = _Bootstrap()
    monkeypatch.setitem(sys.modules, "edgeplane.bootstrap", bootstrap)
    monkeypatch.setitem(sys.modules, "edgeplane.services.users", _Users(bootstrap.calls))
    return bootstrap


@pytest.mark.parametrize("command", [("serve",), ("migrate",), ("user", "list")])
def test_without_the_server_packages_one_line_says_what_to_install(command):
    """On a machine with only the agent's packages, these commands say what they need."""
    code = (
        "import sys; sys.modules |= dict.fromkeys(('alembic', 'sqlalchemy', 'fastapi', 'argon2'));"
        f"from edgeplane.cli.root import run; sys.exit(run({command!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "edgeplane: this command needs the control plane:"
        " pip install '.[server]' in its source folder\n"
    )


def test_serve_passes_the_settings_on(control, edgeplane):
    """MIGRATE's default stands unless an option says otherwise."""
    assert edgeplane("serve").code == 0
    assert edgeplane("serve", "--no-migrate").code == 0
    assert control.calls == [("serve", True), ("serve", False)]


def test_a_start_that_fails_is_one_line(control, edgeplane):
    """StartError becomes exit code 1 and its own line."""
    control.problem = "the database at x cannot be used: no such file"
    outcome = edgeplane("serve")
    assert outcome.code == 1
    assert outcome.err == "edgeplane: the database at x cannot be used: no such file\n"


def test_a_malformed_setting_is_exit_code_two(control, edgeplane, monkeypatch):
    """The line names the setting and repeats no password."""
    monkeypatch.setenv("MYSQL_DSN", "root:s3cret@db")
    outcome = edgeplane("serve")
    assert outcome.code == 2
    assert outcome.err.startswith("edgeplane: MYSQL_DSN: must look like")
    assert "s3cret" not in outcome.err


def test_migrate_prints_only_json_when_asked(control, edgeplane):
    """What migration says goes to standard output, or out of the way of the JSON."""
    assert edgeplane("migrate").out == "Starting database migration...\n"
    outcome = edgeplane("migrate", "--json")
    assert json.loads(outcome.out) == {"tables": 6}
    assert "Starting" in outcome.err


def test_migrate_check_tells_by_exit_code(control, edgeplane):
    """0: the tables are current; 1: they are not, and the line says what to do."""
    assert edgeplane("migrate", "--check").code == 0
    control.problem = "the database is empty: run edgeplane migrate"
    outcome = edgeplane("migrate", "--check")
    assert (outcome.code, outcome.err) == (
        1,
        "edgeplane: the database is empty: run edgeplane migrate\n",
    )


def test_migrate_goes_down_when_told(control, edgeplane):
    """--down names a revision, and excludes --check."""
    assert edgeplane("migrate", "--down", "base", "--yes").code == 0
    assert control.calls == [("down", "base")]
    assert edgeplane("migrate", "--down", "base", "--check").code == 2


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 130), ("\n", 130)])
def test_going_down_is_asked_for_in_a_terminal(control, edgeplane, monkeypatch, answer, code):
    """Without --yes a person is asked; without a person nothing happens."""
    assert edgeplane("migrate", "--down", "base").code == 2
    assert control.calls == []
    terminal = StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    outcome = edgeplane("migrate", "--down", "base")
    assert outcome.code == code
    assert str(Path(os.environ["EDGEPLANE_STATE_DIR"]) / "edgeplane.db") in outcome.err
    assert control.calls == ([("down", "base")] if code == 0 else [])


def test_a_made_password_is_shown_once(control, edgeplane):
    """--generate makes a strong password, stores it and prints it."""
    outcome = edgeplane("user", "add", "admin", "--role", "admin", "--generate")
    name, username, password, role = control.calls[0]
    assert (name, username, role) == ("create", "admin", Role.ADMIN)
    assert len(password) >= 20
    assert outcome.out.count(password) == 1
    shown = json.loads(edgeplane("user", "passwd", "admin", "--generate", "--json").out)
    assert control.calls[1] == ("password", "admin", shown["password"])


def test_a_given_password_is_not_shown(control, edgeplane, monkeypatch):
    """A password from standard input is stored and printed nowhere."""
    monkeypatch.setattr(sys, "stdin", StringIO("given-password\n"))
    outcome = edgeplane("user", "passwd", "admin", "--password-stdin")
    assert control.calls == [("password", "admin", "given-password")]
    assert "given-password" not in outcome.out + outcome.err
    assert edgeplane("user", "add", "x", "--generate", "--password-stdin").code == 2


def test_users_are_listed(control, edgeplane):
    """A table for people, the API's names for programs."""
    assert edgeplane("user", "list").out.splitlines()[1].split()[:4] == [
        "1",
        "admin",
        "admin",
        "yes",
    ]
    assert json.loads(edgeplane("user", "list", "--json").out) == [
        {
            "id": 1,
            "username": "admin",
            "role": "admin",
            "active": True,
            "createdAt": "2026-01-23T00:00:00.000Z",
        }
    ]


def test_errors_of_the_use_cases_have_their_exit_codes(control, edgeplane):
    """Not found is 4, taken is 5, as with the API."""
    assert edgeplane("user", "disable", "nobody").code == 4
    assert control.calls[-1] == ("active", "nobody", False)
    assert edgeplane("user", "add", "taken", "--generate").code == 5
    assert edgeplane("user", "role", "admin", "viewer").out == "admin is viewer now\n"
    assert control.calls[-1] == ("role", "admin", Role.VIEWER)


@pytest.mark.parametrize(
    "command", [("user", "list"), ("migrate", "--check"), ("migrate", "--down", "base", "--yes")]
)
def test_what_needs_a_store_makes_none(edgeplane, command):
    """Where nothing was set up nothing is made, and the line says where was looked and why."""
    pytest.importorskip("fastapi", reason="needs the server extra")
    state = Path(os.environ["EDGEPLANE_STATE_DIR"])
    outcome = edgeplane(*command)
    assert outcome.code == 1
    assert f"the database at {state / 'edgeplane.db'} is not there" in outcome.err
    assert "EDGEPLANE_STATE_DIR" in outcome.err
    assert ".state/control" in outcome.err
    assert not state.exists()


@pytest.mark.parametrize("dsn", ["", "user:a-password@tcp(db:3306)/cmdb"])
def test_commands_look_where_the_control_plane_does(monkeypatch, dsn):
    """What is read without making anything is what ``serve`` works with."""
    monkeypatch.setenv("MYSQL_DSN", dsn)
    found = server_parts.database()
    assert not Path(os.environ["EDGEPLANE_STATE_DIR"]).exists()
    assert found == settings.load(environ.Environ.load()).database


def _serve_once(folder, **env):
    given = {name: value for name, value in env.items() if value}
    return subprocess.run(
        [sys.executable, "-m", "edgeplane", "serve"],
        env={**os.environ, "HTTP_ADDR": "127.0.0.1:0", "EDGEPLANE_STATE_DIR": folder, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_lock_that_cannot_be_opened_is_one_line(tmp_path):
    """A folder where the lock should be: named, exit code 1, and no tables are made."""
    pytest.importorskip("fastapi", reason="needs the server extra")
    (tmp_path / "edgeplane.lock").mkdir()
    done = _serve_once(tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"edgeplane: {tmp_path}/edgeplane.lock cannot be opened: Is a directory\n"
    assert not (tmp_path / "edgeplane.db").exists()


def test_wrong_settings_and_a_taken_port_have_codes_of_their_own(tmp_path):
    """As with the agent: 2 for a setting that cannot be, 1 for a port somebody has."""
    pytest.importorskip("fastapi", reason="needs the server extra")
    assert _serve_once(tmp_path, EDGEPLANE_CRASH_AT="nowhere").returncode == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = _serve_once(tmp_path, HTTP_ADDR=f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert "HTTP_ADDR: cannot listen on" in done.stderr
    assert not (tmp_path / "edgeplane.db").exists()


def test_a_state_folder_open_to_all_is_told_at_the_start(tmp_path):
    """It starts, and nobody can overlook it."""
    pytest.importorskip("fastapi", reason="needs the server extra")
    tmp_path.chmod(0o777)
    (tmp_path / "edgeplane.lock").mkdir()  # it need not go on
    said = _serve_once(tmp_path).stderr
    assert f"{tmp_path} has mode 0777" in said
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o777
    file = tmp_path / "a-file"
    file.touch()
    refused = _serve_once(file)
    assert refused.returncode == 2
    assert refused.stderr == f"edgeplane: EDGEPLANE_STATE_DIR: {file} is not a folder\n"
