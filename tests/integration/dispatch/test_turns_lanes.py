"""Turns of the engine, one by one: what begins, what waits, what has ended."""

from dataclasses import replace
from datetime import timedelta

import pytest

from edgeplane.model.errors import WrongState
from edgeplane.model.nodes import NodeStatus
from edgeplane.model.tasks import Outcome, TaskKind, TaskStatus
from edgeplane.services import nodes as node_rule
from edgeplane.services import tasks as task_rule
from edgeplane.services.nodes import NodeChange
from edgeplane.store import mailboxes
from kit.engines import came_back
from kit.factories import ended_attempts

PURGE = TaskKind.PURGE_CACHE


def ids(turn):
    """Return the ids of what began."""
    return [delivery.task.id for delivery in turn.begun]


async def next_at(database, node_id):
    """Return when a mailbox is due."""
    from sqlalchemy import select

    from edgeplane.store.rows import node_mailboxes as boxes

    query = select(boxes.c.next_at).where(boxes.c.node_id == node_id)
    return await database.read(lambda tx: tx.conn.scalar(query))


async def test_only_the_head_of_the_config_lane_begins(turner, ask, node_id):
    """Of three tasks one begins; the next one when it has ended, in order."""
    first, second, third = await ask(node_id, number=3)
    turn = await turner.take()
    assert ids(turn) == [first.id]
    assert ids(await turner.take(look_at=[node_id])) == []
    turn = await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert ids(turn) == [second.id]
    turn = await turner.take([came_back(turn.begun[0], Outcome.FAILED)])
    assert ids(turn) == [third.id]
    turn = await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert (ids(turn), turn.gone, turn.next_due) == ([], {node_id}, None)


async def test_purges_begin_side_by_side_up_to_the_limit(turner, ask, node_id):
    """Two at a time where the limit is two, oldest first; a third when one is back."""
    asked = [task.id for task in await ask(node_id, PURGE, number=4)]
    turn = await turner.take()
    assert ids(turn) == asked[:2]
    turn = await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert ids(turn) == asked[2:3]


async def test_a_head_in_back_off_blocks_its_lane_but_no_purge(turner, ask, node_id):
    """What failed for now is waited for; purges overtake it."""
    head, second = await ask(node_id, number=2)
    turn = await turner.take()
    turn = await turner.take([came_back(turn.begun[0], Outcome.BUSY)])
    assert ids(turn) == []
    (purge,) = await ask(node_id, PURGE)
    turn = await turner.take()
    assert ids(turn) == [purge.id]
    turn = await turner.take(
        [came_back(turn.begun[0], Outcome.SUCCEEDED)], now=turn.now + timedelta(seconds=61)
    )
    assert ids(turn) == [head.id]
    assert second.id not in ids(turn)


async def test_a_mailbox_with_nothing_due_is_due_at_its_next_retry(turner, ask, look, node_id):
    """Neither earlier, nor never."""
    (asked,) = await ask(node_id)
    turn = await turner.take()
    turn = await turner.take([came_back(turn.begun[0], Outcome.BUSY)])
    (waiting,) = await look([asked])
    assert turn.next_due == waiting.next_retry_at
    assert await next_at(turner.database, node_id) == waiting.next_retry_at
    early = await turner.take(now=waiting.next_retry_at - timedelta(milliseconds=1))
    assert (early.held, ids(early)) == ({}, [])
    assert ids(await turner.take(now=waiting.next_retry_at)) == [asked.id]


async def test_a_node_held_on_is_to_be_looked_at_when_something_is_due(turner, ask, look, node_id):
    """A purge in back-off beside a running task: the turn says when."""
    await ask(node_id)
    (purge,) = await ask(node_id, PURGE)
    turn = await turner.take()
    turn = await turner.take([came_back(turn.begun[1], Outcome.BUSY)])
    (waiting,) = await look([purge])
    assert turn.look_again == {node_id: waiting.next_retry_at}
    turn = await turner.take(look_at=[node_id], now=waiting.next_retry_at)
    assert ids(turn) == [purge.id]


@pytest.mark.parametrize(
    "pause", [NodeChange(enabled=False), NodeChange(status=NodeStatus.MAINTENANCE)]
)
async def test_a_paused_node_is_sent_nothing_and_deadlines_pass(turner, ask, look, node_id, pause):
    """What waits is due again when the node is; what is late ends."""
    (late,) = await ask(node_id, deadline_seconds=60)
    (waiting,) = await ask(node_id)
    await node_rule.update(turner.database, node_id, pause)
    turn = await turner.take()
    assert ids(turn) == []
    assert turn.next_due == late.deadline_at
    turn = await turner.take(now=late.deadline_at)
    assert (ids(turn), turn.next_due) == ([], waiting.deadline_at)
    (expired,) = await look([late])
    assert expired.last_error == "deadline exceeded: not done within 60 s of being asked for"
    assert (expired.status, expired.outcome) == (TaskStatus.FAILED, Outcome.EXPIRED)
    assert (expired.attempts, expired.finished_at) == (0, late.deadline_at)
    back = NodeChange(enabled=True, status=NodeStatus.ONLINE)
    await node_rule.update(turner.database, node_id, back)
    assert ids(await turner.take()) == [waiting.id]


async def test_expiry_names_the_last_error(turner, ask, look, node_id):
    """So that a person sees what it had been waiting for."""
    (asked,) = await ask(node_id, deadline_seconds=5)
    turn = await turner.take()
    await turner.take([came_back(turn.begun[0], Outcome.UNREACHABLE, "connection refused")])
    await turner.take(now=asked.deadline_at)
    (expired,) = await look([asked])
    assert expired.final
    assert expired.last_error == (
        "deadline exceeded: not done within 5 s of being asked for; last error: connection refused"
    )


@pytest.mark.parametrize("outcome", [Outcome.BUSY, Outcome.UNANSWERED, Outcome.UNREACHABLE])
async def test_with_one_attempt_allowed_any_failure_is_final(turner, ask, look, node_id, outcome):
    """max_attempts=1 turns all trying again off."""
    (asked,) = await ask(node_id, max_attempts=1)
    turn = await turner.take()
    turn = await turner.take([came_back(turn.begun[0], outcome, "why")])
    (ended,) = await look([asked])
    assert (ended.final, ended.attempts, ended.last_error) == (True, 1, "why")
    assert turn.next_due is None


async def test_counted_attempts_run_out(turner, ask, look, node_id):
    """Three allowed, three failures: the third is final; all three are on record."""
    (asked,) = await ask(node_id, max_attempts=3)
    now = None
    for _ in range(3):
        turn = await turner.take(now=now)
        assert ids(turn) == [asked.id]
        turn = await turner.take([came_back(turn.begun[0], Outcome.UNANSWERED)], now=now)
        now = turn.now + timedelta(seconds=61)
    (ended,) = await look([asked])
    assert (ended.final, ended.attempts, ended.counted_attempts) == (True, 3, 3)
    assert ids(await turner.take(now=now)) == []
    found = await turner.database.read(lambda tx: ended_attempts(tx, asked.id))
    assert [(a.number, a.outcome) for a in found] == [(n, Outcome.UNANSWERED) for n in (1, 2, 3)]


async def test_a_persons_retry_opens_a_new_run_and_an_automatic_one_does_not(
    turner, ask, look, node_id
):
    """The agent answers the same run from its journal, and a new one by doing it."""
    (asked,) = await ask(node_id)
    turn = await turner.take()
    assert turn.begun[0].task.run == 1
    turn = await turner.take([came_back(turn.begun[0], Outcome.UNANSWERED)])
    turn = await turner.take(now=turn.next_due)
    assert (turn.begun[0].task.run, turn.begun[0].task.attempts) == (1, 2)
    await turner.take([came_back(turn.begun[0], Outcome.FAILED)])
    again = await task_rule.retry(turner.database, asked.id)
    assert (again.status, again.run, again.attempts) == (TaskStatus.PENDING, 3, 2)
    assert again.request_id == asked.request_id
    turn = await turner.take()
    assert (turn.begun[0].task.run, turn.begun[0].task.attempts) == (3, 3)
    assert [task.last_error for task in await look([asked])] == [None]


async def test_two_retries_start_one_attempt(turner, ask, node_id):
    """The second one is refused, or finds nothing left to begin."""
    import asyncio

    (asked,) = await ask(node_id)
    turn = await turner.take()
    await turner.take([came_back(turn.begun[0], Outcome.REFUSED)])
    retries = [task_rule.retry(turner.database, asked.id) for _ in range(4)]
    answers = await asyncio.gather(*retries, return_exceptions=True)
    assert [getattr(answer, "code", 0) for answer in answers].count(0) == 1
    assert ids(await turner.take()) == [asked.id]
    assert ids(await turner.take(look_at=[node_id])) == []


async def test_no_more_mailboxes_are_taken_than_asked(turner, ask, database):
    """The rest stays due, and the turn says that there is more."""
    from kit.factories import add_nodes

    for node_id in await database.write(lambda tx: add_nodes(tx, 3)):
        await ask(node_id)
    turn = await turner.take(claim=2)
    assert (len(turn.begun), turn.more) == (2, True)
    turn = await turner.take(claim=2)
    assert (len(turn.begun), turn.more) == (1, False)
    assert (await turner.take(claim=0)).more is False


async def test_a_draining_turn_settles_and_begins_nothing(turner, ask, look, node_id):
    """The next task is left as it is."""
    asked = await ask(node_id, number=2)
    turn = await turner.take()
    result = came_back(turn.begun[0], Outcome.SUCCEEDED)
    turn = await turner.take([result], claim=0, draining=True)
    assert ids(turn) == []
    assert [task.status for task in await look(asked)] == [TaskStatus.SUCCESS, TaskStatus.PENDING]
    assert await turner.database.write(lambda tx: mailboxes.release_all(tx, "me")) == 1


CONFIG = TaskKind.APPLY_CONFIG


async def test_only_the_newest_config_is_sent(turner, ask, look, node_id):
    """The older ones end as superseded by it; a reload between them keeps its turn."""
    first, second = await ask(node_id, CONFIG, number=2)
    (reload,) = await ask(node_id)
    (newest,) = await ask(node_id, CONFIG)
    turn = await turner.take()
    assert ids(turn) == [reload.id]
    found = await look([first, second])
    assert [(task.status, task.superseded_by) for task in found] == [
        (TaskStatus.SUPERSEDED, newest.id)
    ] * 2
    assert all(task.final and task.attempts == 0 for task in found)
    turn = await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert ids(turn) == [newest.id]


async def test_a_config_that_is_out_is_waited_for(turner, ask, look, node_id):
    """A newer one waits for its end, and takes its place only if it would be sent again."""
    (old,) = await ask(node_id, CONFIG)
    out = (await turner.take()).begun[0]
    (new,) = await ask(node_id, CONFIG)
    turn = await turner.take(look_at=[node_id])
    assert (ids(turn), (await look([old]))[0].status) == ([], TaskStatus.RUNNING)
    turn = await turner.take([came_back(out, Outcome.UNANSWERED)])
    assert ids(turn) == [new.id]
    assert (await look([old]))[0].superseded_by == new.id


async def test_a_node_back_after_many_configs_gets_one(turner, ask, look, node_id):
    """However many it missed; what it missed beside them it gets too."""
    asked = await ask(node_id, CONFIG, number=700)
    turn = await turner.take()
    turn = await turner.take([came_back(turn.begun[0], Outcome.UNREACHABLE, "refused")])
    for _ in range(30):
        turn = await turner.take(now=turn.next_due)
        if turn.begun:
            break
    assert ids(turn) == [asked[-1].id]
    turn = await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)], now=turn.now)
    while turn.next_due is not None:
        turn = await turner.take(now=turn.next_due)
        assert turn.begun == []
    found = await look(asked)
    assert [task.status for task in found[:-1]] == [TaskStatus.SUPERSEDED] * 699
    assert found[-1].status is TaskStatus.SUCCESS


async def test_the_most_urgent_purges_go_first(turner, ask, node_id):
    """A priority puts a purge before those asked for up to ten seconds a step earlier."""
    plain = await ask(node_id, PURGE, number=3)
    (low,) = await ask(node_id, PURGE, priority=0)
    (high,) = await ask(node_id, PURGE, priority=9)
    turn = await turner.take()
    assert ids(turn) == [high.id, plain[0].id]
    order = [plain[1].id, plain[2].id, low.id]
    turn = await turner.take([came_back(sent, Outcome.SUCCEEDED) for sent in turn.begun])
    assert ids(turn) == order[:2]
    turn = await turner.take([came_back(sent, Outcome.SUCCEEDED) for sent in turn.begun])
    assert ids(turn) == order[2:]


async def test_a_task_cancelled_while_it_runs_ends_when_it_is_back(turner, ask, look, node_id):
    """It is not sent again, whatever its retry would have been."""
    (asked,) = await ask(node_id)
    turn = await turner.take()
    running = await task_rule.cancel(turner.database, asked.id)
    assert (running.status, running.cancel_requested) == (TaskStatus.RUNNING, True)
    turn = await turner.take([came_back(turn.begun[0], Outcome.BUSY, "not now")])
    (found,) = await look([asked])
    assert (found.status, found.final, ids(turn)) == (TaskStatus.CANCELLED, True, [])
    assert found.last_error == "cancelled; the attempt that was out: not now"


async def test_a_task_that_succeeds_is_not_cancelled(turner, ask, look, node_id):
    """What the agent verified is the truth."""
    (asked,) = await ask(node_id)
    turn = await turner.take()
    await task_rule.cancel(turner.database, asked.id)
    await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert (await look([asked]))[0].status is TaskStatus.SUCCESS


async def test_a_cancelled_task_whose_owner_died_is_not_sent_again(turner, ask, look, node_id):
    """The next owner ends it; whether it took effect, it says, is not known."""
    (asked,) = await ask(node_id)
    turn = await turner.take()
    await task_rule.cancel(turner.database, asked.id)
    turner.held.clear()
    turn = await turner.take(now=turn.now + timedelta(seconds=11))
    (found,) = await look([asked])
    assert (found.status, ids(turn)) == (TaskStatus.CANCELLED, [])
    assert "is not known" in found.last_error


async def test_a_cancelled_task_leaves_its_lane(turner, ask, node_id):
    """The next one has its turn."""
    first, second = await ask(node_id, number=2)
    await task_rule.cancel(turner.database, first.id)
    assert ids(await turner.take()) == [second.id]


@pytest.mark.parametrize("stands", ["success", "running"])
async def test_an_older_config_is_not_retried_behind_a_newer_one(turner, ask, node_id, stands):
    """Sending it would put the node back to what it was before."""
    (old,) = await ask(node_id, CONFIG)
    turn = await turner.take()
    await turner.take([came_back(turn.begun[0], Outcome.FAILED)])
    (new,) = await ask(node_id, CONFIG)
    turn = await turner.take()
    if stands == "success":
        await turner.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    with pytest.raises(WrongState, match=f"task {new.id} is a newer config of node {node_id}"):
        await task_rule.retry(turner.database, old.id)


async def test_an_older_config_is_retried_where_the_newer_ones_failed(turner, ask, look, node_id):
    """It is the newest again: the agent has begun a later generation, and would refuse its old."""
    failed = []
    for _ in range(2):
        failed += await ask(node_id, CONFIG)
        turn = await turner.take()
        await turner.take([came_back(turn.begun[0], Outcome.FAILED)])
    old, new = failed
    again = await task_rule.retry(turner.database, old.id)
    assert again.generation > new.generation > old.generation
    assert await look([old]) == [again]
    turn = await turner.take()
    assert [sent.task.generation for sent in turn.begun] == [again.generation]


async def test_purges_that_begin_together_are_many(turner, ask, node_id):
    """One request takes as many as a batch holds; the head of the config lane has its own."""
    turner.max_batch = 10
    asked = await ask(node_id, PURGE, number=30)
    (reload,) = await ask(node_id)
    turn = await turner.take()
    assert ids(turn) == [reload.id, *(task.id for task in asked[:10])]


async def test_no_request_more_than_the_limit_is_out(turner, ask, node_id):
    """A request counts once, however many tasks are in it."""
    turner.max_batch = 10
    await ask(node_id, PURGE, number=30)
    turn = await turner.take()
    assert len(turn.begun) == 20
    turner.held[node_id] = replace(turner.held[node_id], requests=2)
    assert ids(await turner.take(look_at=[node_id])) == []
    back = [came_back(sent, Outcome.SUCCEEDED) for sent in turn.begun[:10]]
    turner.held[node_id] = replace(turner.held[node_id], requests=1)
    assert len((await turner.take(back)).begun) == 10


async def test_what_was_cancelled_while_it_is_out_is_named(turner, ask, node_id):
    """For its agent, at each look; a task that is not out is no business of an agent."""
    out, waits = await ask(node_id, number=2)
    await turner.take()
    for task in (out, waits):
        await task_rule.cancel(turner.database, task.id)
    turn = await turner.take(look_at=[node_id])
    assert [delivery.task.id for delivery in turn.withdrawn] == [out.id]
