"""The instruments of a run: each sees what it is for, and none can be blind without telling."""

import socket
import sqlite3
import sys
from itertools import count, pairwise

import pymysql
import pytest

from chaos.sampler import Sampler
from edgeplane.store import migrate
from edgeplane.store.urls import sqlite_url
from kit import ports
from kit.effects import Effects
from kit.factories import empty_mysql_url
from kit.history import Effect, Ended, History, Owned, Sampled
from kit.processes import Process
from kit.servers import MariaDB
from kit.tables import COUNTS, AttemptRow, Away, OperationRow, Tables
from kit.waiting import until

_numbers = count(1)
_NODE = "INSERT INTO node_mailboxes (node_id, owner, next_at, epoch, work_seq, generation) VALUES "
_COLUMNS = (
    "id, node_id, type, payload, payload_bytes, payload_digest, status, attempts,"
    " counted_attempts, run, max_attempts, timeout_seconds, deadline_seconds, deadline_at,"
    " request_id, created_at, updated_at, lane_rank, priority, cancel_requested"
)


@pytest.fixture(params=["sqlite", "mariadb"])
def real(request, tmp_path):
    """Return the tables of a migrated database, how it is told SQL, and how it tells its time."""
    if request.param == "sqlite":
        file = tmp_path / "edgeplane.db"
        migrate.upgrade(sqlite_url(file))
        connection = sqlite3.connect(file, isolation_level=None)
        tables, now = Tables.of_sqlite(file), "strftime('%Y-%m-%d %H:%M:%f', 'now', '{} seconds')"
        yield tables, connection.execute, now
        connection.close()
        return
    server = request.getfixturevalue("mortal_mariadb")
    name = f"instruments_{next(_numbers)}"
    migrate.upgrade(empty_mysql_url(server.create_database(name)))
    with server.connect(name) as mysql, mysql.cursor() as cursor:
        tables = Tables.of_mariadb(server, name)
        yield tables, cursor.execute, "UTC_TIMESTAMP(3) + INTERVAL {} SECOND"


def test_only_an_owned_mailbox_is_a_lease(real):
    """One that was given back under a running task is none, unless it is due."""
    tables, execute, now = real
    boxes = {
        1: ("'me'", now.format(5), -5.0),
        2: ("'me'", now.format(-4), 4.0),
        3: ("NULL", now.format(-50), 0.0),  # a control plane's start gives back what it held before
        4: ("NULL", now.format(60), None),
        5: ("NULL", now.format(9), None),
        6: ("NULL", "NULL", None),
        7: ("'me'", "NULL", None),
        9: ("NULL", now.format(-120), 30.0),
    }
    for node_id, (owner, due, _) in boxes.items():
        execute(f"{_NODE} ({node_id}, {owner}, {due}, 1, 1, 0)")
    for task_id in range(1, 11):
        status = "pending" if task_id == 10 else "running"  # and node 8 has no mailbox
        execute(
            f"INSERT INTO agent_tasks ({_COLUMNS}) VALUES ({task_id}, {task_id}, 'reload', '{{}}',"
            f" 2, '{'d' * 32}', '{status}', 1, 1, 1, 5, 30, 60, {now.format(60)}, 'r{task_id}',"
            f" {now.format(0)}, {now.format(0)}, 0, 5, FALSE)"
        )
    seen = dict(tables.leases())
    assert seen.pop(8) is None
    assert set(seen) == set(boxes)
    for node_id, (_, _, age) in boxes.items():
        assert seen[node_id] == (None if age is None else pytest.approx(age, abs=2.0)), node_id


def test_tables_that_are_locked_are_away_and_wrong_sql_is_not(tmp_path):
    """What passes is told from what no waiting mends (SQLite)."""
    file = tmp_path / "edgeplane.db"
    holder = sqlite3.connect(file, isolation_level=None)
    tables = Tables.of_sqlite(file, seconds=0.01)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Away, match="locked"):
        tables.leases()
    holder.execute("ROLLBACK")
    holder.close()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        tables.leases()


def test_what_the_tables_say_of_the_past_is_read(real):
    """Attempts, moves and operations, on both databases; times to the millisecond."""
    tables, execute, _ = real
    moment = "'1970-01-02 00:00:01.250'"
    seconds = 24 * 3600 + 1.25
    execute(
        "INSERT INTO task_attempts (task_id, number, begun_at, ended_at, outcome, message, replica)"
        f" VALUES (1, 2, '1970-01-02 00:00:00.000', {moment}, 'lost', '', 'r1')"
    )
    execute(
        "INSERT INTO events (at, type, task_id, node_id, status, attempt)"
        f" VALUES ({moment}, 'begun', 1, 7, 'running', 2), ({moment}, 'lost', 1, 7, 'pending', 2)"
    )
    counted = ", ".join(COUNTS)
    columns = (
        "id, request_id, request_digest, type, payload, payload_bytes, payload_digest, target,"
        " priority, timeout_seconds, max_attempts, deadline_seconds, state, failures, epoch,"
        f" work_seq, max_concurrency, created_at, updated_at, {counted}"
    )
    numbers = ", ".join(str(number) for number in range(len(COUNTS)))
    execute(
        f"INSERT INTO operations ({columns}) VALUES (3, 'o', '', 'reload', '', 0, '', '', 5, 30, 5,"
        f" 60, 'paused', 0, 1, 0, 4, {moment}, {moment}, {numbers})"
    )
    execute("INSERT INTO operation_targets (operation_id, node_id) VALUES (3, 7), (3, 8), (4, 7)")
    found = tables.record()
    attempt = AttemptRow(
        task_id=1, number=2, begun=seconds - 1.25, ended=seconds, outcome="lost", replica="r1"
    )
    assert found.attempts == (attempt,)
    assert [(m.what, m.at, m.status, m.attempt) for m in found.moves] == [
        ("begun", seconds, "running", 2),
        ("lost", seconds, "pending", 2),
    ]
    assert found.operations == (
        OperationRow(
            id=3,
            request_id="o",
            state="paused",
            max_concurrency=4,
            max_failures=None,
            counts=dict(zip(COUNTS, range(len(COUNTS)), strict=True)),
            targets=2,
        ),
    )
    assert tables.unended() == 1


def test_a_server_that_does_not_answer_is_away_and_wrong_sql_is_not(mortal_mariadb):
    """What passes is told from what no waiting mends (MariaDB)."""
    mortal_mariadb.create_database("instruments_empty")
    with pytest.raises(pymysql.ProgrammingError, match="doesn't exist"):
        Tables.of_mariadb(mortal_mariadb, "instruments_empty").leases()
    nobody = MariaDB.__new__(MariaDB)
    nobody.host, nobody.port = "127.0.0.1", ports.free_port()
    with pytest.raises(Away, match="connect"):
        Tables.of_mariadb(nobody, "any").leases()


def _sampled(rows, tmp_path, looks):
    """Let a sampler look so often (or fail); return it and its history."""
    history = History(tmp_path / "history.jsonl")
    seen = count(1)
    enough = []

    def counted(sql):
        if next(seen) >= 3 * looks:  # a look is three statements
            enough.append(True)
        return rows(sql)

    sampler = Sampler(Tables(counted, "age"), history)
    sampler.start()
    until(lambda: enough or not sampler.alive, 20)
    return sampler, history


def test_a_sampler_tells_what_runs_and_what_has_ended(tmp_path):
    """Each ended task once; what runs each time."""

    def rows(sql):
        if "epoch" in sql:
            return [(7, "me", 5)]
        return [(1, -2.0)] if "mailboxes" in sql else [("a",)]

    sampler, history = _sampled(rows, tmp_path, 12)
    sampler.check()
    sampler.stop()
    assert [e.request_id for e in history.events if isinstance(e, Ended)] == ["a"]
    assert {e.running for e in history.events if isinstance(e, Sampled)} == {((1, -2.0),)}
    looks = [e for e in history.events if isinstance(e, Owned)]
    assert {look.owners for look in looks} == {((7, "me", 5),)}
    assert all(one.asked <= one.seen <= other.asked for one, other in pairwise(looks))


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("no such column: m.owner"), TypeError("what is this")]
)
def test_a_sampler_that_cannot_look_is_told(tmp_path, error):
    """Any fault but an absence ends it, and the run with it."""

    def rows(sql):
        raise error

    sampler, _ = _sampled(rows, tmp_path, 100)
    with pytest.raises(AssertionError, match="the sampler ended: .*(no such column|what is this)"):
        sampler.check()
    sampler.stop()


def test_a_sampler_that_never_saw_the_tables_is_told(tmp_path):
    """Looking in vain is not looking."""

    def rows(sql):
        raise Away("gone")

    sampler, _ = _sampled(rows, tmp_path, 6)
    with pytest.raises(AssertionError, match="saw the tables 0 times"):
        sampler.check(0.1)
    sampler.stop()


def test_effects_are_what_appears_under_a_tasks_name(tmp_path):
    """Made there or moved there counts, each time; drafts, folders and strangers' files do not."""
    history = History(tmp_path / "history.jsonl")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "cmdb_reload_before.txt").write_text("")
    effects = Effects(folder, history)
    draft = folder / ".cmdb_draft_0~a~1"
    for _ in range(2):
        draft.write_text("{}")
        draft.rename(folder / "cmdb_apply_config_a.json")
    (folder / "cmdb_purge_cache_b.c_d.json").write_text("{}")
    (folder / "cmdb_reload_dir.txt").mkdir()
    (folder / "notes.txt").write_text("")
    effects.stop()
    assert _told(history) == ["a", "a", "b.c_d"]
    assert (tmp_path / "history.jsonl").read_text().count('"event": "Effect"') == 3


def test_a_file_that_is_written_again_is_one_more_effect(tmp_path):
    """However it came to be there: moved, made, or before anybody watched. Reading is none."""
    history = History(tmp_path / "history.jsonl")
    before, made, moved = (tmp_path / f"cmdb_reload_{name}.txt" for name in ("b", "c", "d"))
    before.write_text("")
    effects = Effects(tmp_path, history)
    made.write_text("1")
    (tmp_path / "draft").write_text("1")
    (tmp_path / "draft").rename(moved)
    effects.flush()
    assert sorted(_told(history)) == ["c", "d"]
    for file in (before, made, moved):
        file.read_text()
        file.write_text("2")
    effects.stop()
    assert sorted(_told(history)) == ["b", "c", "c", "d", "d"]


def _told(history):
    return [event.request_id for event in history.events if isinstance(event, Effect)]


def test_words_of_an_earlier_start_are_not_waited_for(tmp_path):
    """What it printed before its last start is past, and its last words are all read."""
    script = "import os; print('ready' if os.environ.get('WELL') else 'unwell')"
    process = Process([sys.executable, "-c", script], {}, tmp_path)
    process.start(WELL="yes")
    process.wait_for("ready")
    process.wait()
    process.start()
    with pytest.raises(AssertionError, match="it ended: (?s:.)*unwell"):
        process.wait_for("ready")
    assert process.output == "ready\nunwell\n"


def test_a_port_is_given_once_on_the_whole_machine():
    """Neither one that another run of tests was given, nor one that is used."""
    first = ports.free_port()
    with socket.socket(socket.AF_UNIX) as another, socket.socket() as used:
        another.bind(f"\0edgeplane-tests-port-{first + 1}")
        used.bind(("127.0.0.1", first + 2))
        assert ports.free_port() > first + 2
    with socket.socket(socket.AF_UNIX) as another:
        with pytest.raises(OSError, match="in use"):
            another.bind(f"\0edgeplane-tests-port-{first}")
        ports.give_back(first)
        another.bind(f"\0edgeplane-tests-port-{first}")
