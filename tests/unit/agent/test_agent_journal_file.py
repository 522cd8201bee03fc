"""The journal on disk: what it knows of a request, and what it refuses to open."""

import sqlite3
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeplane.agent import journal_file
from edgeplane.agent.highest import KEPT_NODES
from edgeplane.agent.journal_file import (
    KEPT_SECONDS,
    Asked,
    JournalFile,
    Standing,
)
from edgeplane.agent.journal_opening import JournalError, open_journal
from edgeplane.model.tasks import MAX_DEADLINE_SECONDS
from edgeplane.wire import CANCELLED, MAX_NUMBER, CancelRequest


def _asked(request_id="r1", attempt=1, digest=b"d", kind="reload", **named):
    return Asked(request_id=request_id, kind=kind, digest=digest, attempt=attempt, **named)


def _begin(file, *args, **named):
    file.start()
    found = file.begin(_asked(*args, **named))
    file.commit()
    return found


def _finish(file, request_id="r1", attempt=1, status="success", message="done"):
    file.start()
    file.finish(request_id, attempt, status, message)
    file.commit()


@pytest.fixture
def path(tmp_path):
    """Where the journal lies."""
    return tmp_path / "journal.db"


@pytest.fixture
def file(path):
    """Open a journal."""
    opened = open_journal(path)
    yield opened
    opened.close()


def test_a_first_request_is_new_and_a_second_interrupted_until_it_is_finished(file):
    """Begun without an ending reads as interrupted."""
    assert _begin(file).standing is Standing.NEW
    assert _begin(file).standing is Standing.INTERRUPTED
    assert file.entries == 1


def test_what_succeeded_is_answered_under_every_attempt(file):
    """Success is final, however high the attempt."""
    _begin(file)
    _finish(file, message="said")
    found = _begin(file, attempt=9)
    assert (found.standing, found.status, found.message) == (Standing.ANSWERED, "success", "said")


def test_what_failed_begins_again_under_a_higher_attempt_only(file):
    """The same attempt is answered, the next runs and is no interruption."""
    _begin(file, attempt=2)
    _finish(file, attempt=2, status="failed")
    assert _begin(file, attempt=1).standing is Standing.ANSWERED
    assert _begin(file, attempt=2).standing is Standing.ANSWERED
    assert _begin(file, attempt=3).standing is Standing.NEW
    assert _begin(file, attempt=3).standing is Standing.INTERRUPTED


def test_an_ending_answers_the_highest_attempt_it_was_told(file):
    """A run joined under a higher attempt has answered that one too."""
    _begin(file, attempt=1)
    _finish(file, attempt=4, status="failed")
    assert _begin(file, attempt=4).standing is Standing.ANSWERED
    assert _begin(file, attempt=5).standing is Standing.NEW


@pytest.mark.parametrize("other", [{"digest": b"x"}, {"kind": "apply_config"}])
def test_an_id_is_bound_to_its_type_and_payload(file, other):
    """Another type or payload under a known id is told apart, running or done."""
    _begin(file)
    assert _begin(file, **other).standing is Standing.DIFFERENT
    _finish(file)
    assert _begin(file, **other).standing is Standing.DIFFERENT


def test_the_highest_epochs_survive_a_restart_and_a_rollback_forgets_newer_ones(file, path):
    """Of each node, and only what was committed counts."""
    _begin(file, epoch=5, node_id=1)
    _begin(file, "r2", epoch=3, node_id=1)
    _begin(file, "r3", epoch=4, node_id=2)
    file.start()
    file.begin(_asked("r4", epoch=9, node_id=1))
    assert file.epochs.committed.of(1) == 5
    file.rollback()
    again = open_journal(path)
    for opened in (file, again):
        assert [opened.epochs.committed.of(node) for node in (1, 2, 3)] == [5, 4, 0]
        assert opened.entries == 3
    again.close()


def test_the_nodes_whose_epochs_are_kept_are_those_raised_last(file, path):
    """In memory and on disk alike, also across a restart."""
    file.start()
    for node in range(KEPT_NODES):
        file.epochs.raise_to(1, node)
    file.epochs.raise_to(2, 0)
    file.commit()
    again = open_journal(path)
    again.start()
    again.epochs.raise_to(1, KEPT_NODES)
    again.commit()
    again.close()
    last = open_journal(path)
    assert [last.epochs.committed.of(node) for node in (0, 1, 2, KEPT_NODES)] == [2, 0, 1, 1]
    assert last._number("SELECT count(*) FROM epochs") == KEPT_NODES
    last.close()


def test_the_latest_generation_of_a_node_is_the_lowest_that_begins(file, path):
    """Of each node for itself; an equal one begins, a lower one is not entered at all."""
    assert _begin(file, "a", node_id=1, generation=7).standing is Standing.NEW
    assert _begin(file, "b", node_id=1, generation=7).standing is Standing.NEW
    assert _begin(file, "c", node_id=2, generation=0).standing is Standing.NEW
    assert _begin(file, "d", node_id=1).standing is Standing.NEW
    again = open_journal(path)
    for opened in (file, again):
        found = _begin(opened, "e", node_id=1, generation=6)
        assert (found.standing, found.begun_generation) == (Standing.OUTDATED, 7)
        assert opened.entries == 4
    again.close()


def test_what_has_ended_is_answered_whatever_its_generation(file):
    """A success for ever; a failure as long as it is not asked to run again."""
    _begin(file, "good", node_id=1, generation=5)
    _finish(file, "good")
    _begin(file, "bad", node_id=1, generation=5)
    _finish(file, "bad", status="failed")
    _begin(file, "newer", node_id=1, generation=7)
    assert _begin(file, "good", 2, node_id=1, generation=5).standing is Standing.ANSWERED
    assert _begin(file, "bad", node_id=1, generation=5).standing is Standing.ANSWERED
    assert _begin(file, "bad", 2, node_id=1, generation=5).standing is Standing.OUTDATED


def test_an_interrupted_run_of_an_earlier_generation_does_not_go_on(file):
    """It may have taken effect: that is looked for, and nothing more is done."""
    _begin(file, "a", node_id=1, generation=5)
    _begin(file, "b", node_id=1, generation=7)
    found = _begin(file, "a", node_id=1, generation=5)
    assert (found.standing, found.begun_generation) == (Standing.CALLED_OFF, 7)
    assert _begin(file, "b", node_id=1, generation=7).standing is Standing.INTERRUPTED


def test_as_many_generations_are_kept_as_epochs(file):
    """Of the nodes whose config changed last."""
    file.start()
    for node in range(KEPT_NODES + 1):
        file.generations.raise_to(1, node)
    file.commit()
    assert file._number("SELECT count(*) FROM generations") == KEPT_NODES
    assert [file.generations.committed.of(node) for node in (0, 1)] == [0, 1]


def _cancel(file, request_id="r1", attempt=None):
    file.start()
    state = file.cancel(CancelRequest(request_id, attempt=attempt))
    file.commit()
    return state


def test_what_is_cancelled_before_it_arrives_does_nothing_when_it_does(file):
    """Whatever its type, payload and attempt are; and it is told the same way each time."""
    assert [_cancel(file), _cancel(file)] == ["unknown", "unknown"]
    for more in ({}, {"attempt": 9}, {"kind": "apply_config"}, {"digest": b"x"}):
        found = _begin(file, **more)
        assert (found.standing, found.status) == (Standing.ANSWERED, "failed")
        assert found.message == CANCELLED
    assert file.entries == 1


def test_a_cancel_of_an_attempt_leaves_the_next_one_free(file):
    """A person asks for it again: then it runs, and its id is bound as ever."""
    assert _cancel(file, attempt=2) == "unknown"
    assert _begin(file, attempt=2).standing is Standing.ANSWERED
    assert _begin(file, attempt=3).standing is Standing.NEW
    assert _begin(file, attempt=3, digest=b"x").standing is Standing.DIFFERENT


def test_a_cancel_changes_nothing_of_what_has_ended(file):
    """Unless the attempt that is meant has not arrived yet."""
    _begin(file, "good")
    _finish(file, "good", message="made")
    _begin(file, "bad")
    _finish(file, "bad", status="failed", message="no")
    assert [_cancel(file, "good", 2), _cancel(file, "bad", 1), _cancel(file, "bad")] == ["done"] * 3
    assert _begin(file, "bad").message == "no"
    assert _cancel(file, "bad", 2) == "unknown"
    assert _begin(file, "bad", 2).message == CANCELLED
    assert _begin(file, "bad", 3).standing is Standing.NEW


def test_an_interrupted_run_that_is_cancelled_does_not_go_on(file):
    """It may have taken effect: that is looked for, and nothing more is done."""
    _begin(file)
    assert _cancel(file) == "unknown"
    found = _begin(file)
    assert (found.standing, found.status, found.message) == (
        Standing.CALLED_OFF,
        "failed",
        CANCELLED,
    )
    _finish(file, status="failed", message=CANCELLED)
    assert _cancel(file) == "cancelled"


def test_the_file_is_for_its_owner_only(file, path):
    """Journal and write-ahead log have mode 0600; a looser journal is tightened."""
    _begin(file)
    for name in (path, Path(f"{path}-wal")):
        assert stat.S_IMODE(name.stat().st_mode) == 0o600
    file.close()
    path.chmod(0o644)
    open_journal(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_commits_wait_for_the_disk(file):
    """The write-ahead log is synced at every commit."""
    assert file._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert file._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def _damage_with_garbage(path):
    path.write_bytes(b"this is no journal at all" * 400)


def _damage_by_emptying(path):
    path.write_bytes(b"")


def _damage_a_page(path):
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)


def _damage_by_losing_the_file(path):
    path.rename(path.with_name("elsewhere"))
    Path(f"{path}-wal").write_bytes(b"left behind")


def _damage_by_another_database(path):
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (id INTEGER)")
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        _damage_with_garbage,
        _damage_by_emptying,
        _damage_a_page,
        _damage_by_losing_the_file,
        _damage_by_another_database,
    ],
)
def test_a_damaged_journal_is_refused_in_one_line_and_left_alone(path, damage):
    """The line names the file and what to do; nothing is made anew in its place."""
    open_journal(path).close()
    damage(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(JournalError) as refused:
        open_journal(path)
    assert str(refused.value).startswith(f"{path}: the journal is damaged")
    assert "restore it from a backup" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_journal_of_another_version_is_refused(path):
    """The line says both versions."""
    open_journal(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match="version 99, this agent reads version 1"):
        open_journal(path)


def test_a_half_made_journal_does_not_count(path):
    """What a crash left while the first one was made is replaced, with all that belongs to it."""
    drafts = [path.with_name(f"journal.db.new{suffix}") for suffix in ("", "-wal", "-shm")]
    for draft in drafts:
        draft.write_bytes(b"half")
    file = open_journal(path)
    assert file.entries == 0
    assert not any(draft.exists() for draft in drafts)
    file.close()


def test_only_old_done_entries_beyond_the_bound_are_dropped(path):
    """Neither a young entry nor an unfinished one goes, nor more than is too much."""
    file = open_journal(path, kept=2)
    for number in range(6):
        _begin(file, f"r{number}")
        if number != 1:
            _finish(file, f"r{number}")
    later = journal_file._now() + KEPT_SECONDS * 1000 + 60_000
    file.start()
    assert file.prune() == 0
    file._prune_beyond = 2
    assert file.prune(now=later) == 4
    file.commit()
    left = {row[0] for row in file._connection.execute("SELECT request_id FROM requests")}
    assert left == {"r1", "r5"}
    assert file.entries == 2
    file.close()


def test_what_a_task_that_lives_may_ask_for_again_is_kept():
    """An entry outlives the longest deadline."""
    assert KEPT_SECONDS > MAX_DEADLINE_SECONDS


def test_unfinished_entries_do_not_hide_the_done_ones_behind_them(path):
    """However many there are; the done ones are found by their end, and not by reading all."""
    file = open_journal(path, kept=1)
    file.start()
    for number in range(1_500):
        file.begin(_asked(f"begun{number}"))
    file.begin(_asked("done"))
    file.finish("done", 1, "success", "")
    assert file.prune(now=journal_file._now() + KEPT_SECONDS * 1000 + 60_000) == 1
    file.commit()
    assert file.entries == 1_500
    plan = str(
        file._connection.execute(f"EXPLAIN QUERY PLAN {journal_file._PRUNE}", (0, 0)).fetchall()
    )
    assert "USING INDEX requests_by_end (done_at<?)" in plan
    file.close()


def test_a_journal_without_what_came_later_gets_it(path):
    """One that an earlier release made."""
    file = open_journal(path)
    file._connection.execute("DROP INDEX requests_by_end")
    file._connection.execute("DROP TABLE generations")
    file.close()
    again = open_journal(path)
    assert _begin(again, node_id=1, generation=1).standing is Standing.NEW
    assert again._number("SELECT count(*) FROM sqlite_master WHERE name = 'requests_by_end'") == 1
    again.close()


def test_while_nothing_is_old_enough_it_is_not_looked_for_every_time(path):
    """The next look comes a thousand entries later."""
    file = open_journal(path, kept=1)
    _begin(file, "a")
    _begin(file, "b")
    file.start()
    assert file.prune() == 0
    assert file._prune_beyond == 1002
    file.rollback()
    file.close()


IDS = st.sampled_from(["a", "b", "c"])
DIGESTS = st.sampled_from([b"1", b"2"])
NODES = st.integers(0, 2)
ATTEMPTS = st.integers(1, 4)
NEVER_ARRIVED = "never arrived"  #: the digest of what was cancelled before it came


class JournalMachine(RuleBasedStateMachine):
    """The journal against a dict, with crashes at every step."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "journal.db"
        self.file: JournalFile = open_journal(self.path)
        self.file._connection.execute("PRAGMA synchronous = OFF")
        self.model: dict[str, dict[str, Any]] = {}
        self.epochs: dict[int, int] = {}
        self.generations: dict[int, int] = {}
        self.saved = self._now()
        self.open = False

    def _now(self):
        return dict(self.model), dict(self.epochs), dict(self.generations)

    def _go_back(self):
        self.model, self.epochs, self.generations = (dict(part) for part in self.saved)
        self.open = False

    def _ensure_started(self):
        if not self.open:
            self.file.start()
            self.open = True

    def _expected(self, request_id, digest, attempt, *, past):
        entry = self.model.get(request_id)
        if entry is None:
            return Standing.OUTDATED if past else Standing.NEW
        if entry["digest"] not in (digest, NEVER_ARRIVED):
            return Standing.DIFFERENT
        if entry["status"] is None:
            off = past or (entry["message"] is not None and attempt <= entry["attempt"])
            return Standing.CALLED_OFF if off else Standing.INTERRUPTED
        if entry["status"] == "success" or attempt <= entry["attempt"]:
            return Standing.ANSWERED
        return Standing.OUTDATED if past else Standing.NEW

    @rule(
        request_id=IDS,
        digest=DIGESTS,
        attempt=ATTEMPTS,
        epoch=st.none() | st.integers(0, 5),
        node=NODES,
        generation=st.none() | st.integers(0, 5),
    )
    def begin(self, request_id, digest, attempt, epoch, node, generation):
        """Ask; the standing and the answer are what the dict says."""
        self._ensure_started()
        begun = self.generations.get(node, 0)
        past = generation is not None and generation < begun
        expected = self._expected(request_id, digest, attempt, past=past)
        asked = _asked(
            request_id, attempt, digest, epoch=epoch, node_id=node, generation=generation
        )
        found = self.file.begin(asked)
        self.epochs[node] = max(self.epochs.get(node, 0), epoch or 0)
        assert found.standing is expected
        if expected in {Standing.ANSWERED, Standing.CALLED_OFF}:
            entry = self.model[request_id]
            if expected is Standing.ANSWERED:
                assert found.status == entry["status"]
            assert found.message == entry["message"] or found.begun_generation == begun
        elif expected is Standing.OUTDATED:
            assert found.begun_generation == begun
        elif expected is not Standing.DIFFERENT:
            self.generations[node] = max(begun, generation or 0)
            known = self.model.get(request_id, {"attempt": 0})["attempt"]
            self.model[request_id] = {
                "digest": digest,
                "attempt": max(known, attempt),
                "status": None,
                "message": None,
            }

    @rule(
        request_id=IDS,
        attempt=ATTEMPTS,
        status=st.sampled_from(["success", "failed"]),
        message=st.text(max_size=5) | st.just(CANCELLED),
    )
    def finish(self, request_id, attempt, status, message):
        """End a begun request; anything else stays as it is."""
        self._ensure_started()
        self.file.finish(request_id, attempt, status, message)
        entry = self.model.get(request_id)
        if entry is not None and entry["status"] is None:
            top = max(entry["attempt"], attempt)
            self.model[request_id] = {
                **entry,
                "attempt": top,
                "status": status,
                "message": message,
            }

    @rule(
        request_id=IDS,
        attempt=st.none() | ATTEMPTS,
        epoch=st.none() | st.integers(0, 5),
        node=st.integers(1, 2),
    )
    def cancel(self, request_id, attempt, epoch, node):
        """Cancel; what has ended stays, and whatever else arrives of it does nothing."""
        self._ensure_started()
        order = CancelRequest(request_id, node_id=node, epoch=epoch, attempt=attempt)
        state = self.file.cancel(order)
        self.epochs[node] = max(self.epochs.get(node, 0), epoch or 0)
        entry = self.model.get(
            request_id, {"digest": NEVER_ARRIVED, "attempt": 0, "status": "failed"}
        )
        arrived = entry["digest"] != NEVER_ARRIVED
        meant = attempt or (entry["attempt"] if arrived else MAX_NUMBER)
        ended = entry["status"] is not None
        if ended and (entry["status"] == "success" or meant <= entry["attempt"]):
            told = "cancelled" if entry["message"] == CANCELLED else "done"
            assert state == (told if arrived else "unknown")
            return
        assert state == "unknown"
        top = max(entry["attempt"], meant)
        self.model[request_id] = {**entry, "attempt": top, "message": CANCELLED}

    @precondition(lambda self: self.open)
    @rule()
    def commit(self):
        """Keep what was written."""
        self.file.commit()
        self.saved = self._now()
        self.open = False

    @precondition(lambda self: self.open)
    @rule()
    def roll_back(self):
        """Drop what was not committed."""
        self.file.rollback()
        self._go_back()

    @rule()
    def crash(self):
        """Close without a commit, and open again."""
        self.file.close()
        self.file = open_journal(self.path)
        self.file._connection.execute("PRAGMA synchronous = OFF")
        self._go_back()

    @invariant()
    def the_numbers_on_disk_and_as_many_entries(self):
        """Epochs and generations follow the commits, the number of entries what was written."""
        for node in range(3):
            assert self.file.epochs.committed.of(node) == self.saved[1].get(node, 0)
            assert self.file.generations.committed.of(node) == self.saved[2].get(node, 0)
        assert self.file.entries == len(self.model)

    def teardown(self):
        """Tidy up."""
        self.file.close()
        self.folder.cleanup()


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.__doc__ = "What is committed survives a crash, what is not never was."
TestJournalMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
