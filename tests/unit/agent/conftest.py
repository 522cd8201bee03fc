"""Executions on a journal, with an executor that does what the test says."""

import asyncio
import threading

import pytest

from edgeplane.agent.executions import Executions
from edgeplane.agent.journal import Journal
from edgeplane.agent.journal_file import JournalFile
from edgeplane.agent.journal_opening import open_journal
from kit.executors import WAIT, ScriptedExecutor, entered


@pytest.fixture
def executor():
    """Make an executor; let it go at the end, whatever happened."""
    made = ScriptedExecutor()
    yield made
    made.gate.set()
    made.recovery.set()
    made.after_permit.set()


@pytest.fixture
async def start(tmp_path, executor):
    """Return a function that starts executions on the same journal, as a process would."""
    started = []

    def begin(**options):
        file = open_journal(tmp_path / "journal.db")
        journal = Journal(file)
        executions = Executions(journal, executor, **options)
        started.append((executions, journal))
        return executions

    yield begin
    executor.gate.set()
    executor.recovery.set()
    executor.after_permit.set()
    for executions, journal in started:
        await executions.close(WAIT)
        await journal.close()


class Commits:
    """Whether commits of a journal go through now, and a sign for each that has begun."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.let_go.set()


@pytest.fixture
def commits(monkeypatch):
    """Hold the commits of every journal while the test says so."""
    held = Commits()
    commit = JournalFile.commit

    def wait_and_commit(file):
        held.begun.release()
        assert held.let_go.wait(WAIT)
        commit(file)

    monkeypatch.setattr(JournalFile, "commit", wait_and_commit)
    yield held
    held.let_go.set()


@pytest.fixture
def time_is_up(monkeypatch, executor):
    """Return a function: a limit of 3 s passes once the executor has got to so many places."""
    original = asyncio.wait
    passed = asyncio.Event()

    def after(places):
        async def wait(futures, **named):
            if named.get("timeout") != 3:
                return await original(futures, **named)
            for _ in range(places):
                await entered(executor)
            passed.set()
            return await original(futures, timeout=0)

        monkeypatch.setattr(asyncio, "wait", wait)
        return passed

    return after
