"""The shared journal: each agent's own record, durable before anybody is told."""

import asyncio
import sqlite3
from dataclasses import replace
from functools import partial

import pytest

from edgeplane.agent.journal_file import Standing
from edgeplane.swarm import push
from edgeplane.swarm.journal import DurableJournal, ForgetfulJournal
from edgeplane.swarm.journal_file import JournalFile
from edgeplane.swarm.records import Asked, Found
from edgeplane.transport.base import Busy

ASKED = Asked(
    agent=1, request_id="r1", digest=b"d", attempt=1, node_id=7, epoch=3, generation=None, at=0.0
)


@pytest.fixture
def file(tmp_path):
    """Return an open journal with a transaction begun."""
    opened = JournalFile(tmp_path / "journal.db")
    opened.start()
    yield opened
    opened.close()


def test_a_request_is_new_then_interrupted_then_answered(file):
    """A failure is begun again under a higher attempt, a success never."""
    assert file.begin(ASKED) == Found(Standing.NEW)
    assert file.begin(ASKED) == Found(Standing.INTERRUPTED)
    file.finish(ASKED, 1, "failed", "no")
    assert file.begin(ASKED) == Found(Standing.ANSWERED, "failed", "no")
    again = replace(ASKED, attempt=2)
    assert file.begin(again) == Found(Standing.NEW)
    file.finish(again, 2, "success", "yes")
    assert file.begin(replace(ASKED, attempt=3)) == Found(Standing.ANSWERED, "success", "yes")
    assert file.begin(replace(ASKED, digest=b"e")) == Found(Standing.DIFFERENT)
    assert file.begin(replace(ASKED, agent=2)) == Found(Standing.NEW)
    assert (file.entries, file.begun()) == ({1: 2, 2: 1}, {(2, "r1")})


def test_an_older_generation_is_not_begun(file):
    """Of its node at its agent; one begun before and interrupted may only be told as it was."""
    config = replace(ASKED, generation=5)
    assert file.begin(config) == Found(Standing.NEW)
    assert file.begin(replace(config, request_id="r2", generation=6)) == Found(Standing.NEW)
    assert file.begin(replace(config, request_id="r3")) == Found(Standing.NEW, outdated_by=6)
    assert file.begin(config) == Found(Standing.INTERRUPTED, outdated_by=6)
    assert file.begin(replace(config, request_id="r3", node_id=8)) == Found(Standing.NEW)
    assert file.begin(replace(config, request_id="r4", generation=6)) == Found(Standing.NEW)


def test_what_was_rolled_back_was_never_there(file, tmp_path):
    """Neither the entry nor the epoch nor the count; what was committed is, opened again."""
    file.begin(ASKED)
    file.commit()
    file.start()
    file.begin(replace(ASKED, request_id="r2", epoch=9, generation=4))
    file.rollback()
    assert (file.nodes, file.entries) == ({1: {7: (3, 0)}}, {1: 1})
    file.close()
    opened = JournalFile(tmp_path / "journal.db")
    assert (opened.nodes, opened.entries, opened.begun()) == (
        {1: {7: (3, 0)}},
        {1: 1},
        {(1, "r1")},
    )
    opened.close()


async def test_many_writes_share_a_commit_and_hear_of_it_after(tmp_path):
    """Another connection sees each by the time its caller is told."""
    path = tmp_path / "journal.db"
    told: asyncio.Queue[Found | None] = asyncio.Queue()
    commits = []

    class Counted(JournalFile):
        def commit(self) -> None:
            super().commit()
            commits.append(1)

    journal = DurableJournal(Counted(path))
    for number in range(500):
        journal.begin(replace(ASKED, request_id=f"r{number}"), told.put_nowait)
    for _ in range(500):
        assert await told.get() == Found(Standing.NEW)
    assert len(commits) < 100
    assert (journal.entries(1), journal.epochs(1)) == (500, {7: 3})
    journal.close()


async def test_where_the_disk_refuses_nobody_is_told_of_success(swarm, monkeypatch):
    """The answer may pass by itself; nothing was done, and once the disk is back it is."""

    def full(self):
        raise sqlite3.OperationalError("database or disk is full")

    here = await swarm()
    with monkeypatch.context() as broken:
        broken.setattr(JournalFile, "commit", full)
        with pytest.raises(Busy, match="500: journal cannot be written"):
            await here.ask("r1")
    assert here.told("effect") == []
    assert (await here.ask("r1")).status == "success"
    assert here.told("effect") == ["r1"]


async def test_an_outdated_config_is_told_by_which(swarm, monkeypatch):
    """Status 409, and the generation that stands before it beside the words."""
    found = Found(Standing.NEW, outdated_by=6)
    monkeypatch.setattr(JournalFile, "begin", lambda self, asked: found)
    here = await swarm()
    body = b'{"requestId":"r1","type":"apply_config","nodeId":7}'
    head = (
        f"POST {push.EXECUTE_PATH} HTTP/1.1\r\nauthorization: Bearer an-agent-token-for-tests\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    answered = await here.raw(head.encode() + body)
    assert answered.startswith(b"HTTP/1.1 409 ")
    assert answered.endswith(b'"data":{"begunGeneration":6}}')
    assert here.told("effect") == []


def test_the_forgetful_journal_follows_the_same_rules():
    """Save that it is not on disk."""
    journal, told = ForgetfulJournal(), []
    begin = partial(journal.begin, then=told.append)
    begin(ASKED)
    begin(ASKED)
    journal.finish(ASKED, 1, "failed", "no", told.append)
    begin(ASKED)
    begin(replace(ASKED, attempt=2))
    begin(replace(ASKED, digest=b"e"))
    assert [one.standing for one in told if isinstance(one, Found)] == [
        Standing.NEW,
        Standing.INTERRUPTED,
        Standing.ANSWERED,
        Standing.NEW,
        Standing.DIFFERENT,
    ]
    assert (journal.entries(1), journal.bytes_on_disk(), journal.epochs(1)) == (1, 0, {})
