"""The attempts of a task: every delivery there was, and the one that is out."""

from datetime import timedelta

import pytest

from edgeplane.model.lifecycle import begin
from edgeplane.model.tasks import Attempt, Outcome
from edgeplane.store import attempts, mailboxes, task_moves
from edgeplane.store.mailboxes import Lease
from kit.factories import NOW


def ended(task, number, **given):
    """Make an attempt that has ended."""
    values = {
        "begun_at": NOW + timedelta(seconds=number),
        "ended_at": NOW + timedelta(seconds=number, milliseconds=500),
        "outcome": Outcome.UNANSWERED,
        "message": f"words {number}",
        "replica": "a-replica",
        "address": "192.0.2.1:9090",
    }
    return Attempt(task_id=task.id, number=number, **{**values, **given})


@pytest.fixture
async def task(either_house):
    """A task of its own node."""
    return await either_house.task(await either_house.node())


@pytest.fixture
def caller(either_house):
    """Call as a viewer."""
    return next(iter(either_house.callers.values()))


async def test_an_attempt_is_told_whole(either_house, caller, task):
    """When, how it ended, in whose words, what was captured, who sent it and where to."""
    done = ended(task, 1, outcome=Outcome.FAILED, output="nginx: [emerg] x\n")
    await either_house.database.write(lambda tx: attempts.add(tx, [done]))
    data = await caller.data(f"/agent-tasks/{task.id}/attempts")
    assert data == {
        "list": [
            {
                "number": 1,
                "begunAt": "2026-01-23T10:00:01.000Z",
                "endedAt": "2026-01-23T10:00:01.500Z",
                "outcome": "failed",
                "message": "words 1",
                "output": "nginx: [emerg] x\n",
                "replica": "a-replica",
                "address": "192.0.2.1:9090",
            }
        ],
        "total": 1,
        "page": 1,
        "pageSize": 20,
        "nextCursor": None,
    }


async def put_out(house, task, number):
    """Let somebody hold the node and send the task's attempt of this number."""

    def write(tx):
        mailboxes.claim_due(tx, 10, Lease(owner="an-owner", seconds=10))
        task_moves.write_begun(tx, [begin(task, tx.now)])

    await house.move(task, attempts=number - 1)
    await house.database.write(write)


async def test_the_one_that_is_out_comes_first(either_house, caller, task):
    """Its number is the task's, its sender who holds the node; how it ends is not known."""
    await either_house.database.write(lambda tx: attempts.add(tx, [ended(task, 1)]))
    await put_out(either_house, task, 2)
    shown = await caller.data(f"/agent-tasks/{task.id}")
    data = await caller.data(f"/agent-tasks/{task.id}/attempts")
    assert (data["total"], [each["number"] for each in data["list"]]) == (2, [2, 1])
    assert data["list"][0] == {
        "number": 2,
        "begunAt": shown["startedAt"],
        "endedAt": None,
        "outcome": None,
        "message": None,
        "output": None,
        "replica": "an-owner",
        "address": None,
    }


@pytest.mark.parametrize("way", ["cursor", "page"])
async def test_all_are_reached_page_by_page(either_house, caller, task, way):
    """Each once, newest first, the one that is out among them."""
    rows = [ended(task, number) for number in range(1, 8)]
    await either_house.database.write(lambda tx: attempts.add(tx, rows))
    await put_out(either_house, task, 8)
    seen, asked = [], {"pageSize": 3}
    for page in range(1, 4):
        data = await caller.data(f"/agent-tasks/{task.id}/attempts", **asked)
        seen += [each["number"] for each in data["list"]]
        assert data["total"] == 8
        if data["nextCursor"] is None:
            break
        asked |= {"cursor": data["nextCursor"]} if way == "cursor" else {"page": page + 1}
    assert seen == [8, 7, 6, 5, 4, 3, 2, 1]


async def test_a_task_that_was_never_sent_has_none(caller, task):
    """An empty list, not an error."""
    assert (await caller.data(f"/agent-tasks/{task.id}/attempts"))["list"] == []


@pytest.mark.parametrize(
    ("written", "brief"), [("999", (404, 3001)), ("x", (400, 2002)), ("0", (400, 2002))]
)
async def test_no_task_has_no_attempts(caller, written, brief):
    """An unknown id is told from one that is none."""
    assert (await caller.get(f"/agent-tasks/{written}/attempts")).brief == brief
