"""The commands that measure run, at small sizes, and say what they measured."""

import json
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from benchmarks.filling import fill
from benchmarks.stores import Mariadb, Sqlite

ROOT = Path(__file__).parents[2]
FILLED = """
SELECT id, node_id, operation_id, type, status, lane IS NULL, payload IS NULL, outcome, request_id
FROM agent_tasks ORDER BY id
"""


def measure(name, folder, *options):
    """Run a benchmark; return the figures it wrote."""
    figures = folder / "figures.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", *options, "--json", str(figures)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(figures.read_text())


@pytest.fixture
def folder():
    """A folder MariaDB's own user can reach."""
    with tempfile.TemporaryDirectory(prefix="edgeplane-benchmarks-") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


def test_both_engines_are_filled_with_the_same_history(folder):
    """Row by row, so that their figures are of the same thing."""
    (folder / "control" / "state").mkdir(parents=True)
    parts = []
    history = fill(Sqlite(folder), 3000, parts.append)
    with closing(sqlite3.connect(folder / "control" / "state" / "edgeplane.db")) as connection:
        rows = connection.execute(FILLED).fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with closing(Mariadb(folder / "db")) as other:
        assert fill(other, 3000, parts.append) == history
        with closing(other.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(FILLED)
            assert [list(row) for row in cursor.fetchall()] == [list(row) for row in rows]
    assert len(rows) == history.tasks == 3000
    assert {row[4] for row in rows} >= {"pending", "running", "success", "failed"}
    assert {row[3] for row in rows} == {"apply_config", "reload", "purge_cache"}
    of_operations = [row for row in rows if row[2]]
    assert len(of_operations) == 1500
    assert {row[2] for row in of_operations} == set(range(1, history.operations + 1))


def test_lists_are_measured(tmp_path):
    """Every filter in every way, on a history made for it."""
    options = ("--rows", "3000", "--engine", "sqlite", "--looks", "2")
    figures = measure("lists", tmp_path, *options)
    assert {figure["way"] for figure in figures} == {"first page", "deep page", "deep cursor"}
    assert len({figure["what"] for figure in figures}) == 36
    assert len(figures) == 3 * 36
    assert all(0 < figure["p50"] <= figure["p99"] <= figure["most"] for figure in figures)


@pytest.mark.parametrize("engine", ["sqlite", "mariadb"])
def test_the_rate_of_the_store_is_measured(tmp_path, engine):
    """By turns, beside bare statements, with few and many tasks at a node."""
    options = ("--tasks", "300", "--nodes", "300", "--rounds", "1", "--engine", engine)
    found = measure("store_rates", tmp_path, *options)[engine]
    for per_node in ("1 a node", "16 a node"):
        (one,) = found[per_node]
        assert one["per_second"] > 0
        assert one["floor"] > 0
        assert one["turns"] >= 2


def test_kept_connections_are_measured(tmp_path):
    """Each keeps its connection, and what comes then goes over it."""
    options = ("--nodes", "8", "--tasks", "10", "--engine", "sqlite")
    found = measure("kept", tmp_path, *options)["sqlite"]
    assert found["connections"] >= 8
    assert found["reused_share"] == 1
    assert found["requests"] == 10
    assert 0 < found["post_to_agent_p50_ms"] <= found["post_to_agent_p99_ms"]


def test_a_fleet_is_measured(tmp_path):
    """Single creates and operations, each beside its floor."""
    options = ("--nodes", "8", "--rounds", "1", "--engine", "sqlite")
    found = measure("fleet", tmp_path, *options)["sqlite"]
    (one,), (fan,) = found["rounds"], found["operations"]
    assert 0 < one["applied_p50"] <= one["applied_p99"]
    assert fan["floor"] > 0
    assert fan["seconds"] > 0
    assert fan["applied_p50"] <= fan["applied_p99"]
