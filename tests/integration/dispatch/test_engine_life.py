"""The engine on SQLite with a scripted transport, from the way in to the last word."""

import asyncio
import logging
import time

import pytest

from edgeplane.dispatch import engine as engine_module
from edgeplane.dispatch import turns
from edgeplane.model import lifecycle
from edgeplane.model.nodes import SubIP
from edgeplane.model.tasks import Outcome, TaskKind, TaskStatus
from edgeplane.services import tasks as task_rule
from edgeplane.services.tasks import create_many
from edgeplane.store import mailboxes
from edgeplane.transport.base import Busy, Refused, Unanswered, Unreachable
from kit.engines import PATIENCE, Call, ScriptedTransport, WatchedDatabase, running_engine
from kit.factories import add_nodes, ended_attempts, new_task, stored


class Frozen(WatchedDatabase):
    """A database whose engine writes stand still while ``thawed`` is not set."""

    def __init__(self, url):
        super().__init__(url)
        self.thawed = asyncio.Event()
        self.thawed.set()

    async def engine_write(self, work):
        """Wait until thawed."""
        async with asyncio.timeout(PATIENCE):
            await self.thawed.wait()
        return await super().engine_write(work)


class Slow(WatchedDatabase):
    """A database that answers the first turn that begins something late."""

    def __init__(self, url, seconds):
        super().__init__(url)
        self._seconds = seconds

    async def engine_write(self, work):
        """Answer late, once."""
        turn = await super().engine_write(work)
        if getattr(turn, "begun", None):
            seconds, self._seconds = self._seconds, 0
            await asyncio.sleep(seconds)
        return turn


PURGE = {"kind": TaskKind.PURGE_CACHE}


@pytest.fixture
async def database(sqlite_template, tmp_path):
    """A SQLite store that tells of the engine's turns."""
    opened = WatchedDatabase(sqlite_template.copy(tmp_path))
    yield opened
    await opened.close()


@pytest.fixture
def transport():
    """Answers that the test gives."""
    return ScriptedTransport()


@pytest.fixture
async def node_id(database):
    """Register a node."""
    return (await database.write(lambda tx: add_nodes(tx, 1)))[0]


async def ended(database, *asked):
    """Wait until these tasks are final, and return them."""

    def look(tx):
        found = [stored(tx, task.id) for task in asked]
        return found if all(task.final for task in found) else None

    return await database.until(look)


async def attempts_of(database, task):
    """Return how a task's attempts ended."""
    found = await database.read(lambda tx: ended_attempts(tx, task.id))
    return [(attempt.number, attempt.outcome) for attempt in found]


async def mailbox(database, node_id):
    """Return a node's mailbox."""
    found = await database.write(lambda tx: mailboxes.lock(tx, [node_id]))
    return found[node_id]


async def test_a_task_is_answered_at_once_and_ends_in_success(database, transport, node_id):
    """Pending with no attempt in the answer; sent as stored; success with the agent's words."""
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id, payload='{"b":1, "a":2}'))
        assert (asked.status, asked.attempts) == (TaskStatus.PENDING, 0)
        call = await transport.next()
        assert str(call.address) == "127.0.0.1:9090"
        assert bytes(call.request.payload) == b'{"b":1, "a":2}'
        assert (call.request.request_id, call.request.attempt) == (asked.request_id, 1)
        assert call.request.node_id == node_id
        call.succeed("applied")
        (done,) = await ended(database, asked)
    assert (done.status, done.attempts, done.result) == (TaskStatus.SUCCESS, 1, "applied")
    assert done.last_error is None
    assert await attempts_of(database, asked) == [(1, Outcome.SUCCEEDED)]


async def test_what_the_agent_reports_as_failed_is_failed(database, transport, node_id):
    """HTTP 200 with status failed is a failure, final, with the agent's words."""
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id))
        (await transport.next()).fail("nginx -t: no")
        (done,) = await ended(database, asked)
    assert (done.status, done.last_error, done.result) == (TaskStatus.FAILED, "nginx -t: no", None)
    assert done.outcome is Outcome.FAILED


async def test_a_payload_too_large_for_the_queue_is_sent_whole(database, transport, node_id):
    """Large payloads are fetched for what begins, and only then."""
    payload = '{"a":"' + "é" * 100_000 + '"}'
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id, payload=payload))
        call = await transport.next()
        assert bytes(call.request.payload).decode() == payload
        call.succeed()
        await ended(database, asked)


async def test_config_tasks_reach_the_agent_one_by_one_in_order(database, transport, node_id):
    """The next one is sent when the one before has ended."""
    async with running_engine(database, transport) as running:
        asked = [await running.intake.submit(new_task(node_id)) for _ in range(5)]
        for task in asked:
            call = await transport.next()
            assert call.request.request_id == task.request_id
            assert transport.waiting == 0
            call.succeed()
        await ended(database, *asked)
    assert transport.most_at_a_node == 1


async def test_no_node_is_ever_sent_more_than_its_limit(database, node_id):
    """Whatever waits, with answers at once or not."""
    transport = ScriptedTransport(at_once=lambda call: call.succeed())
    async with running_engine(database, transport, max_per_node=3) as running:
        asked = await asyncio.gather(
            *(running.intake.submit(new_task(node_id, **PURGE)) for _ in range(60))
        )
        await ended(database, *asked)
    assert transport.most_at_a_node == 3
    assert len(transport.calls) == 60


async def test_deliveries_of_a_process_are_bounded(database):
    """With more nodes than that due, no more are out at once, and all are served."""
    many = await database.write(lambda tx: add_nodes(tx, 30))
    transport = ScriptedTransport()
    async with running_engine(database, transport, max_in_flight=7, max_per_node=8) as running:
        asked = await asyncio.gather(
            *(running.intake.submit(new_task(n, **PURGE)) for n in many for _ in range(3))
        )
        for _ in range(len(asked)):
            (await transport.next()).succeed()
        await ended(database, *asked)
    assert transport.most_out == 7


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unanswered("no answer within 31 s"), Outcome.UNANSWERED),
        (Busy("HTTP 503"), Outcome.BUSY),
    ],
)
async def test_what_can_pass_is_sent_again_as_the_same_run(
    database, transport, node_id, error, outcome
):
    """The agent is asked again with the same id and run, and settles what became of it."""
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id))
        (await transport.next()).break_with(error)
        again = await transport.next()
        assert (again.request.request_id, again.request.attempt) == (asked.request_id, 1)
        again.succeed()
        (done,) = await ended(database, asked)
    assert (done.status, done.attempts) == (TaskStatus.SUCCESS, 2)
    assert await attempts_of(database, asked) == [(1, outcome), (2, Outcome.SUCCEEDED)]


async def test_a_refusal_is_final(database, transport, node_id):
    """A 4xx is not asked again."""
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id))
        (await transport.next()).break_with(Refused("HTTP 401: invalid token"))
        (done,) = await ended(database, asked)
    assert (done.last_error, done.attempts) == ("HTTP 401: invalid token", 1)


async def test_sub_ips_are_tried_when_the_main_address_is_not_reached(database, transport):
    """In order, enabled ones only; all failures end in one line."""
    subs = (SubIP(ip="127.0.0.2", enabled=False), SubIP(ip="127.0.0.3", enabled=True))
    (node_id,) = await database.write(lambda tx: add_nodes(tx, 1, sub_ips=subs))
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id, max_attempts=1))
        for ip in ("127.0.0.1", "127.0.0.3"):
            call = await transport.next()
            assert call.address.ip == ip
            call.break_with(Unreachable(f"{ip}: connection refused"))
        (done,) = await ended(database, asked)
    assert done.last_error == "127.0.0.1: connection refused; 127.0.0.3: connection refused"
    assert done.outcome is Outcome.UNREACHABLE


async def test_a_fault_inside_the_transport_is_told_and_tried_again(
    database, transport, node_id, caplog
):
    """The log has the traceback, the task one line without it."""
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id))
        (await transport.next()).break_with(ZeroDivisionError("a bug"))
        await transport.next()
        seen = await database.read(lambda tx: ended_attempts(tx, asked.id))
        transport.calls[-1].succeed()
        (done,) = await ended(database, asked)
    words = "delivery failed inside the control plane: ZeroDivisionError"
    assert [(attempt.outcome, attempt.message) for attempt in seen] == [(Outcome.UNANSWERED, words)]
    assert done.status is TaskStatus.SUCCESS
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in told] == [f"delivery of task {asked.id} failed"]
    assert told[0].exc_info is not None


async def test_a_purge_that_backs_off_does_not_wait_for_a_long_task(database, transport, node_id):
    """It is sent again when it is due, though another task of its node is out all the while."""
    async with running_engine(database, transport) as running:
        long = await running.intake.submit(new_task(node_id, timeout_seconds=3600))
        first = await transport.next()
        purge = await running.intake.submit(new_task(node_id, **PURGE))
        (await transport.next()).break_with(Busy("HTTP 429"))
        again = await transport.next()
        assert again.request.request_id == purge.request_id
        again.succeed()
        await ended(database, purge)
        first.succeed()
        await ended(database, long)


async def test_a_deadline_passes_while_another_task_is_out(database, transport, node_id):
    """A task behind a long one expires at its deadline, not when the long one ends."""
    async with running_engine(database, transport) as running:
        await running.intake.submit(new_task(node_id, timeout_seconds=3600))
        await transport.next()
        short = await running.intake.submit(new_task(node_id, deadline_seconds=1))
        (done,) = await ended(database, short)
    assert done.outcome is Outcome.EXPIRED
    assert done.attempts == 0
    assert len(transport.calls) == 1


async def test_stop_lets_what_is_out_come_back_and_gives_the_mailboxes_back(
    database, transport, node_id
):
    """The result is settled, nothing further begins, and the next owner need not wait."""
    async with running_engine(database, transport) as running:
        first = await running.intake.submit(new_task(node_id))
        second = await running.intake.submit(new_task(node_id))
        call = await transport.next()
        stopping = asyncio.create_task(running.engine.stop())
        await asyncio.sleep(0)
        call.succeed()
        await stopping
        box = await mailbox(database, node_id)
        assert box.owner is None
        found = await database.read(lambda tx: [stored(tx, t.id) for t in (first, second)])
        assert [task.status for task in found] == [TaskStatus.SUCCESS, TaskStatus.PENDING]
        assert len(transport.calls) == 1
        assert transport.closed == 1
    after_all = ScriptedTransport(at_once=lambda call: call.succeed())
    async with running_engine(database, after_all, owner="the-next"):
        (done,) = await ended(database, second)
    assert await attempts_of(database, done) == [(1, Outcome.SUCCEEDED)]


async def test_stop_does_not_wait_for_ever(database, transport, node_id, monkeypatch):
    """What does not come back in time is left to the next owner, who asks again."""
    monkeypatch.setattr(engine_module, "DRAIN_SECONDS", 0.05)
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id))
        await transport.next()
        await running.engine.stop()
    after_all = ScriptedTransport(at_once=lambda call: call.succeed())
    async with running_engine(database, after_all, owner="the-next"):
        (done,) = await ended(database, asked)
    assert after_all.calls[0].request.attempt == 1
    assert await attempts_of(database, done) == [(1, Outcome.LOST), (2, Outcome.SUCCEEDED)]


async def test_start_and_stop_may_be_called_twice(database, transport):
    """The second call does nothing."""
    async with running_engine(database, transport) as running:
        running.engine.start()
        await running.engine.stop()
        await running.engine.stop()
    assert transport.closed == 1


async def test_nothing_is_lost_while_the_database_is_away(database, transport, node_id):
    """A result that came in meanwhile is settled when it is back."""
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id))
        call = await transport.next()
        database.away = 3
        call.succeed()
        (done,) = await ended(database, asked)
        assert database.away == 0
        assert (done.status, done.attempts) == (TaskStatus.SUCCESS, 1)
        assert running.engine.counters.late == 0


async def test_a_turn_whose_commit_was_not_heard_of_does_no_harm(database, transport, node_id):
    """A settled result is late the second time; what began unheard is asked for again."""
    async with running_engine(database, transport, lease=0.3, renew=0.1, poll=0.1) as running:
        asked = [await running.intake.submit(new_task(node_id)) for _ in range(2)]
        call = await transport.next()
        database.away_after_commit = 1
        transport.at_once = lambda call: call.succeed()
        call.succeed()
        done = await ended(database, *asked)
        assert running.engine.counters.late == 1
    assert [task.status for task in done] == [TaskStatus.SUCCESS] * 2
    assert await attempts_of(database, asked[0]) == [(1, Outcome.SUCCEEDED)]
    assert await attempts_of(database, asked[1]) == [(1, Outcome.LOST), (2, Outcome.SUCCEEDED)]


async def test_a_turn_that_fails_is_told_and_the_next_one_comes(
    database, transport, node_id, caplog, monkeypatch
):
    """An error of one turn ends neither the loop nor a task."""
    taken, faults = turns.take, [ValueError("a bug")]

    def take(*given):
        if faults:
            raise faults.pop()
        return taken(*given)

    monkeypatch.setattr(turns, "take", take)
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id))
        (await transport.next()).succeed()
        await ended(database, asked)
    assert "the engine's turn failed; going on" in caplog.messages


async def test_a_result_that_cannot_be_settled_stops_nobody_else(database, transport, monkeypatch):
    """It is let go of; its task is asked for again once what was wrong has passed."""
    poor, well = await database.write(lambda tx: add_nodes(tx, 2))
    settled, broken = lifecycle.settle, True

    def settle(task, *given):
        if task.node_id == poor and broken:
            raise ValueError("a bug")
        return settled(task, *given)

    monkeypatch.setattr(lifecycle, "settle", settle)
    monkeypatch.setattr(engine_module, "UNSETTLED_SECONDS", 2.0)
    transport.at_once = Call.succeed
    async with running_engine(database, transport) as running:
        one = await running.intake.submit(new_task(poor))
        other = await running.intake.submit(new_task(well))
        await ended(database, other)
        broken = False
        (done,) = await ended(database, one)
    assert done.status is TaskStatus.SUCCESS
    assert {call.request.request_id for call in transport.calls} == {
        one.request_id,
        other.request_id,
    }


async def test_a_place_is_free_once_its_delivery_is_back(database, transport):
    """With few places, tasks follow each other without waiting for a poll."""
    nodes = await database.write(lambda tx: add_nodes(tx, 6))
    transport.at_once = Call.succeed
    async with running_engine(database, transport, max_in_flight=2, poll=3600) as running:
        asked = [await running.intake.submit(new_task(node)) for node in nodes]
        async with asyncio.timeout(PATIENCE):
            await ended(database, *asked)
    assert transport.most_out <= 2


async def test_purges_of_a_node_go_in_one_request(database, transport, node_id):
    """While one is out the others gather; each still has its own result."""
    async with running_engine(database, transport, max_per_node=1, max_batch=100) as running:
        first = await running.intake.submit(new_task(node_id, **PURGE))
        call = await transport.next()
        rest = [await running.intake.submit(new_task(node_id, **PURGE)) for _ in range(30)]
        call.succeed()
        for number in range(30):
            call = await transport.next()
            call.fail("no") if number == 7 else call.succeed()
        done = await ended(database, first, *rest)
    assert [len(names) for names, _ in transport.batches] == [30]
    assert [task.status for task in done].count(TaskStatus.FAILED) == 1
    assert done[8].status is TaskStatus.FAILED


async def test_an_agent_is_told_once_of_a_cancel(database, transport, node_id):
    """While the attempt is out; its answer ends the task."""
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id))
        call = await transport.next()
        await task_rule.cancel(database, asked.id)
        for _ in range(3):
            running.hints.tell([node_id])
            async with asyncio.timeout(PATIENCE):
                await transport.cancelled.wait()
        assert [cancel[0] for cancel in transport.cancels] == [asked.request_id]
        call.fail("cancelled before it took effect")
        (done,) = await ended(database, asked)
    assert done.status is TaskStatus.CANCELLED
    assert "cancelled before it took effect" in done.last_error


async def test_a_zombie_harms_nobody(database, node_id):
    """Held up past its lease, it loses the node; its late result is dropped; the task ends once."""
    held_up, rescuer = ScriptedTransport(), ScriptedTransport()
    away = Frozen(database.url)
    async with running_engine(away, held_up, owner="zombie", lease=0.3, poll=0.1) as first:
        asked = await first.intake.submit(new_task(node_id, kind=TaskKind.APPLY_CONFIG))
        stuck = await held_up.next()
        away.thawed.clear()  # as SIGSTOP would: it renews nothing any more
        async with running_engine(database, rescuer, owner="rescuer", poll=0.05):
            again = await rescuer.next()
            assert again.request.request_id == asked.request_id
            assert (again.request.epoch or 0) > (stuck.request.epoch or 0)
            again.succeed("by the rescuer")
            (done,) = await ended(database, asked)
            stuck.succeed("by the zombie")
            away.thawed.set()
            first.hints.tell()
            await _counted(first.engine, "late")
            (seen,) = await ended(database, asked)
    await away.close()
    assert (done.status, done.result, done.attempts) == (TaskStatus.SUCCESS, "by the rescuer", 2)
    assert seen == done
    assert await attempts_of(database, asked) == [(1, Outcome.LOST), (2, Outcome.SUCCEEDED)]


async def test_a_late_result_does_not_disturb_the_attempt_that_took_its_place(
    database, transport, node_id
):
    """An engine that lost a node and has it back settles the new attempt, not the old one."""
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id))
        old = await transport.next()
        await database.write(lambda tx: mailboxes.release_all(tx, running.owner))
        running.hints.tell()
        new = await transport.next()
        old.succeed("of the old attempt")
        await _counted(running.engine, "late")
        new.succeed("of the new attempt")
        (done,) = await ended(database, asked)
    assert (done.attempts, done.result) == (2, "of the new attempt")
    assert len(transport.calls) == 2


async def test_an_attempt_is_not_sent_once_its_lease_may_have_lapsed(database, transport, node_id):
    """What began but was held up until the lease was over is asked for again, under a new one."""
    slow = Slow(database.url, seconds=0.3)
    async with running_engine(slow, transport, lease=0.2, poll=0.05) as running:
        asked = await running.intake.submit(new_task(node_id))
        call = await transport.next()
        call.succeed()
        (done,) = await ended(slow, asked)
    await slow.close()
    assert await attempts_of(database, done) == [(1, Outcome.LOST), (2, Outcome.SUCCEEDED)]


async def test_another_replicas_work_is_seen_at_the_next_renewal(database, transport, node_id):
    """Without any hint: the owner sees the mailbox's work_seq grow."""
    async with running_engine(database, transport, renew=0.1, poll=0.1) as running:
        await running.intake.submit(new_task(node_id))
        await transport.next()
        purge = new_task(node_id, **PURGE)
        await database.create(lambda tx: create_many(tx, [purge]))
        assert (await transport.next()).request.request_id == purge.request_id


async def test_leases_are_renewed_while_a_task_is_out(database, transport, node_id):
    """A task may take many times longer than a lease, and nobody else begins it."""
    rival = ScriptedTransport()
    async with (
        running_engine(database, transport, lease=0.4, renew=0.1, poll=0.1) as running,
        running_engine(database, rival, owner="rival", poll=0.05),
    ):
        asked = await running.intake.submit(new_task(node_id))
        call = await transport.next()
        end = time.monotonic() + 1.2
        await database.until(lambda _: time.monotonic() > end)
        call.succeed()
        (done,) = await ended(database, asked)
    assert (done.attempts, rival.calls) == (1, [])


async def _counted(engine, name):
    """Wait until a counter of an engine has moved."""
    async with asyncio.timeout(PATIENCE):
        while not getattr(engine.counters, name):
            await asyncio.sleep(0.005)


def _foreign():
    refused = Refused("status 404")
    refused.fault = "what answers is no Edgeplane agent: status 404"
    return refused


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda call: call.succeed(), None),
        (lambda call: call.fail(), None),
        (lambda call: call.break_with(Unreachable("connection refused")), "connection refused"),
        (lambda call: call.break_with(_foreign()), _foreign().fault),
    ],
    ids=["success", "failure", "unreachable", "foreign"],
)
async def test_a_delivery_leaves_what_it_shows_of_its_node(
    database, transport, node_id, end, words
):
    """An agent that answers is well, whatever it says of the task."""
    async with running_engine(database, transport) as running:
        asked = await running.intake.submit(new_task(node_id, max_attempts=1))
        end(await transport.next())
        await ended(database, asked)
        assert running.engine.sightings.take(10) == {node_id: words}
