"""The tables as an operator handles them: lost, brought back, taken down, of another release."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from kit.factories import mysql_url
from kit.processes import ControlPlane

EDGEPLANE = [sys.executable, "-m", "edgeplane"]


class Installation:
    """A control plane's settings, and a way into its tables."""

    def __init__(self, folder, dsn):
        self.plane = ControlPlane(folder, {"MYSQL_DSN": dsn} if dsn else None)
        self.state = folder / "state"
        self._url = mysql_url(dsn) if dsn else None

    def run(self, *arguments, **env):
        """Run a command with its settings, in no terminal."""
        return subprocess.run(
            [*EDGEPLANE, *arguments],
            env={**self.plane._env, **env},
            cwd=self.plane.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def sql(self, statement):
        """Change the tables by hand."""
        if self._url is None:
            with closing(sqlite3.connect(self.state / "edgeplane.db")) as file, file:
                file.execute(statement)
            return
        from edgeplane.store.database import make_engine

        engine = make_engine(self._url)
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


@pytest.fixture(params=["sqlite", "mariadb"])
def installed(request, tmp_path):
    """Make the tables."""
    dsn = request.getfixturevalue("mysql_dsn") if request.param == "mariadb" else None
    installed = Installation(tmp_path, dsn)
    assert installed.run("migrate").returncode == 0
    return installed


def test_a_table_that_was_dropped_comes_back(installed):
    """``--check`` names it, no start goes on without it, ``migrate`` makes it, with its indexes."""
    installed.sql("DROP TABLE agent_tasks")
    checked = installed.run("migrate", "--check")
    assert checked.returncode == 1
    assert "has lost agent_tasks: run `edgeplane migrate`" in checked.stderr
    refused = installed.run("serve", "--no-migrate")
    assert refused.returncode == 1
    assert "has lost agent_tasks" in refused.stderr.splitlines()[-1]

    assert installed.run("migrate").returncode == 0
    assert installed.run("migrate", "--check").returncode == 0
    from edgeplane.dsn import read_dsn
    from edgeplane.settings import DatabaseSettings
    from edgeplane.store import migrate
    from edgeplane.store.urls import database_url

    dsn = installed.plane._env.get("MYSQL_DSN")
    path = None if dsn else installed.state / "edgeplane.db"
    parts = read_dsn(dsn) if dsn else None
    migrate.check(database_url(DatabaseSettings(url_parts=parts, path=path)))


def test_what_is_left_of_the_tables_can_be_taken_down(installed):
    """Also where somebody has dropped one by hand; and they can be made again."""
    installed.sql("DROP TABLE agent_tasks")
    asked = installed.run("migrate", "--down", "base")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    assert "has lost agent_tasks" in installed.run("migrate", "--check").stderr
    assert installed.run("migrate", "--down", "base", "--yes").returncode == 0
    assert "is empty" in installed.run("migrate", "--check").stderr
    assert installed.run("migrate").returncode == 0
    assert installed.run("migrate", "--check").returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        ("migrate", "--check"),
        ("migrate",),
        ("migrate", "--down", "base", "--yes"),
        ("serve", "--migrate"),
        ("serve", "--no-migrate"),
        ("user", "list"),
    ],
)
def test_tables_of_a_newer_release_are_left_alone(installed, command):
    """An older program says which one to start, and changes nothing."""
    installed.sql("UPDATE alembic_version SET version_num = '9999'")
    refused = installed.run(*command)
    assert refused.returncode == 1
    assert "written by a newer release (revision 9999): start that one\n" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_running_control_plane_keeps_its_tables(tmp_path):
    """On SQLite nothing takes them down meanwhile; a second ``serve`` does not even migrate."""
    installed = Installation(tmp_path, None)
    installed.plane.up()
    try:
        refused = installed.run("migrate", "--down", "base", "--yes")
        assert refused.returncode == 1
        assert f"a control plane runs on {installed.state}" in refused.stderr
        installed.sql("DROP TABLE task_attempts")
        second = installed.run("serve", HTTP_ADDR="127.0.0.1:0")
        assert (second.returncode, second.stdout) == (1, "")
        assert f"a control plane runs on {installed.state}" in second.stderr
        assert "has lost task_attempts" in installed.run("migrate", "--check").stderr
        assert installed.run("user", "list").returncode == 1
        assert installed.run("migrate").returncode == 0
        assert installed.run("user", "list").returncode == 0
    finally:
        installed.plane.kill()
