"""The hot statements use the index meant for them, on every dialect, and read no more than that."""

import json
import re
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import delete, insert, select, update

from edgeplane.model.clock import utc_now
from edgeplane.model.paging import PageRequest
from edgeplane.model.progress import OperationState, Standing
from edgeplane.model.tasks import TaskKind, TaskStatus, lane_of
from edgeplane.store import (
    ages,
    labels,
    mailboxes,
    open_tasks,
    operation_steps,
    prepared,
    removal,
    tasks,
)
from edgeplane.store import node_health as health
from edgeplane.store import operations as store_operations
from edgeplane.store.database import make_engine
from edgeplane.store.operations import page_query
from edgeplane.store.prepared import Items
from edgeplane.store.rows import (
    agent_tasks,
    node_health,
    node_mailboxes,
    nodes,
    operations,
    task_attempts,
)
from edgeplane.store.task_lists import LISTED, TaskFilter, shape_of, statements
from edgeplane.store.workers import Tx
from kit import factories
from kit.factories import add_nodes, new_task
from kit.operations import new_operation

NODES, TASKS = 300, 6000


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
def engine(request, tmp_path_factory):
    """Tables with some thousand rows of every kind and status, analysed."""
    if request.param == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        url = template.copy(tmp_path_factory.mktemp("plans"))
    else:
        server = request.getfixturevalue("mariadb")
        url = factories.mysql_url(server.create_database("store_plans"))
    opened = make_engine(url)
    with opened.begin() as connection:
        _fill(connection)
        connection.exec_driver_sql(
            "ANALYZE"
            if request.param == "sqlite"
            else "ANALYZE TABLE agent_tasks, node_mailboxes, task_attempts, nodes, node_labels,"
            " node_health, operations, operation_targets"
        )
    return opened


def _fill(connection):
    random, tx = Random(3), Tx(connection, utc_now(), connection.dialect.name)
    ids = add_nodes(tx, NODES)
    mailboxes.mark_work(tx, ids[: NODES // 10])
    for number, node_id in enumerate(ids):
        labels.write(tx, node_id, {"region": f"r{number % 20}", "tier": f"t{number % 3}"})
    counts = {Standing.UNSENT: NODES, Standing.SKIPPED: 0}
    made = [store_operations.add(tx, new_operation(), counts) for _ in range(40)]
    for operation_id in made[:5]:
        assert operation_id is not None
        operation_steps.add_targets(tx, operation_id, ids)
    connection.execute(update(operations).values(next_at=None))
    rows, taken = [], set()
    times = dict.fromkeys(("created_at", "updated_at", "deadline_at"), tx.now)
    for _ in range(TASKS):
        asked = new_task(random.choice(ids), kind=random.choice(list(TaskKind)))
        row = dict(zip(tasks._NEW, tasks._new_row(asked, None, tx), strict=True)) | times
        status = random.choices(list(TaskStatus), [1, 1, 20, 2, 1, 1])[0]
        of = random.choice(made)
        if random.random() < 0.5 and (of, asked.node_id) not in taken:
            taken.add((of, asked.node_id))
            row["operation_id"] = of
        final = status not in (TaskStatus.PENDING, TaskStatus.RUNNING)
        lane = None if final else lane_of(asked.kind).value
        rows.append({**row, "status": status.value, "lane": lane})
    connection.execute(insert(agent_tasks), rows)
    ended = {"number": 1, "begun_at": tx.now, "ended_at": tx.now, "outcome": "succeeded"}
    ids = connection.scalars(select(agent_tasks.c.id).where(agent_tasks.c.lane.is_(None))).all()
    attempts = [{"task_id": task_id, "message": "done", **ended} for task_id in ids]
    connection.execute(insert(task_attempts), attempts)


def explain(engine, statement, **given):
    """Return the lines of a plan: of SQLite's words, or of each table MariaDB reads."""
    with engine.connect() as connection:
        return explain_on(connection, statement, **given)


def explain_on(connection, statement, **given):
    """Return a plan made on an open connection."""
    engine = connection.engine
    compiled = statement.compile(engine, compile_kwargs={"render_postcompile": True})
    values = {**{name: bind.value for name, bind in compiled.binds.items()}, **given}
    ordered = tuple(prepared._plain(values[name]) for name in compiled.positiontup)
    if engine.dialect.name == "sqlite":
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", ordered).all()
        return [row[3] for row in plan] + _sqlite_sorts(plan)
    (text,) = connection.exec_driver_sql(f"EXPLAIN FORMAT=JSON {compiled}", ordered).one()
    return [json.dumps(table) for table in _tables(json.loads(text))] + _sorts(text)


def _sqlite_sorts(plan):
    """Find the sorts of rows read from a table: those that merge branches sort a page at most."""
    reading = {row[1] for row in plan if re.match(r"(SCAN|SEARCH) (agent|node|oper)", row[3])}
    return ["filesort" for row in plan if "TEMP B-TREE" in row[3] and row[1] in reading]


def _tables(plan):
    """Find the tables a plan of MariaDB's reads."""
    if isinstance(plan, list):
        for part in plan:
            yield from _tables(part)
    elif isinstance(plan, dict):
        if "table_name" in plan:
            yield {k: plan[k] for k in ("table_name", "access_type", "key") if k in plan}
        for part in plan.values():
            yield from _tables(part)


def _sorts(text):
    return ["filesort"] * len(re.findall('"filesort"', text))


def reads(engine, plan, table):
    """Return the index each read of a table uses; None for a full scan."""
    if engine.dialect.name == "sqlite":
        lines = [line for line in plan if re.match(rf"(SCAN|SEARCH) {table}\b", line)]
        keys = [re.search(r"USING (?:COVERING )?INDEX (\S+)", line) for line in lines]
        primary = ["INTEGER PRIMARY KEY" in line for line in lines]
        return [
            key[1] if key else "PRIMARY" if rowid else None
            for key, rowid in zip(keys, primary, strict=True)
        ]
    found = [json.loads(line) for line in plan if line.startswith("{")]
    return [
        None if one["access_type"] == "ALL" else one.get("key")
        for one in found
        if one["table_name"] == table
    ]


def sorts(plan):
    """Count how often a plan sorts by itself."""
    return plan.count("filesort")


@pytest.mark.parametrize("nodes", [3, 30, NODES])
@pytest.mark.parametrize("due", [0.1, 0.5, 1])
def test_a_claim_walks_its_index_in_order(engine, nodes, due):
    """However many are due, or a second claimer starves behind the rows the first one holds."""
    now, last = utc_now(), int(nodes * due)
    boxes = node_mailboxes.c
    with engine.connect() as connection, connection.begin() as undone:
        first = connection.scalar(select(boxes.node_id).order_by(boxes.node_id).limit(1))
        connection.execute(delete(node_mailboxes).where(boxes.node_id >= first + nodes))
        connection.execute(update(node_mailboxes).values(next_at=None))
        some = boxes.node_id <= first + last
        connection.execute(update(node_mailboxes).where(some).values(next_at=now))
        plan = explain_on(connection, mailboxes.DUE._build(Items(0)), now=now, most=64)
        undone.rollback()
    assert reads(engine, plan, "node_mailboxes") == ["ix_node_mailboxes_next_at_node_id"]
    assert sorts(plan) == 0


@pytest.mark.parametrize("due", [0.1, 0.5, 1])
def test_who_is_asked_next_is_found_along_its_index(engine, due):
    """In its order, however many are due: a second replica must find what the first one left."""
    now, last = utc_now(), int(NODES * due)
    checks = node_health.c
    with engine.connect() as connection, connection.begin() as undone:
        first = connection.scalar(select(checks.node_id).order_by(checks.node_id).limit(1))
        later = now + timedelta(seconds=60)
        connection.execute(update(node_health).values(check_at=later))
        some = checks.node_id <= first + last
        connection.execute(update(node_health).where(some).values(check_at=now))
        claim = explain_on(connection, health.DUE._build(Items(0)), now=now, most=128)
        oldest = explain_on(connection, health.OLDEST_DUE._build(Items(0)), now=now, most=1)
        undone.rollback()
    for plan in (claim, oldest):
        assert reads(engine, plan, "node_health") == ["ix_node_health_check_at_node_id"]
        assert sorts(plan) == 0


@pytest.mark.parametrize("width", [8, 256])
def test_open_tasks_of_nodes_are_ranges_of_one_index(engine, width):
    """One for each node, in the order of the index, also where most of the nodes are asked for."""
    with engine.connect() as connection:
        query = select(node_mailboxes.c.node_id).order_by(node_mailboxes.c.node_id).limit(width)
        ids = list(connection.scalars(query))
    given = {f"nodes_{number}": node_id for number, node_id in enumerate(ids)}
    plan = explain(engine, open_tasks.PLAIN._build(Items(width)), **given)
    assert reads(engine, plan, "agent_tasks") == ["ix_agent_tasks_node_id_lane_lane_rank_id"]
    assert sorts(plan) == 0


def test_a_deep_queue_is_read_lane_by_lane(engine):
    """Each part is a range of an index in its order; the rest are look-ups by id."""
    with engine.connect() as connection:
        node_id = connection.scalar(select(node_mailboxes.c.node_id).limit(1))
    given = {"node": node_id, "now": utc_now()}
    plan = explain(engine, open_tasks.WINDOWED._build(Items(0)), **given)
    found = reads(engine, plan, "agent_tasks")
    assert found.count("ix_agent_tasks_node_id_lane_lane_rank_id") == 4
    assert found.count("ix_agent_tasks_node_id_type_status_id") == 1
    assert set(found) == {
        "PRIMARY",
        "ix_agent_tasks_node_id_lane_lane_rank_id",
        "ix_agent_tasks_node_id_type_status_id",
    }
    assert sorts(plan) == 0


FILTERS = [
    TaskFilter(node_id=node, kind=kind, status=status)
    for node in (None, 7)
    for kind in (None, TaskKind.RELOAD)
    for status in (None, TaskStatus.FAILED)
]


OPERATION_FILTERS = [
    TaskFilter(operation_id=3, status=status) for status in (None, TaskStatus.FAILED)
]
#: What a page's statement may be given.
GIVEN = {
    "node": 7,
    "operation": 3,
    "before": 5000,
    "floor": 1000,
    "depth": 21,
    "most": 21,
    "skip": 0,
}


def list_index(wanted):
    """Return the index that serves a filter's ranges."""
    if wanted.operation_id is not None:
        return "ix_agent_tasks_operation_id_status_id"
    index = "type_status_id" if wanted.node_id is None else "node_id_type_status_id"
    return f"ix_agent_tasks_{index}"


@pytest.mark.parametrize("way", ["first", "older", "above"])
@pytest.mark.parametrize("wanted", [*FILTERS, *OPERATION_FILTERS], ids=str)
def test_a_page_of_a_list_reads_ranges_already_in_order(engine, wanted, way):
    """Each branch is one range of the index for its filter; only what they merge to is sorted."""
    found = statements(shape_of(wanted))
    plan = explain(engine, getattr(found, way)._build(Items(0)), **GIVEN)
    used = reads(engine, plan, "agent_tasks")
    if wanted == TaskFilter():
        assert used == ["PRIMARY"] or (way == "first" and used == [None])
        assert sorts(plan) == 0
        return
    kinds = 1 if wanted.kind or wanted.operation_id else len(TaskKind)
    branches = kinds * (1 if wanted.status else len(TaskStatus))
    assert used == [list_index(wanted)] * branches
    assert sorts(plan) <= (branches > 1)
    assert len(found.reach) == branches


@pytest.mark.parametrize("way", ["older", "above"])
@pytest.mark.parametrize("wanted", [*FILTERS, *OPERATION_FILTERS], ids=str)
def test_a_page_further_down_begins_where_it_was_asked_for(engine, wanted, way):
    """Not at the newest row, from where MariaDB would read on to it through all between."""
    query = getattr(statements(shape_of(wanted)), way)._build(Items(0))
    plan = explain(engine, query, **GIVEN)
    if engine.dialect.name == "sqlite":
        bound = "id<?" if way == "older" else "id>?"
        found = [line for line in plan if re.match(r"(SCAN|SEARCH) agent_tasks\b", line)]
        assert all(bound in line for line in found)
    else:
        found = [json.loads(line) for line in plan if '"agent_tasks"' in line]
        assert {table["access_type"] for table in found} == {"range"}
        text = str(query.compile(engine))
        assert text.count("FORCE INDEX") == len(found)
    assert found


@pytest.mark.parametrize("wanted", [*FILTERS[1:], *OPERATION_FILTERS], ids=str)
def test_how_far_a_deep_page_reaches_is_read_in_order(engine, wanted):
    """One range after the other, each in its index alone."""
    for reach in statements(shape_of(wanted)).reach:
        plan = explain(engine, reach._build(Items(0)), **{**GIVEN, "skip": 1000})
        assert reads(engine, plan, "agent_tasks") == [list_index(wanted)]
        assert sorts(plan) == 0


@pytest.mark.parametrize("wanted", [*FILTERS, *OPERATION_FILTERS], ids=str)
def test_a_total_is_counted_in_an_index_alone(engine, wanted):
    """Never in the rows, whose payloads would have to be read past; in three ranges at most."""
    counts = statements(shape_of(wanted)).count
    assert len(counts) == (
        3 if wanted.status and not wanted.kind and not wanted.operation_id else 1
    )
    for count in counts:
        plan = explain(engine, count._build(Items(0)), **{**GIVEN, "most": 10_000})
        (used,) = reads(engine, plan, "agent_tasks")
        assert used is not None
        if wanted == TaskFilter(node_id=7):  # any index that begins with the node is as good
            assert used.startswith("ix_agent_tasks_node_id_")
        elif wanted == TaskFilter(operation_id=3):
            assert "operation_id" in used or used.startswith("sqlite_autoindex_agent_tasks")
        elif wanted != TaskFilter():
            assert used == list_index(wanted)


def test_the_rows_of_a_page_are_looked_up_by_id(engine):
    """With the last attempt of each, and the payload of its operation."""
    with engine.connect() as connection:
        ids = list(connection.scalars(select(agent_tasks.c.id).limit(32)))
    given = {f"tasks_{number}": task_id for number, task_id in enumerate(ids)}
    plan = explain(engine, LISTED._build(Items(32)), **given)
    assert reads(engine, plan, "agent_tasks") == ["PRIMARY"]
    assert set(reads(engine, plan, "task_attempts")) <= {
        "PRIMARY",
        "sqlite_autoindex_task_attempts_1",
    }
    assert reads(engine, plan, "operations") == ["PRIMARY"]


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (operation_steps.FAILED, "ix_agent_tasks_operation_id_status_id"),
        (operation_steps.PENDING, "ix_agent_tasks_operation_id_status_id"),
        (operation_steps.WAITING, "ix_agent_tasks_operation_id_status_id"),
        (operation_steps.OPEN_NODES, "uq_agent_tasks_operation_id_node_id"),
    ],
    ids=["failed", "pending", "waiting", "open"],
)
def test_a_step_reads_one_range_of_an_operation_in_order(engine, statement, index):
    """Whatever other operations there were."""
    given = {"operation": 3, "after": 100, "most": 100}
    plan = explain(engine, statement._build(Items(0)), **given)
    (found,) = reads(engine, plan, "agent_tasks")
    assert found == index or (found or "").startswith("sqlite_autoindex_agent_tasks_")
    assert sorts(plan) == 0


@pytest.mark.parametrize("due", [1, 40])
def test_a_step_is_claimed_along_its_index(engine, due):
    """In the order in which operations fell due; and lists of operations walk theirs."""
    with engine.connect() as connection, connection.begin() as undone:
        some = operations.c.id <= due
        connection.execute(update(operations).where(some).values(next_at=utc_now()))
        plan = explain_on(connection, operation_steps.DUE._build(Items(0)), now=utc_now())
        undone.rollback()
    assert reads(engine, plan, "operations") == ["ix_operations_next_at_id"]
    assert sorts(plan) == 0
    for state in (None, OperationState.DONE):
        plan = explain(engine, page_query(state, PageRequest(size=20, before=30)))
        assert sorts(plan) == 0
        assert None not in reads(engine, plan, "operations")


def test_targets_are_walked_in_order(engine):
    """The next chunk is a range of the key."""
    plan = explain(engine, operation_steps.TARGETS._build(Items(0)), operation=3, most=100)
    assert sorts(plan) == 0
    assert reads(engine, plan, "operation_targets") != [None]


def test_nodes_are_found_by_labels_in_an_index(engine):
    """One range for each label; the nodes themselves are looked up by id."""
    wanted = labels.carried([("region", "r7"), ("tier", "t1")])
    plan = explain(engine, select(nodes).where(*wanted).order_by(nodes.c.id.desc()).limit(21))
    found = reads(engine, plan, "node_labels")
    assert "ix_node_labels_name_value_node_id" in found
    assert set(found) <= {"ix_node_labels_name_value_node_id", "PRIMARY"}  # of one found already
    assert reads(engine, plan, "nodes") == ["PRIMARY"]


def test_a_sort_would_be_seen(engine):
    """The test of the tests: an order no index has is told."""
    plan = explain(engine, select(agent_tasks.c.id).order_by(agent_tasks.c.updated_at))
    assert sorts(plan) == 1
    assert reads(engine, plan, "agent_tasks") == [None]


@pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.RUNNING])
def test_the_oldest_ages_are_the_beginning_of_a_range(engine, status):
    """Whatever the history: a scrape must cost the same every day."""
    plan = explain(
        engine, ages.LOWEST._build(Items(0)), kind=TaskKind.RELOAD.value, status=status.value
    )
    assert reads(engine, plan, "agent_tasks") == ["ix_agent_tasks_type_status_id"]
    assert sorts(plan) == 0
    plan = explain(engine, ages.OLDEST_DUE._build(Items(0)), now=utc_now())
    assert reads(engine, plan, "node_mailboxes") == ["ix_node_mailboxes_next_at_node_id"]
    assert sorts(plan) == 0
    for statement, given in ((ages.IN_STATE, {"state": "running"}), (ages.RUNNING, {})):
        plan = explain(engine, statement._build(Items(0)), **given)
        assert reads(engine, plan, "operations") == ["ix_operations_state_id"]
        assert sorts(plan) == 0


@pytest.mark.parametrize("after", [0, 3000])
@pytest.mark.parametrize("status", [TaskStatus.SUCCESS, TaskStatus.FAILED])
def test_what_may_be_removed_is_walked_in_an_index(engine, status, after):
    """And what is removed is found by its id: no row of another task is touched or locked."""
    given = {"kind": TaskKind.RELOAD.value, "status": status.value, "after": after}
    plan = explain(engine, removal.STEP._build(Items(0)), **given)
    assert reads(engine, plan, "agent_tasks") == ["ix_agent_tasks_type_status_id"]
    assert sorts(plan) == 0
    with engine.connect() as connection:
        query = select(agent_tasks.c.id).where(agent_tasks.c.status == status.value)
        ids = list(connection.scalars(query.order_by(agent_tasks.c.id).limit(64)))
    given = {f"tasks_{number}": task_id for number, task_id in enumerate(ids)}
    width = Items(len(ids))
    picked = {**given, "status": status.value, "before": utc_now()}
    for statement, table, values in (
        (removal.OVER, "agent_tasks", picked),
        (removal._DELETE_ATTEMPTS, "task_attempts", given),
        (removal._DELETE, "agent_tasks", given),
    ):
        plan = explain(engine, statement._build(width), **values)
        (used,) = reads(engine, plan, table)
        assert used in {"PRIMARY", "sqlite_autoindex_task_attempts_1"}, plan
