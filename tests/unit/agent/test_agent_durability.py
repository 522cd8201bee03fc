"""What is on disk before what: the order of syncs, commits and renames, as the agent makes them."""

import os
from pathlib import Path

import msgspec
import pytest

from edgeplane.agent.executions import Executions
from edgeplane.agent.executors.simulated import SimulatedExecutor
from edgeplane.agent.journal import Journal
from edgeplane.agent.journal_file import JournalFile
from edgeplane.agent.journal_opening import open_journal
from edgeplane.wire import ExecuteRequest


@pytest.fixture
def done(monkeypatch):
    """Record what has been done for durability, in order, each with the name it was done to."""
    order = []

    def recorded(owner, name, tell):
        original = getattr(owner, name)

        def call(*args, **named):
            told = tell(*args)
            result = original(*args, **named)
            order.append(told)
            return result

        monkeypatch.setattr(owner, name, call)

    recorded(os, "fsync", lambda descriptor: f"fsync {_kind(_path(descriptor))}")
    recorded(os, "replace", lambda old, new: f"{_kind(Path(old))} becomes {new}")
    recorded(Path, "rename", lambda old, new: f"{old.name} becomes {new.name}")
    recorded(JournalFile, "begin", lambda *_: "begin")
    recorded(JournalFile, "finish", lambda *_: "finish")
    recorded(JournalFile, "commit", lambda *_: "COMMIT")
    return order


def _path(descriptor):
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _kind(path):
    return "draft" if path.name.startswith(".cmdb_draft_") else path.name


async def test_a_task_is_on_disk_step_by_step_before_it_is_answered(tmp_path, done):
    """Begun, then the draft whole, then under its name, then the name itself, then done."""
    (tmp_path / "files").mkdir()
    journal = Journal(open_journal(tmp_path / "journal.db"))
    executor = SimulatedExecutor(tmp_path / "files", owner=tmp_path)
    executions = Executions(journal, executor)
    done.clear()
    reply = await executions.execute(ExecuteRequest("r1", "reload", msgspec.Raw(b"{}")))
    done.append(reply.status)
    await executions.close(1)
    await journal.close()
    executor.close()
    assert done == [
        "begin",
        "COMMIT",
        "fsync draft",
        "draft becomes cmdb_reload_r1.txt",
        "fsync files",
        "finish",
        "COMMIT",
        "success",
    ]


def test_what_an_interrupted_run_made_is_on_disk_before_it_is_told(tmp_path, done):
    """It may have died between the rename and the sync of the folder."""
    (tmp_path / "files").mkdir()
    executor = SimulatedExecutor(tmp_path / "files", owner=tmp_path)
    (tmp_path / "files" / "cmdb_reload_r1.txt").write_text("Reload task executed at r1\n")
    found = executor.recover(ExecuteRequest("r1", "reload", msgspec.Raw(b"{}")))
    executor.close()
    assert found is not None
    assert done == ["fsync files"]


def test_a_new_journal_is_whole_on_disk_before_it_has_its_name(tmp_path, done):
    """And the name is on disk before anything is entered."""
    folder = tmp_path / "state"
    folder.mkdir()
    open_journal(folder / "journal.db").close()
    assert done == ["fsync journal.db.new", "journal.db.new becomes journal.db", "fsync state"]
