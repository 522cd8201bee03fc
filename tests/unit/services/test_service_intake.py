"""The intake: creates that share a commit, on a database that is scripted."""

import asyncio
import gc
import weakref

import pytest

from edgeplane.model.errors import DatabaseAway, NotFound, TooMany
from edgeplane.services import intake as module
from edgeplane.services import tasks
from edgeplane.services.intake import Intake
from kit import factories


class Commits:
    """A database whose commits are let through one by one; answers are as the script says."""

    def __init__(self, monkeypatch):
        self.batches = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.answer = lambda asked: f"task of {asked.request_id}"
        monkeypatch.setattr(tasks, "create_many", self._create_many)

    async def create(self, work):
        """Run a transaction once the gate is open."""
        self.begun.set()
        await self.gate.wait()
        return work(None)

    def _create_many(self, _tx, asked):
        self.batches.append([task.request_id for task in asked])
        return [self.answer(task) for task in asked]


@pytest.fixture
def commits(monkeypatch):
    """Make a scripted database."""
    return Commits(monkeypatch)


@pytest.fixture
def told():
    """Collect hints."""
    return []


@pytest.fixture
def intake(commits, told):
    """Make an intake on it."""
    return Intake(commits, lambda ids: told.append(set(ids)))


def asked(name, node=1, payload="{}"):
    """Make a task to ask for."""
    return factories.new_task(node, request_id=name, payload=payload)


async def submit(intake, *wanted):
    """Hand tasks in, and let each get as far as it can."""
    running = [asyncio.create_task(intake.submit(task)) for task in wanted]
    await asyncio.sleep(0)
    return running


async def test_what_comes_during_a_commit_shares_the_next(intake, commits, told):
    """Nobody is answered, and no hint given, before the commit of their own batch."""
    first = await submit(intake, asked("a"))
    await commits.begun.wait()
    more = await submit(intake, asked("b", 2), asked("c", 3), asked("d", 2))
    assert not any(call.done() for call in first + more)
    assert told == []
    commits.gate.set()
    assert await asyncio.gather(*first, *more) == [f"task of {name}" for name in "abcd"]
    assert commits.batches == [["a"], ["b", "c", "d"]]
    assert told == [{1}, {2, 3}]


async def test_a_batch_has_a_bound_in_tasks(intake, commits, monkeypatch):
    """More than that goes into several commits, in order."""
    monkeypatch.setattr(module, "MAX_BATCH", 3)
    calls = await submit(intake, *(asked(name) for name in "abcdefgh"))
    commits.gate.set()
    await asyncio.gather(*calls)
    assert commits.batches == [["a", "b", "c"], ["d", "e", "f"], ["g", "h"]]


async def test_a_batch_has_a_bound_in_bytes(intake, commits, monkeypatch):
    """Payloads above the bound wait for the next commit; a single large one goes alone."""
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 10)
    sizes = {"a": 4, "b": 6, "c": 1, "d": 50, "e": 10, "f": 1}
    calls = await submit(intake, *(asked(name, payload="x" * size) for name, size in sizes.items()))
    commits.gate.set()
    await asyncio.gather(*calls)
    assert commits.batches == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]


async def test_what_may_wait_has_a_bound(intake, commits, monkeypatch):
    """One too many is refused at once; when there is room again it is taken."""
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    calls = await submit(intake, asked("a"))
    await commits.begun.wait()
    calls += await submit(intake, asked("b"), asked("c"))
    with pytest.raises(TooMany) as caught:
        await intake.submit(asked("d"))
    assert caught.value.retry_after >= 1
    commits.gate.set()
    await asyncio.gather(*calls)
    assert await intake.submit(asked("d")) == "task of d"
    assert commits.batches == [["a"], ["b", "c"], ["d"]]


async def test_each_gets_an_answer_of_its_own(intake, commits):
    """A refused task beside accepted ones is refused alone."""
    commits.answer = lambda task: NotFound("gone") if task.request_id == "b" else "stored"
    calls = await submit(intake, asked("a"), asked("b"), asked("c"))
    commits.gate.set()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [found[0], type(found[1]), found[2]] == ["stored", NotFound, "stored"]


async def test_a_commit_that_fails_fails_all_of_it_and_nothing_later(intake, commits, told):
    """Everybody in the batch hears it, nobody is told a success, and the next batch goes on."""

    def fail(_asked):
        raise DatabaseAway("away")

    commits.answer = fail
    commits.gate.set()
    found = await asyncio.gather(
        *(intake.submit(asked(name)) for name in "ab"), return_exceptions=True
    )
    assert [type(error) for error in found] == [DatabaseAway, DatabaseAway]
    assert told == []
    commits.answer = lambda _asked: "stored"
    assert await intake.submit(asked("c")) == "stored"
    assert told == [{1}]


async def test_a_caller_who_gave_up_holds_nobody_up(intake, commits, told):
    """A cancelled request's task is stored with the others; they get their answers."""
    calls = await submit(intake, asked("a"), asked("b"))
    calls[0].cancel()
    commits.gate.set()
    assert await calls[1] == "task of b"
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    assert commits.batches == [["a", "b"]]
    assert told == [{1}]


async def test_what_was_refused_is_freed_at_once(intake, commits):
    """Not by the collector, which comes seldom: each may hold a payload of a megabyte."""
    commits.answer = lambda _asked: NotFound("nodeId: node 1 not found")
    commits.gate.set()
    errors = []

    async def ask(name):
        try:
            await intake.submit(asked(name))
        except NotFound as error:
            errors.append(weakref.ref(error))

    gc.disable()
    try:
        await ask("a")
        await asyncio.sleep(0)  # what woke this test up holds it until then
        assert errors[-1]() is None
    finally:
        gc.enable()
