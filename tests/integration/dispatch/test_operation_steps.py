"""Operations, step by step and turn by turn: sent, held, stopped, taken back, tried again."""

from dataclasses import replace
from datetime import timedelta
from unittest.mock import ANY

import pytest
from sqlalchemy import select

from edgeplane.dispatch import steps
from edgeplane.dispatch.steps import Overtaken
from edgeplane.model import progress as progress_rules
from edgeplane.model.errors import AlreadyExists, NotAllowed, NotFound, WrongState
from edgeplane.model.nodes import NodeStatus
from edgeplane.model.operations import Target, task_request_id
from edgeplane.model.progress import OperationState, Standing
from edgeplane.model.tasks import Outcome, TaskKind
from edgeplane.services import nodes as node_rule
from edgeplane.services import operations as rule
from edgeplane.services import tasks as task_rule
from edgeplane.services.nodes import NodeChange
from edgeplane.store import mailboxes, operations, removal, tasks
from edgeplane.store.rows import agent_tasks, node_mailboxes, operation_targets
from kit.engines import Turner, came_back
from kit.factories import add_nodes
from kit.operations import Stepper, new_operation

S = Standing


@pytest.fixture
def stepper(database):
    """Takes steps by hand on the empty tables."""
    return Stepper(database)


@pytest.fixture
def fleet(database):
    """Register nodes: ``await fleet(5)``."""

    async def register(number, **given):
        return await database.write(lambda tx: add_nodes(tx, number, **given))

    return register


@pytest.fixture
def ended(turner):
    """Let what began come back: ``await ended(turn, Outcome.FAILED)``; return the next turn."""

    async def bring(turn, outcome=Outcome.SUCCEEDED):
        results = [came_back(delivery, outcome) for delivery in turn.begun]
        return await turner.take(results)

    return bring


async def test_an_operation_is_sent_to_every_node_once(stepper, turner, fleet, ended):
    """Each gets a task of its own, with the one payload; when all have ended it is done."""
    ids = await fleet(5)
    operation_id = await stepper.ask(payload='{"urls": ["/b", "/a"]}')
    assert (await stepper.look(operation_id)).counts[S.UNSENT] == 5
    (stepped,) = await stepper.all()
    assert (list(stepped.nodes), stepped.again) == (ids, False)
    made = await stepper.tasks(operation_id)
    assert [task.node_id for task in made] == ids
    assert [task.request_id for task in made] == [task_request_id(operation_id, n) for n in ids]
    whole = await stepper.database.read(lambda tx: tasks.get(tx, made[0].id))
    assert whole is not None
    assert (whole.payload, whole.operation_id) == ('{"urls": ["/b", "/a"]}', operation_id)
    turn = await turner.take()
    assert {delivery.payload for delivery in turn.begun} == {'{"urls": ["/b", "/a"]}'}
    assert (await stepper.look(operation_id)).counts[S.RUNNING] == 5
    await ended(turn)
    found = await stepper.look(operation_id)
    assert (found.state, found.counts[S.SUCCESS]) == (OperationState.DONE, 5)
    assert found.finished_at is not None
    assert [each.ended for each in await stepper.all()] == [OperationState.DONE]
    assert await stepper.look(operation_id) == replace(found, epoch=found.epoch + 1, work_seq=ANY)
    assert await stepper.all() == []


async def test_a_large_fan_out_goes_in_chunks(stepper, fleet, monkeypatch):
    """A claim for each, every node once, and nothing is left of the targets."""
    monkeypatch.setattr(progress_rules, "CHUNK", 10)
    await fleet(35)
    operation_id = await stepper.ask()
    assert [len(each.nodes) for each in await stepper.all()] == [10, 10, 10, 5]
    assert len(await stepper.tasks(operation_id)) == 35
    left = select(operation_targets.c.node_id)
    assert await stepper.database.read(lambda tx: tx.conn.execute(left).all()) == []
    assert (await stepper.look(operation_id)).counts[S.PENDING] == 35


async def test_nodes_that_take_no_tasks_are_passed_over_and_counted(stepper, fleet):
    """As they are when it is asked for, and once more when their task would be made."""
    (first, second, third, fourth) = await fleet(4)
    await node_rule.update(stepper.database, first, NodeChange(enabled=False))
    operation_id = await stepper.ask()
    assert (await stepper.look(operation_id)).counts[S.SKIPPED] == 1
    await node_rule.update(stepper.database, second, NodeChange(status=NodeStatus.MAINTENANCE))
    assert await node_rule.delete(stepper.database, [third]) == 1
    await stepper.all()
    found = await stepper.look(operation_id)
    assert (found.counts[S.SKIPPED], found.counts[S.PENDING], found.total) == (3, 1, 4)
    assert [task.node_id for task in await stepper.tasks(operation_id)] == [fourth]


async def test_a_target_is_resolved_when_it_is_asked_for(stepper, fleet):
    """By labels, all of which must match; who is labelled later is not reached."""
    await fleet(2, labels={"region": "eu"})
    chosen = await fleet(3, labels={"region": "eu", "tier": "edge"})
    aim = Target(labels={"region": "eu", "tier": "edge"})
    operation_id = await stepper.ask(aim=aim)
    await fleet(1, labels={"region": "eu", "tier": "edge"})
    await stepper.all()
    assert [task.node_id for task in await stepper.tasks(operation_id)] == chosen


async def test_an_operation_for_nobody_is_refused(stepper, fleet):
    """No such node, none with the label, all in maintenance: each is told apart."""
    database = stepper.database
    with pytest.raises(NotAllowed, match="^target: no node is meant$"):
        await rule.create(database, new_operation())
    (node,) = await fleet(1, enabled=False)
    with pytest.raises(NotFound, match=rf"^target.nodeIds: node {node + 1} not found$"):
        await rule.create(database, new_operation([node, node + 1]))
    with pytest.raises(WrongState, match="^target: all 1 nodes are disabled or in maintenance$"):
        await rule.create(database, new_operation([node]))
    assert await stepper.claim() is None


async def test_the_same_request_id_is_the_same_operation(stepper, fleet):
    """Whatever became of it; with another body it is refused."""
    await fleet(2)
    asked = new_operation(request_id="mine")
    first = await rule.create(stepper.database, asked)
    await stepper.all()
    again = await rule.create(stepper.database, asked)
    assert again.progress.id == first.progress.id
    other = new_operation(request_id="mine", payload='{"urls":["/other"]}')
    with pytest.raises(AlreadyExists, match="^requestId: mine is operation"):
        await rule.create(stepper.database, other)
    assert len(await stepper.tasks(first.progress.id)) == 2


async def test_a_step_under_an_old_claim_does_nothing(stepper, fleet):
    """Who was paused in the middle of it finds that somebody else has gone on."""
    await fleet(3)
    operation_id = await stepper.ask()
    (found, epoch) = await stepper.claim()
    assert found == operation_id
    assert await stepper.claim() is None
    await stepper.database.write(
        lambda tx: tx.conn.exec_driver_sql("UPDATE operations SET next_at = created_at")
    )
    other = Stepper(stepper.database, owner="other")
    await other.all()
    with pytest.raises(Overtaken):
        await stepper.take(operation_id, epoch)
    assert (await stepper.look(operation_id)).counts[S.PENDING] == 3


async def test_a_step_that_was_overtaken_on_its_way_leaves_nothing(stepper, fleet, monkeypatch):
    """The operation was paused after the step had looked at it: no task is made."""
    await fleet(3)
    operation_id = await stepper.ask()
    claimed = await stepper.claim()
    plain = operations.lock

    def pause_first(tx, which):
        before = plain(tx, which)
        assert before is not None
        operations.write(tx, before, progress_rules.pause(before))
        return plain(tx, which)

    monkeypatch.setattr(steps.operations, "lock", pause_first)
    with pytest.raises(Overtaken):
        await stepper.take(*claimed)
    monkeypatch.undo()
    assert await stepper.tasks(operation_id) == []
    assert (await stepper.look(operation_id)).counts[S.UNSENT] == 3


async def test_no_more_are_out_than_the_window_allows(stepper, turner, fleet, ended):
    """One that ends makes room for the next; what waits for a retry keeps its place."""
    await fleet(5)
    operation_id = await stepper.ask(concurrency_limit="40%")
    await stepper.all()
    assert (await stepper.look(operation_id)).counts[S.PENDING] == 2
    turn = await turner.take()
    first, second = turn.begun
    turn = await turner.take([came_back(first, Outcome.SUCCEEDED)])
    assert turn.calls
    await stepper.all()
    assert len(await stepper.tasks(operation_id)) == 3
    turn = await turner.take([came_back(second, Outcome.BUSY)])
    assert not turn.calls
    assert await stepper.all() == []
    assert (await stepper.look(operation_id)).counts[S.WAITING] == 1


async def test_a_node_that_is_gone_does_not_block_the_window(stepper, turner, fleet, ended):
    """Known to be unreachable, it keeps no place, also while it is probed; it is no failure."""
    await fleet(3)
    operation_id = await stepper.ask(concurrency_limit="1", failure_limit="1")
    await stepper.all()
    turn = await turner.take()
    turn = await ended(turn, Outcome.UNREACHABLE)
    assert (await stepper.look(operation_id)).counts[S.UNREACHABLE] == 1
    await stepper.all()
    found = await stepper.look(operation_id)
    assert (found.counts[S.PENDING], found.counts[S.UNSENT]) == (1, 1)
    # The probe's back-off may have been shorter than it took to make the next task.
    turn = await turner.take(now=turn.next_due + timedelta(seconds=60))
    assert len(turn.begun) == 2
    found = await stepper.look(operation_id)
    assert (found.counts[S.RUNNING], found.counts[S.UNREACHABLE]) == (1, 1)
    await ended(turn)
    assert (await stepper.look(operation_id)).failures == 0


async def test_too_many_failures_stop_it(stepper, turner, fleet, ended, look):
    """What is out may finish, what waits is taken back, the rest is not sent."""
    await fleet(6)
    operation_id = await stepper.ask(concurrency_limit="3", failure_limit="1")
    await stepper.all()
    turn = await turner.take()
    first, second, third = turn.begun
    await turner.take([came_back(first, Outcome.FAILED, "broken")])
    found = await stepper.look(operation_id)
    assert (found.state, found.failures) == (OperationState.STOPPING, 1)
    turn = await turner.take([came_back(second, Outcome.BUSY), came_back(third)])
    assert turn.calls
    await stepper.all()
    found = await stepper.look(operation_id)
    assert found.state is OperationState.STOPPED
    assert found.reason == "1 nodes failed, 1 stop it"
    assert (found.counts[S.UNSENT], found.counts[S.FAILED], found.counts[S.SUCCESS]) == (3, 2, 1)
    errors = [task.last_error for task in await stepper.tasks(operation_id)]
    assert errors == ["broken", "operation stopped; last error: words", None]
    assert await stepper.all() == []


async def test_a_paused_operation_begins_nothing(stepper, turner, fleet):
    """Neither what is made already nor what is not; resumed, its nodes are told at once."""
    ids = await fleet(4)
    operation_id = await stepper.ask(concurrency_limit="2")
    await stepper.all()
    paused = await rule.pause(stepper.database, operation_id)
    assert paused.progress.state is OperationState.PAUSED
    assert (await turner.take()).begun == []
    assert await stepper.all() == []
    assert (await turner.take()).held == {}
    await rule.resume(stepper.database, operation_id)
    assert [list(each.nodes) for each in await stepper.all()] == [ids[:2]]
    turn = await turner.take()
    assert len(turn.begun) == 2
    await rule.pause(stepper.database, operation_id)
    await turner.take([came_back(delivery, Outcome.SUCCEEDED) for delivery in turn.begun])
    assert await stepper.all() == []
    found = await stepper.look(operation_id)
    assert (found.counts[S.SUCCESS], found.counts[S.UNSENT]) == (2, 2)
    with pytest.raises(WrongState, match="is paused: only one that is running can be paused"):
        await rule.pause(stepper.database, operation_id)


async def test_a_held_task_still_meets_its_deadline(stepper, turner, fleet):
    """Its mailbox is due then, and not before."""
    await fleet(1)
    operation_id = await stepper.ask(deadline_seconds=60)
    await stepper.all()
    await rule.pause(stepper.database, operation_id)
    (task,) = await stepper.tasks(operation_id)
    turn = await turner.take()
    assert turn.next_due == task.deadline_at
    await turner.take(now=task.deadline_at)
    found = await stepper.look(operation_id)
    assert (found.state, found.counts[S.FAILED]) == (OperationState.DONE, 1)


async def test_a_held_config_keeps_its_place_in_the_lane(stepper, turner, fleet, ask):
    """What was asked for after it does not overtake; a purge does; cancelled, it makes way."""
    (node,) = await fleet(1)
    operation_id = await stepper.ask(kind=TaskKind.APPLY_CONFIG, payload="{}")
    await stepper.all()
    await rule.pause(stepper.database, operation_id)
    (behind,) = await ask(node)
    (purge,) = await ask(node, TaskKind.PURGE_CACHE)
    turn = await turner.take()
    assert [delivery.task.id for delivery in turn.begun] == [purge.id]
    await rule.cancel(stepper.database, operation_id, "admin")
    await stepper.all()
    turn = await turner.take(look_at=[node])
    assert [delivery.task.id for delivery in turn.begun] == [behind.id]


async def test_what_waited_behind_a_held_config_begins_when_that_is_taken_back(
    stepper, turner, fleet, ask
):
    """Its node was due at a deadline only: it is due now, also for a claim that got no hint."""
    (node,) = await fleet(1)
    operation_id = await stepper.ask(kind=TaskKind.APPLY_CONFIG, payload="{}")
    await stepper.all()
    await rule.pause(stepper.database, operation_id)
    (behind,) = await ask(node, TaskKind.RELOAD)
    assert (await turner.take()).begun == []
    await rule.cancel(stepper.database, operation_id, "ann")
    assert [list(each.nodes) for each in await stepper.all()] == [[node]]
    assert [each.task.id for each in (await turner.take()).begun] == [behind.id]


async def test_a_cancel_takes_back_what_has_not_begun(stepper, turner, fleet, ended):
    """What is out may finish, and it ends only then; its reason names who cancelled it."""
    await fleet(5)
    operation_id = await stepper.ask(concurrency_limit="3")
    await stepper.all()
    turn = await turner.take(claim=1)
    assert len(turn.begun) == 1
    cancelled = await rule.cancel(stepper.database, operation_id, "admin")
    assert cancelled.progress.state is OperationState.CANCELLING
    await stepper.all()
    found = await stepper.look(operation_id)
    assert (found.state, found.counts[S.RUNNING]) == (OperationState.CANCELLING, 1)
    await ended(turn)
    found = await stepper.look(operation_id)
    assert (found.state, found.reason) == (OperationState.CANCELLED, "cancelled by admin")
    assert (found.counts[S.SUCCESS], found.counts[S.CANCELLED], found.counts[S.UNSENT]) == (1, 2, 2)
    made = await stepper.tasks(operation_id)
    assert [task.last_error for task in made][1:] == ["operation cancelled"] * 2
    assert all(task.final for task in made)
    assert (await turner.take()).begun == []


async def test_what_fails_for_now_while_it_is_cancelled_is_taken_back(stepper, turner, fleet):
    """Nothing is tried again."""
    await fleet(1)
    operation_id = await stepper.ask()
    await stepper.all()
    turn = await turner.take()
    await rule.cancel(stepper.database, operation_id, "admin")
    await stepper.all()
    turn = await turner.take([came_back(turn.begun[0], Outcome.UNREACHABLE)])
    assert turn.calls
    await stepper.all()
    assert (await stepper.look(operation_id)).state is OperationState.CANCELLED


async def test_before_anything_is_sent_a_cancel_is_the_end(stepper, fleet):
    """No task is ever made."""
    await fleet(2)
    operation_id = await stepper.ask()
    done = await rule.cancel(stepper.database, operation_id, "admin")
    assert done.progress.state is OperationState.CANCELLED
    (told,) = await stepper.all()
    assert (told.ended, told.kind, list(told.nodes)) == (OperationState.CANCELLED, None, [])
    assert await stepper.all() == []
    assert (await stepper.look(operation_id)).counts[S.UNSENT] == 2


async def test_what_failed_is_tried_again_together(stepper, turner, fleet, ended):
    """Within the window; what succeeded is left alone, and a stopped operation goes on."""
    await fleet(5)
    operation_id = await stepper.ask(concurrency_limit="2", failure_limit="2")
    await stepper.all()
    await ended(await turner.take(), Outcome.FAILED)
    assert (await stepper.look(operation_id)).state is OperationState.STOPPED
    again = await rule.retry_failed(stepper.database, operation_id)
    assert (again.progress.state, again.progress.failures) == (OperationState.RUNNING, 0)
    for _ in range(3):
        await stepper.all()
        assert (await stepper.look(operation_id)).counts[S.PENDING] <= 2
        await ended(await turner.take())
    found = await stepper.look(operation_id)
    assert (found.state, found.counts[S.SUCCESS]) == (OperationState.DONE, 5)
    assert [task.run for task in await stepper.tasks(operation_id)] == [2, 2, 1, 1, 1]


async def test_a_retry_of_what_failed_passes_over_nodes_that_take_none(
    stepper, turner, fleet, ended
):
    """Their tasks stay failed, and the operation ends."""
    first, _ = await fleet(2)
    operation_id = await stepper.ask()
    await stepper.all()
    await ended(await turner.take(), Outcome.FAILED)
    await node_rule.update(stepper.database, first, NodeChange(enabled=False))
    await rule.retry_failed(stepper.database, operation_id)
    await stepper.all()
    await ended(await turner.take())
    found = await stepper.look(operation_id)
    assert (found.state, found.counts[S.FAILED], found.counts[S.SUCCESS]) == ("done", 1, 1)


async def test_a_single_retry_is_counted_and_reopens_it(stepper, turner, fleet, ended):
    """Done is done again when that has ended."""
    await fleet(2)
    operation_id = await stepper.ask()
    await stepper.all()
    await ended(await turner.take(), Outcome.FAILED)
    (task, _) = await stepper.tasks(operation_id)
    await task_rule.retry(stepper.database, task.id)
    found = await stepper.look(operation_id)
    assert (found.state, found.counts[S.PENDING]) == (OperationState.RUNNING, 1)
    await ended(await turner.take())
    assert (await stepper.look(operation_id)).state is OperationState.DONE


async def test_an_attempt_that_was_lost_is_counted_as_what_it_is(stepper, turner, fleet, ended):
    """Rescued and begun again in one turn: still one that runs."""
    await fleet(1)
    operation_id = await stepper.ask()
    await stepper.all()
    await turner.take()
    await stepper.database.write(
        lambda tx: tx.conn.execute(node_mailboxes.update().values(next_at=tx.now))
    )
    other = Turner(stepper.database, owner="other")
    turn = await other.take()
    assert turn.rescued == 1
    assert (await stepper.look(operation_id)).counts[S.RUNNING] == 1
    await other.take([came_back(turn.begun[0], Outcome.SUCCEEDED)])
    assert (await stepper.look(operation_id)).state is OperationState.DONE


async def test_unknown_operations_are_told(stepper):
    """By every verb."""
    for verb in (rule.pause, rule.resume, rule.retry_failed):
        with pytest.raises(NotFound, match="^operation 77 not found$"):
            await verb(stepper.database, 77)


async def test_a_fan_out_wakes_its_nodes(stepper, fleet):
    """Their mailboxes are due with the commit that makes the tasks."""
    ids = await fleet(2)
    await stepper.ask()
    before = await stepper.database.write(lambda tx: mailboxes.lock(tx, ids))
    await stepper.all()
    after = await stepper.database.write(lambda tx: mailboxes.lock(tx, ids))
    assert all(after[n].work_seq == before[n].work_seq + 1 for n in ids)


async def test_an_outdated_config_is_not_tried_again(stepper, turner, fleet, ended, ask):
    """Its node has been asked for a newer one since: it stays failed, and the operation ends."""
    first, _ = await fleet(2)
    operation_id = await stepper.ask(kind=TaskKind.APPLY_CONFIG, payload="{}")
    await stepper.all()
    await ended(await turner.take(), Outcome.FAILED)
    await ask(first, TaskKind.APPLY_CONFIG)
    await ended(await turner.take())
    await rule.retry_failed(stepper.database, operation_id)
    await stepper.all()
    await ended(await turner.take())
    found = await stepper.look(operation_id)
    assert (found.state, found.counts[S.FAILED], found.counts[S.SUCCESS]) == ("done", 1, 1)


async def test_a_newer_config_takes_the_place_of_an_operations(stepper, turner, fleet, ask):
    """Also of one that is paused; it is counted, and no failure."""
    (node,) = await fleet(1)
    operation_id = await stepper.ask(kind=TaskKind.APPLY_CONFIG, payload="{}")
    await stepper.all()
    await rule.pause(stepper.database, operation_id)
    (newer,) = await ask(node, TaskKind.APPLY_CONFIG)
    turn = await turner.take()
    assert [delivery.task.id for delivery in turn.begun] == [newer.id]
    found = await stepper.look(operation_id)
    assert (found.state, found.counts[S.SUPERSEDED], found.failures) == ("done", 1, 0)


async def test_an_operation_is_removed_when_its_tasks_are(stepper, turner, fleet, ended):
    """Not before: they share its payload. One that has not ended stays."""
    await fleet(2)
    operation_id = await stepper.ask()
    await stepper.all()
    await ended(await turner.take())
    other = await stepper.ask()
    database = stepper.database
    (now,) = {(await stepper.look(operation_id)).finished_at}
    assert now is not None
    later = now + timedelta(days=1)

    async def prune():
        return await database.write(lambda tx: removal.prune_operations(tx, later, 10))

    assert await prune() == 0
    of = agent_tasks.c.operation_id == operation_id
    await database.write(lambda tx: tx.conn.execute(agent_tasks.delete().where(of)))
    assert await prune() == 1
    assert (await stepper.look(other)).state is OperationState.RUNNING
