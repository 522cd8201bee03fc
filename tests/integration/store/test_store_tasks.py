"""Task rows, on every dialect: stored once, fenced, and byte for byte."""

import asyncio
import json
from datetime import UTC, timedelta
from functools import partial
from random import Random

import pytest
from sqlalchemy import func, select, update

from edgeplane.model import lifecycle
from edgeplane.model.clock import epoch_millis
from edgeplane.model.errors import AlreadyExists, NotFound, WrongState
from edgeplane.model.retry import RetryPolicy
from edgeplane.model.tasks import (
    Attempt,
    Outcome,
    Report,
    Task,
    TaskKind,
    TaskStatus,
    bounded_text,
)
from edgeplane.services.tasks import create_many
from edgeplane.store import attempts, task_moves, tasks
from edgeplane.store.database import Database
from edgeplane.store.rows import agent_tasks, node_mailboxes
from kit.factories import add_nodes, add_tasks, ended_attempts, new_task, stored


@pytest.fixture
async def node_id(database):
    """Register a node."""
    return (await database.write(lambda tx: add_nodes(tx, 1)))[0]


@pytest.fixture
async def running(database, node_id):
    """A task whose first attempt is out."""

    def begin(tx):
        (task,) = add_tasks(tx, [new_task(node_id)])
        task_moves.write_begun(tx, [task])
        return stored(tx, task.id)

    return await database.write(begin)


def given_id(node_id, **given):
    """Ask with an id of the client's own."""
    return new_task(node_id, **{"request_id": "mine", "request_id_given": True, **given})


async def rows(database):
    """Count the tasks there are."""
    query = select(func.count()).select_from(agent_tasks)
    return await database.read(lambda tx: tx.conn.scalar(query))


async def test_what_is_answered_is_what_is_stored(database, node_id):
    """The answer of a create equals the row read back, to the millisecond."""
    asked = [new_task(node_id, kind=kind, created_by=None) for kind in TaskKind]
    made = await database.create(lambda tx: add_tasks(tx, asked))
    found = await database.read(lambda tx: [stored(tx, task.id) for task in made])
    assert found == made
    assert {task.created_at.tzinfo for task in found} == {UTC}
    assert {task.created_at.microsecond % 1000 for task in found} == {0}
    assert found[0].deadline_at == found[0].created_at + timedelta(seconds=86_400)


async def test_what_shares_a_commit_keeps_its_order(database, node_id):
    """A lane serves by id: what was asked for first must have the lower one."""
    asked = [given_id(node_id, request_id=name) for name in "zaymbx"]
    made = await database.create(lambda tx: add_tasks(tx, asked))
    assert [task.request_id for task in made] == list("zaymbx")
    assert [task.id for task in made] == sorted(task.id for task in made)


async def test_each_config_of_a_node_has_a_higher_generation(database):
    """In the order they were asked for, in one commit or several; other tasks have none."""
    one, two = await database.write(lambda tx: add_nodes(tx, 2))
    seen = {one: [], two: []}
    for _ in range(3):
        asked = [new_task(node, kind=TaskKind.APPLY_CONFIG) for node in (one, two, one)]
        for task in await database.create(lambda tx, a=asked: add_tasks(tx, a)):
            seen[task.node_id].append(task.generation)
            assert await database.read(lambda tx, t=task: stored(tx, t.id)) == task
    for generations in seen.values():
        assert generations == sorted(set(generations))
    (reload,) = await database.create(lambda tx: add_tasks(tx, [new_task(one)]))
    assert reload.generation is None


async def test_a_generation_behind_the_clock_catches_up(database, node_id):
    """After tables were put back from an old copy it is still higher than any given out."""

    def ask(tx):
        tx.conn.execute(update(node_mailboxes).values(generation=3))
        (task,) = add_tasks(tx, [new_task(node_id, kind=TaskKind.APPLY_CONFIG)])
        return task, tx.now

    task, now = await database.create(ask)
    assert task.generation == epoch_millis(now)


async def test_the_same_request_is_the_same_task(database, node_id):
    """Whatever became of it."""
    asked = given_id(node_id, payload='{"a":1}')
    (first,) = await database.create(lambda tx: create_many(tx, [asked]))
    await database.write(lambda tx: task_moves.write_begun(tx, [first]))
    (again,) = await database.create(lambda tx: create_many(tx, [asked]))
    assert (again.id, again.status) == (first.id, TaskStatus.RUNNING)
    assert await rows(database) == 1


@pytest.mark.parametrize(
    "difference",
    [{"payload": '{"b":1}'}, {"kind": TaskKind.PURGE_CACHE}, {"node_id": None}],
    ids=["payload", "type", "node"],
)
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one after the other"])
async def test_the_same_id_for_anything_else_is_refused(database, node_id, difference, together):
    """The message names the task that has it; nothing is changed."""
    (other,) = await database.write(lambda tx: add_nodes(tx, 1))
    if "node_id" in difference:
        difference = {"node_id": other}
    asked = [given_id(node_id), given_id(node_id)._replace(**difference)]
    if "payload" in difference:
        asked[1] = given_id(node_id, **difference)
    if together:
        first, second = await database.create(lambda tx: create_many(tx, asked))
    else:
        (first,) = await database.create(lambda tx: create_many(tx, asked[:1]))
        (second,) = await database.create(lambda tx: create_many(tx, asked[1:]))
    assert isinstance(first, Task)
    assert isinstance(second, AlreadyExists)
    assert second.message == (
        f"requestId: mine is task {first.id}, which has another node, type or payload"
    )
    assert await rows(database) == 1


async def test_the_same_request_twice_in_one_batch_is_one_task(database, node_id):
    """Both are answered with it."""
    first, second = await database.create(
        lambda tx: create_many(tx, [given_id(node_id), given_id(node_id)])
    )
    assert first == second
    assert await rows(database) == 1


async def test_concurrent_requests_with_one_id_end_in_one_row(database, url, node_id):
    """From two processes at once, many times over: each is answered with the same task."""
    other = Database(url)
    for number in range(15):
        asked = [given_id(node_id, request_id=f"shared-{number}-{part}") for part in range(4)]
        answers = await asyncio.gather(
            database.create(partial(create_many, asked=asked)),
            other.create(partial(create_many, asked=asked[::-1])),
        )
        ids = [[getattr(task, "id", task) for task in batch] for batch in answers]
        assert ids[0] == ids[1][::-1]
    await other.close()
    assert await rows(database) == 60


async def test_one_refusal_in_a_batch_is_its_own(database, node_id):
    """The others are stored."""
    (off,) = await database.write(lambda tx: add_nodes(tx, 1, enabled=False))
    asked = [new_task(node_id), new_task(10**9), new_task(off), new_task(node_id)]
    answers = await database.create(lambda tx: create_many(tx, asked))
    assert [type(answer) for answer in answers] == [Task, NotFound, WrongState, Task]
    assert await rows(database) == 2


async def test_ids_are_in_the_order_of_storing_and_never_used_again(database, node_id):
    """A later task has the higher id."""
    first = await database.create(lambda tx: add_tasks(tx, [new_task(node_id)]))
    second = await database.create(lambda tx: add_tasks(tx, [new_task(node_id)]))
    assert first[0].id < second[0].id


PAYLOADS = {
    "unicode": '{"k":"zażółć 节点 😀 \\u0000 \\ud83d\\ude00"}',
    "large integers": '{"n":1180591620717411303424,"m":-9007199254740993,"e":1e400}',
    "key order": '{"z":1,"a":{"y":2,"b":3},"m":[]}',
    "white space": '{ "a" :\t1 ,\n "b": 2 }',
    "duplicate keys": '{"a":1,"a":2}',
    "quotes": '{"a":"\\\\ \' \\" % %s :x ? `"}',
    "1 MiB": '{"a":"' + "é" * ((1 << 19) - 4) + '"}',
}


@pytest.mark.parametrize("name", PAYLOADS)
async def test_a_payload_is_kept_byte_for_byte(database, node_id, name):
    """What was accepted is what is read, by id, by request and for the engine."""
    payload = PAYLOADS[name]
    json.loads(payload)
    asked = given_id(node_id, payload=payload)
    (task,) = await database.create(lambda tx: add_tasks(tx, [asked]))

    def look(tx):
        known = tasks.by_request_id(tx, ["mine"])["mine"]
        assert known.payload_digest == asked.payload_digest
        return [
            stored(tx, task.id).payload,
            tasks.payloads(tx, [task])[task.id],
            known.task.payload,
        ]

    assert await database.read(look) == [payload] * 3


@pytest.mark.parametrize("text", ["😀" * 1024, "x" * 4096, "a\nb\tc", "", "\ufffd"])
async def test_an_error_at_its_bound_is_kept_whole(database, running, text):
    """4 KiB of four-byte characters, as error and as an attempt's message."""
    report = Report(outcome=Outcome.FAILED, message=text)
    failed = lifecycle.settle(running, report, running.updated_at, RetryPolicy(), Random(1))

    def write(tx):
        attempts.add(tx, [attempt(running, Outcome.FAILED, text)])
        assert task_moves.write_moved(tx, [(running, failed)]) == 1
        return stored(tx, running.id).last_error, ended_attempts(tx, running.id)[0].message

    assert await database.write(write) == (text, text)


async def test_a_hostile_error_is_stored_as_it_was_bounded(database, running):
    """NULs and half characters do not stop a settle."""
    text = "a\x00b\ud800" + "😀" * 2000
    report = Report(outcome=Outcome.FAILED, message=text)
    failed = lifecycle.settle(running, report, running.updated_at, RetryPolicy(), Random(1))
    await database.write(lambda tx: task_moves.write_moved(tx, [(running, failed)]))
    found = await database.read(lambda tx: stored(tx, running.id))
    assert found.last_error == bounded_text(text)


def attempt(task, outcome, message=""):
    """End a task's attempt."""
    return Attempt(
        task_id=task.id,
        number=task.attempts,
        begun_at=task.started_at,
        ended_at=task.updated_at,
        outcome=outcome,
        message=message,
    )


async def test_a_moved_task_is_read_back_as_it_was_moved(database, running):
    """Every column that the rules write."""
    report = Report(outcome=Outcome.UNANSWERED, message="why")
    now = running.updated_at + timedelta(seconds=1)
    moved = lifecycle.settle(running, report, now, RetryPolicy(), Random(1))
    retried = lifecycle.retry(moved, now + timedelta(seconds=1))
    for before, after in ((running, moved), (moved, retried)):
        written = await database.write(
            lambda tx, move=(before, after): task_moves.write_moved(tx, [move])
        )
        assert written == 1
        assert await database.read(lambda tx: stored(tx, running.id)) == after


@pytest.mark.parametrize("stale", [{"attempts": 7}, {"status": TaskStatus.PENDING}, {"id": 10**9}])
async def test_a_stale_belief_touches_nothing(database, running, stale):
    """Another attempt, another status, no such task: no row is written."""
    report = Report(outcome=Outcome.FAILED, message="late")
    after = lifecycle.settle(running, report, running.updated_at, RetryPolicy(), Random(1))
    believed = running._replace(**stale)
    move = (believed, after._replace(id=believed.id))
    assert await database.write(lambda tx: task_moves.write_moved(tx, [move])) == 0
    assert await database.read(lambda tx: stored(tx, running.id)) == running


async def test_only_what_was_as_believed_is_counted(database, node_id):
    """Of two moves one is stale: one is written, and one reported."""

    def begin(tx):
        made = add_tasks(tx, [new_task(node_id) for _ in range(2)])
        task_moves.write_begun(tx, made)
        return [stored(tx, task.id) for task in made]

    first, second = await database.write(begin)
    gone = [lifecycle.rescue(task, task.updated_at) for task in (first, second)]
    moves = [(first, gone[0]), (second._replace(attempts=9), gone[1])]
    assert await database.write(lambda tx: task_moves.write_moved(tx, moves)) == 1


async def test_the_same_move_written_twice_counts_as_late(database, running):
    """Also where the row would not change by it a second time."""
    moved = lifecycle.rescue(running, running.updated_at)
    for expected in (1, 0):
        written = await database.write(lambda tx: task_moves.write_moved(tx, [(running, moved)]))
        assert written == expected


async def test_a_settle_is_for_the_attempt_that_runs(database, running):
    """Another number, another task, or one that has ended, is late."""
    fences = [(running.id, 1), (running.id, 2), (running.id, 0), (10**9, 1)]
    assert await database.read(lambda tx: task_moves.still_running(tx, fences)) == {
        (running.id, 1): False
    }
    await database.write(lambda tx: task_moves.write_succeeded(tx, [running]))
    assert await database.read(lambda tx: task_moves.still_running(tx, fences)) == {}


async def test_the_old_owner_settles_after_the_rescue(database, running):
    """Its success is not written: the task waits for the attempt to come."""

    def rescue_then_settle(tx):
        rescued = lifecycle.rescue(running, tx.now)
        assert task_moves.write_moved(tx, [(running, rescued)]) == 1
        task_moves.write_succeeded(tx, [running])
        return stored(tx, running.id).status

    assert await database.write(rescue_then_settle) is TaskStatus.PENDING


async def test_the_rescue_comes_after_the_old_owner_settled(database, running):
    """It changes nothing: the success stays."""

    def settle_then_rescue(tx):
        task_moves.write_succeeded(tx, [running])
        assert task_moves.write_moved(tx, [(running, lifecycle.rescue(running, tx.now))]) == 0
        return stored(tx, running.id).status

    assert await database.write(settle_then_rescue) is TaskStatus.SUCCESS


async def test_a_result_is_shown_of_a_success_only(database, running):
    """The last attempt's words: a failure's are its error."""

    def fail_then_succeed(tx):
        attempts.add(tx, [attempt(running, Outcome.SUCCEEDED, "done")])
        before = stored(tx, running.id).result
        task_moves.write_succeeded(tx, [running])
        return before, stored(tx, running.id)

    before, done = await database.write(fail_then_succeed)
    assert before is None
    assert (done.result, done.last_error, done.counted_attempts) == ("done", None, 1)
    assert done.finished_at is not None


async def test_a_task_that_ended_has_left_its_lane(database, node_id, running):
    """A node has open tasks until the last one is final; a retry brings it back."""
    assert await database.read(lambda tx: tasks.has_open(tx, node_id))
    report = Report(outcome=Outcome.FAILED, message="no")
    failed = lifecycle.settle(running, report, running.updated_at, RetryPolicy(), Random(1))
    await database.write(lambda tx: task_moves.write_moved(tx, [(running, failed)]))
    assert not await database.read(lambda tx: tasks.has_open(tx, node_id))
    retried = lifecycle.retry(failed, failed.updated_at)
    await database.write(lambda tx: task_moves.write_moved(tx, [(failed, retried)]))
    assert await database.read(lambda tx: tasks.has_open(tx, node_id))


async def test_no_task_is_found_where_there_is_none(database):
    """By id or by request."""
    assert await database.read(lambda tx: tasks.get(tx, 1)) is None
    assert await database.read(lambda tx: tasks.by_request_id(tx, ["x"])) == {}
