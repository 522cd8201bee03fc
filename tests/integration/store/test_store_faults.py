"""What can go wrong below a transaction, and what its caller sees of it."""

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pymysql
import pytest
from pymysql.constants import COMMAND
from sqlalchemy import insert, select

from edgeplane.model.errors import DatabaseAway, DatabaseError, NotFound
from edgeplane.model.users import Role
from edgeplane.services.tasks import create_many
from edgeplane.store import mailboxes, tasks, users, workers
from edgeplane.store.database import Database, make_engine
from edgeplane.store.rows import node_mailboxes
from edgeplane.store.rows import users as user_rows
from edgeplane.store.urls import URL
from kit import factories
from kit.factories import add_nodes, add_tasks, new_task
from kit.ports import free_port

MINE = mailboxes.Lease(owner="me", seconds=10)


@pytest.fixture
async def on_mariadb(mariadb_tables):
    """An open store on MariaDB's empty tables."""
    opened = Database(mariadb_tables)
    await opened.write(factories.clear)
    yield opened
    await opened.close()


def add_user(tx, name="ann"):
    """Write something."""
    return users.add(tx, name, "x", Role.ADMIN)


def connection_id(tx):
    """Ask MariaDB for the number of a connection."""
    return tx.conn.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()


async def names(database):
    """List the users there are."""
    return sorted(user.username for user in await database.read(users.everyone))


async def test_a_fault_that_is_no_databases_ends_no_thread(database, monkeypatch):
    """It is answered as an error of ours, and what is handed in next is carried out."""

    def stumble(_connection):
        monkeypatch.undo()
        raise RuntimeError("no memory for it")

    monkeypatch.setattr(workers, "_database_time", stumble)
    with pytest.raises(DatabaseError):
        await database.write(add_user)
    await database.write(add_user)
    assert await names(database) == ["ann"]


async def test_works_that_share_a_commit_keep_their_own_errors(database):
    """A rule's refusal, a bug and a broken constraint undo their own work and no other."""

    def refuse(tx):
        add_user(tx, "refused")
        raise NotFound("nothing there")

    def stumble(tx):
        add_user(tx, "stumbled")
        return 1 // 0

    def break_a_rule(tx):
        values = {"username": "broken", "password_hash": "x", "role": "admin", "active": True}
        values |= {"created_at": tx.now, "updated_at": tx.now}
        tx.conn.execute(insert(user_rows).values(values))
        tx.conn.execute(insert(user_rows).values(values))

    works: list[Any] = [partial(add_user, name=f"user-{n}") for n in range(20)]
    works[5:5] = [refuse, stumble, break_a_rule]
    answers = await asyncio.gather(*map(database.write, works), return_exceptions=True)
    assert [type(answer) for answer in answers[5:8]] == [
        NotFound,
        ZeroDivisionError,
        DatabaseError,
    ]
    assert await names(database) == sorted(f"user-{n}" for n in range(20))


async def test_an_answer_of_the_database_is_not_the_callers_business(database, caplog):
    """The caller sees no internals; the log has the reason, without the values."""

    def break_a_rule(tx):
        values: dict[str, Any] = {
            "username": None,
            "password_hash": "the-secret-hash",
            "role": "admin",
        }
        values |= {"active": True, "created_at": tx.now, "updated_at": tx.now}
        tx.conn.execute(insert(user_rows).values(values))

    with pytest.raises(DatabaseError) as raised:
        await database.write(break_a_rule)
    assert (raised.value.message, raised.value.status) == ("database error", 500)
    assert any("username" in message for message in caplog.messages)
    assert "the-secret-hash" not in caplog.text


async def test_a_works_time_is_the_databases_in_utc(database):
    """With milliseconds, close to this machine's on one machine."""
    now = await database.write(lambda tx: tx.now)
    assert now.tzinfo is UTC
    assert now.microsecond % 1000 == 0
    assert abs(datetime.now(UTC) - now) < timedelta(seconds=5)


async def test_closing_lets_what_was_handed_in_finish(url):
    """Everything written before is there afterwards, and closing twice does no harm."""
    first = Database(url)
    if first.dialect != "sqlite":
        await first.write(factories.clear)
    handed_in = [first.write(partial(add_user, name=f"u{n}")) for n in range(30)]
    waiting = asyncio.gather(*handed_in)
    await asyncio.sleep(0)
    await first.close()
    await waiting
    await first.close()
    second = Database(url)
    assert len(await names(second)) == 30
    await second.close()


async def test_a_deadlock_is_tried_again(on_mariadb):
    """Two works lock two rows in opposite orders: both are done, one of them twice."""
    first, second = await on_mariadb.write(lambda tx: add_nodes(tx, 2))
    both_hold_one = threading.Barrier(2, timeout=10)
    runs = []

    def meet(one, other):
        met: list[bool] = []

        def work(tx):
            runs.append(one)
            mailboxes.lock(tx, [one])
            if not met:
                met.append(True)
                both_hold_one.wait()
            mailboxes.lock(tx, [other])
            mailboxes.mark_work(tx, [one, other])

        return work

    await asyncio.gather(
        on_mariadb.write(meet(first, second)), on_mariadb.engine_write(meet(second, first))
    )
    boxes = await on_mariadb.write(lambda tx: mailboxes.lock(tx, [first, second]))
    assert len(runs) == 3
    assert [box.work_seq for box in boxes.values()] == [2, 2]


async def test_a_lock_that_is_not_had_in_time_is_tried_again(on_mariadb, mariadb):
    """The work is undone as a whole and done once its rows are free."""
    (node_id,) = await on_mariadb.write(lambda tx: add_nodes(tx, 1))
    holder = mariadb.connect(on_mariadb.url.database)
    holder.begin()
    with holder.cursor() as cursor:
        cursor.execute("SELECT * FROM node_mailboxes FOR UPDATE")
    runs = []

    def work(tx):
        runs.append(1)
        if len(runs) == 2:
            holder.rollback()
        tx.conn.exec_driver_sql("SET innodb_lock_wait_timeout = 1")
        add_user(tx)
        mailboxes.mark_work(tx, [node_id])

    await on_mariadb.write(work)
    holder.close()
    assert len(runs) == 2
    assert await names(on_mariadb) == ["ann"]


@pytest.mark.parametrize("way", ["write", "create", "engine_write"])
async def test_a_connection_that_was_killed_is_replaced(on_mariadb, mariadb, way):
    """The next work is done on a new one, and nobody hears of it."""
    submit = getattr(on_mariadb, way)
    old = await submit(connection_id)
    with mariadb.connect() as other:
        other.kill(old)
    assert (await submit(add_user)).username == "ann"
    assert await submit(connection_id) != old


async def test_a_connection_killed_half_way_loses_nothing(on_mariadb, mariadb):
    """Its transaction was undone: the work is done again, once in all."""
    await on_mariadb.write(connection_id)
    killed: list[int] = []

    def work(tx):
        add_user(tx)
        if not killed:
            killed.append(connection_id(tx))
            with mariadb.connect() as other:
                other.kill(killed[0])
        return connection_id(tx)

    assert await on_mariadb.write(work) not in killed
    assert await names(on_mariadb) == ["ann"]


async def test_a_server_that_is_away_is_told_and_its_words_are_logged(caplog):
    """The caller may send the request again; no password is in the log."""
    url = URL.create("mysql+pymysql", "u", "p-secret", "127.0.0.1", free_port(), "nothing")
    database = Database(url)
    for submit in (database.write, database.create, database.engine_write, database.read):
        with pytest.raises(DatabaseAway) as raised:
            await submit(lambda tx: tx.now)
        assert (raised.value.code, raised.value.status) == (5002, 503)
    await database.close()
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 4
    assert all(record.getMessage().startswith("database away: ") for record in told)
    assert "p-secret" not in caplog.text


class Unheard:
    """Makes the answers of the next commits get lost."""

    def __init__(self, monkeypatch, times=1):
        self.left = times
        transact = workers.Worker._transact

        def lose(worker, connection, group):
            transact(worker, connection, group)
            if self.left and group[0].sent:
                self.left -= 1
                raise pymysql.OperationalError(2013, "Lost connection during query")

        monkeypatch.setattr(workers.Worker, "_transact", lose)


async def test_a_create_whose_commit_was_not_heard_of_is_done_again(database, monkeypatch):
    """The answer is the tasks that exist, each once, with ids of the client's or of ours."""
    (node_id,) = await database.write(lambda tx: add_nodes(tx, 1))
    asked = [new_task(node_id), new_task(node_id, request_id="mine", request_id_given=True)]
    unheard = Unheard(monkeypatch)
    made = await database.create(lambda tx: create_many(tx, asked))
    assert unheard.left == 0
    found = await database.read(lambda tx: [tasks.get(tx, task.id) for task in made])
    assert [task.request_id for task in found] == [task.request_id for task in asked]
    everything = await database.read(
        lambda tx: tasks.by_request_id(tx, [t.request_id for t in asked])
    )
    assert len(everything) == 2


@pytest.mark.parametrize("way", ["write", "engine_write"])
async def test_any_other_work_whose_commit_was_not_heard_of_is_not_done_again(
    database, monkeypatch, way
):
    """It may have been done: whoever asked must look."""
    (node_id,) = await database.write(lambda tx: add_nodes(tx, 1))
    submit = getattr(database, way)
    Unheard(monkeypatch)
    with pytest.raises(DatabaseAway):
        await submit(lambda tx: mailboxes.mark_work(tx, [node_id]))
    found = await database.read(lambda tx: tx.conn.scalar(select(node_mailboxes.c.work_seq)))
    assert found == 1


async def test_claims_and_creates_at_the_same_mailboxes_all_come_through(database, url):
    """Under contention from two processes nothing is refused, and every mark is counted."""
    ids = await database.write(lambda tx: add_nodes(tx, 20))
    other = Database(url)

    async def create(store):
        for _ in range(10):
            asked = [new_task(node_id) for node_id in ids]
            await store.create(lambda tx, asked=asked: add_tasks(tx, asked))

    async def claim(store):
        for _ in range(20):
            boxes = await store.engine_write(lambda tx: mailboxes.claim_due(tx, 5, MINE))
            dues = {box.node_id: None for box in boxes}
            await store.engine_write(lambda tx, d=dues: mailboxes.release(tx, d, "me"))

    await asyncio.gather(create(database), create(other), claim(database), claim(other))
    await other.close()
    boxes = await database.write(lambda tx: mailboxes.lock(tx, ids))
    assert {box.work_seq for box in boxes.values()} == {20}


async def test_rows_of_a_client_that_reads_no_more_are_free_again(on_mariadb):
    """It was cut off, or froze, while the server was sending it a long answer: 5 s, and not 60."""
    await on_mariadb.write(lambda tx: add_nodes(tx, 1))
    engine = make_engine(on_mariadb.url)
    frozen: Any = engine.raw_connection()
    with frozen.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT node_id FROM node_mailboxes FOR UPDATE")
    # Sent, and its answer, more than sockets hold, is never read.
    asked = "SELECT REPEAT('x', 1000000) FROM seq_1_to_64"
    frozen.dbapi_connection._execute_command(COMMAND.COM_QUERY, asked)
    async with asyncio.timeout(15):
        await on_mariadb.write(lambda tx: mailboxes.lock(tx, [1]))
    frozen.dbapi_connection._force_close()
    frozen.detach()
    engine.dispose()
