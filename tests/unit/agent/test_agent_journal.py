"""The awaitable journal: shared commits, nothing told before them, and a disk that fails."""

import asyncio
import sqlite3
import threading
from typing import cast

import pytest

from edgeplane.agent.journal import Journal
from edgeplane.agent.journal_file import Asked, JournalFile, Standing
from edgeplane.agent.journal_opening import open_journal
from edgeplane.model.errors import DatabaseError


def _asked(request_id, epoch=None):
    return Asked(request_id=request_id, kind="reload", digest=b"d", attempt=1, epoch=epoch)


class HeldFile:
    """A journal file whose commits wait to be let go, one by one."""

    def __init__(self, file):
        self._file = file
        self.reached = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.commits = 0

    def __getattr__(self, name):
        return getattr(self._file, name)

    def commit(self):
        """Say that it is reached, wait, and commit."""
        self.reached.release()
        assert self.let_go.acquire(timeout=10)
        self._file.commit()
        self.commits += 1


@pytest.fixture
def path(tmp_path):
    """Where the journal lies."""
    return tmp_path / "journal.db"


async def test_nobody_is_told_before_the_commit_and_what_gathers_shares_the_next(path):
    """While one commit is under way, a hundred begins wait, and then share a single one."""
    file = HeldFile(open_journal(path))
    journal = Journal(cast("JournalFile", file))
    first = asyncio.create_task(journal.begin(_asked("first")))
    await asyncio.to_thread(file.reached.acquire)
    rest = [asyncio.create_task(journal.begin(_asked(f"r{n}"))) for n in range(100)]
    await asyncio.sleep(0)
    assert not first.done()
    file.let_go.release()
    assert (await first).standing is Standing.NEW
    await asyncio.to_thread(file.reached.acquire)
    assert not any(task.done() for task in rest)
    file.let_go.release()
    assert {found.standing for found in await asyncio.gather(*rest)} == {Standing.NEW}
    assert file.commits == 2
    await journal.close()


async def test_within_one_batch_later_entries_see_earlier_ones(path):
    """The same id asked for twice in one commit begins once."""
    journal = Journal(open_journal(path))
    found = await asyncio.gather(journal.begin(_asked("a")), journal.begin(_asked("a")))
    assert [one.standing for one in found] == [Standing.NEW, Standing.INTERRUPTED]
    await journal.close()


async def test_a_full_disk_fails_everyone_in_the_commit_and_nothing_of_it_counts(path):
    """After room is made the journal goes on as if nothing had been asked."""
    file = open_journal(path)
    journal = Journal(file)
    await journal.begin(_asked("before", epoch=1))
    pages = file._connection.execute("PRAGMA page_count").fetchone()[0]
    file._connection.execute(f"PRAGMA max_page_count = {pages}")
    asks = [journal.begin(_asked(f"{n:064d}", epoch=2)) for n in range(200)]
    outcomes = await asyncio.gather(*asks, return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, DatabaseError)]
    assert refused
    assert {one.message for one in refused} == {"journal cannot be written"}
    assert journal.entries == 1 + len(outcomes) - len(refused)
    file._connection.execute("PRAGMA max_page_count = 100000")
    assert (await journal.begin(_asked("after", epoch=3))).standing is Standing.NEW
    assert journal.epochs.of(0) == 3
    await journal.close()


async def test_the_thread_outlives_an_error_nobody_foresaw(path):
    """One broken write is refused; the next one works."""
    journal = Journal(open_journal(path))
    with pytest.raises(DatabaseError):
        await journal._write(lambda _: 1 // 0)
    assert (await journal.begin(_asked("a"))).standing is Standing.NEW
    await journal.close()


async def test_a_rollback_that_fails_too_is_survived(path, monkeypatch):
    """The refusal is the same."""
    file = open_journal(path)

    def broken():
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(file, "commit", broken)
    monkeypatch.setattr(file, "rollback", broken)
    journal = Journal(file)
    with pytest.raises(DatabaseError):
        await journal.begin(_asked("a"))
    await journal.close()


async def test_closing_writes_what_waits_and_refuses_what_comes_later(path):
    """An entry accepted before the end is on disk after it."""
    journal = Journal(open_journal(path))
    waiting = asyncio.create_task(journal.begin(_asked("a", epoch=4)))
    await asyncio.sleep(0)
    await journal.close()
    assert (await waiting).standing is Standing.NEW
    with pytest.raises(DatabaseError, match="stopping"):
        await journal.raise_epoch(9, 0)
    again = open_journal(path)
    assert (again.entries, again.epochs.of(0)) == (1, 4)
    again.close()


async def test_a_disk_that_hangs_does_not_hold_up_the_end(path):
    """The wait is bounded, and its end is told."""
    file = HeldFile(open_journal(path))
    journal = Journal(cast("JournalFile", file))
    waiting = asyncio.create_task(journal.begin(_asked("a")))
    await asyncio.to_thread(file.reached.acquire)
    assert await asyncio.wait_for(journal.close(0.01), 10) is False
    file.let_go.release()
    assert await journal.close() is True
    assert (await waiting).standing is Standing.NEW
