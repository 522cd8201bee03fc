"""The walkthrough, step by step as it is published, beside whatever else runs on this machine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kit.ports import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-seed-walkthrough"
STEPS = 8 + 14 + 2 + 6 + 1  # the steps, the curls, idempotency both ways, the SQL, the rollback


class Walkthrough:
    """A copy of the example with ports and a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir()
        (folder / "tmp").mkdir()
        shutil.copytree(EXAMPLE, folder / "example")
        self.script = folder / "example" / "walkthrough.sh"
        self.port, self.agent_port = free_port(), free_port()
        self.substitute("localhost:8080", f"localhost:{self.port}")
        self.substitute("9090", str(self.agent_port))
        self.substitute("/tmp/cmdb_", f"{self.files}/cmdb_")

    def substitute(self, old, new):
        """Change the script's text; what is to be changed must be there."""
        text = self.script.read_text()
        assert old in text
        self.script.write_text(text.replace(old, new))

    def run(self, **env):
        """Run it to its end."""
        known = ("PATH", "HOME", "LANG")
        settings = {
            **{name: os.environ[name] for name in known if name in os.environ},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HTTP_ADDR": f":{self.port}",
            "EDGEPLANE_SIMULATED_DIR": str(self.files),
            "TMPDIR": str(self.folder / "tmp"),
        }
        return subprocess.run(
            [self.script],
            env={**settings, **env},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )


@pytest.fixture
def walkthrough(tmp_path):
    """Return the example, ready to run."""
    return Walkthrough(tmp_path)


def _went_well(walkthrough, done):
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.endswith("All steps went as they should.\n")
    assert len(re.findall(r"^== ", done.stdout, re.MULTILINE)) == STEPS
    assert list((walkthrough.folder / "tmp").iterdir()) == []


def test_every_step_on_sqlite(walkthrough):
    """Without MYSQL_DSN every step shows what they should."""
    _went_well(walkthrough, walkthrough.run())


def test_every_step_on_mariadb_and_redis(walkthrough, mysql_dsn, redis):
    """With the settings of a real installation it shows the same."""
    _went_well(walkthrough, walkthrough.run(MYSQL_DSN=mysql_dsn, REDIS_ADDR=redis.address))


def test_a_database_in_use_is_left_alone(walkthrough, mariadb, mysql_dsn):
    """The script drops a table in the end: it refuses a database that has any."""
    with mariadb.connect(mysql_dsn.rpartition("/")[2].partition("?")[0]) as connection:
        connection.cursor().execute("CREATE TABLE somebodys (id INT)")
    done = walkthrough.run(MYSQL_DSN=mysql_dsn)
    assert done.returncode == 1
    assert "the database is not empty" in done.stderr


def test_a_step_that_goes_wrong_is_told(walkthrough):
    """What is not as expected ends the script with a line that says so, and leaves its logs."""
    walkthrough.substitute(
        'EXPECTED=\'{\n  "vhost": "example.com"', 'EXPECTED=\'{\n  "vhost": "other"'
    )
    done = walkthrough.run()
    assert done.returncode == 1
    assert "FAILED: the file's content" in done.stderr
    (kept,) = (walkthrough.folder / "tmp").iterdir()
    assert f"logs and state are kept in {kept}" in done.stderr
    assert "Server stopped" in (kept / "cmdb.log").read_text()
