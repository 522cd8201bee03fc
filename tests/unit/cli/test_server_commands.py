"""``serve``, ``migrate`` and ``user``: the commands that need the control plane's own parts."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from io import StringIO
from types import ModuleType

import pytest

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
        f"from edgeplane.cli.main import run; sys.exit(run({command!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "edgeplane: this command needs the control plane: pip install 'edgeplane[server]'\n"
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
    assert edgeplane("migrate", "--down", "base").code == 0
    assert control.calls == [("down", "base")]
    assert edgeplane("migrate", "--down", "base", "--check").code == 2


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
