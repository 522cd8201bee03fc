"""Lists, on every dialect: against a plain oracle, page by page, whatever happens meanwhile."""

import asyncio
import itertools
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import update

from edgeplane.model.nodes import NodeStatus, SubIP
from edgeplane.model.paging import check_page
from edgeplane.model.tasks import TaskKind, TaskStatus
from edgeplane.store import nodes, task_lists
from edgeplane.store.nodes import NodeFilter
from edgeplane.store.rows import agent_tasks
from edgeplane.store.task_lists import TaskFilter
from kit.factories import add_nodes, add_tasks, new_task, stored


def store_random(tx, number=180, weights=(1, 1, 1, 1, 1, 1)):
    """Store tasks of every kind and status over three nodes; return them as stored."""
    random = Random(7)
    node_ids = add_nodes(tx, 3)
    made = add_tasks(
        tx,
        [
            new_task(random.choice(node_ids), kind=random.choice(list(TaskKind)))
            for _ in range(number)
        ],
    )
    for task in made:
        (status,) = random.choices(list(TaskStatus), weights)
        query = update(agent_tasks).where(agent_tasks.c.id == task.id)
        tx.conn.execute(query.values(status=status.value))
    return [stored(tx, task.id) for task in sorted(made, key=lambda task: task.id)]


def fits(task, wanted):
    """Say in plain Python whether a list shows a task."""
    return (
        wanted.node_id in (None, task.node_id)
        and wanted.kind in (None, task.kind)
        and wanted.status in (None, task.status)
    )


def every_filter(node_id):
    """Return the eight combinations of asking and not asking."""
    return [
        TaskFilter(node_id=node, kind=kind, status=status)
        for node in (None, node_id)
        for kind in (None, TaskKind.RELOAD)
        for status in (None, TaskStatus.FAILED)
    ]


async def follow(database, wanted, size, between=None):
    """Follow a list by cursor to its end; return the pages."""
    pages, cursor = [], None
    while True:
        asked = check_page(1, size, cursor)
        pages.append(
            await database.read(lambda tx, asked=asked: task_lists.list_page(tx, wanted, asked))
        )
        cursor = pages[-1].next_cursor
        if cursor is None:
            return pages
        if between is not None:
            await between()


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_every_filter_shows_what_fits_newest_first(database, size):
    """By cursor, for all eight combinations: nothing twice, nothing left out, the right total."""
    stored = await database.write(lambda tx: store_random(tx, 40 if size == 1 else 180))
    for wanted in every_filter(stored[0].node_id):
        expected = [task for task in reversed(stored) if fits(task, wanted)]
        pages = await follow(database, wanted, size)
        assert [task for page in pages for task in page.items] == expected
        assert {page.total for page in pages} == {len(expected)}
        assert all(len(page.items) == size for page in pages[:-1])


SPREADS = [(1, 1, 1, 1, 1, 1), (1, 0, 40, 2, 1, 0), (0, 0, 1, 0, 0, 0)]


@pytest.mark.parametrize("weights", SPREADS, ids=["even", "uneven", "one range"])
@pytest.mark.parametrize("cap", [10_000, 5])
async def test_pages_by_number_are_those_by_cursor(database, monkeypatch, cap, weights):
    """For all eight combinations, in lists longer than is counted too; past the end is nothing."""
    monkeypatch.setattr(task_lists, "TOTAL_CAP", cap)
    monkeypatch.setattr(task_lists, "DEEP", 12)
    stored = await database.write(lambda tx: store_random(tx, weights=weights))
    for wanted in every_filter(stored[0].node_id):
        pages = await follow(database, wanted, 6)
        for number, page in enumerate(pages, 1):
            asked = check_page(number, 6, None)
            found = await database.read(
                lambda tx, a=asked, w=wanted: task_lists.list_page(tx, w, a)
            )
            assert (found.items, found.next_cursor) == (page.items, page.next_cursor)
            assert (found.page, found.size) == (number, 6)
        beyond = check_page(len(pages) + 1, 6, None)
        found = await database.read(lambda tx, a=beyond, w=wanted: task_lists.list_page(tx, w, a))
        assert (list(found.items), found.next_cursor) == ([], None)


async def test_an_empty_list_is_a_page_too(database):
    """No items, total 0, nothing to follow."""
    for wanted in every_filter(1):
        page = await database.read(
            lambda tx, w=wanted: task_lists.list_page(tx, w, check_page(1, 20, None))
        )
        assert (list(page.items), page.total, page.next_cursor) == ([], 0, None)


async def test_rows_that_come_in_meanwhile_leave_no_gap(database):
    """Who follows a cursor sees all that was there at the beginning, once, in order."""
    stored = await database.write(store_random)
    node_id = stored[0].node_id
    new = [new_task(node_id, kind=TaskKind.RELOAD) for _ in range(3)]

    async def insert():
        asked = [new_task(task.node_id, kind=task.kind) for task in new]
        await database.create(lambda tx: add_tasks(tx, asked))

    for wanted in (TaskFilter(), TaskFilter(node_id=node_id), TaskFilter(kind=TaskKind.RELOAD)):
        before = await follow(database, wanted, 100)
        expected = [task.id for page in before for task in page.items]
        pages = await follow(database, wanted, 9, insert)
        assert [task.id for page in pages for task in page.items] == expected


async def test_a_page_is_one_look_at_the_tables(database):
    """While tasks move, what a filtered page shows fits the filter, and its total its items."""
    stored = await database.write(store_random)
    ids = [task.id for task in stored]
    wanted = TaskFilter(status=TaskStatus.RUNNING)

    seen = set()

    async def move():
        for status in itertools.cycle([TaskStatus.RUNNING, TaskStatus.PENDING]):
            if {0, len(ids)} <= seen:
                return
            query = update(agent_tasks).where(agent_tasks.c.id.in_(ids))
            await database.write(
                lambda tx, q=query, s=status: tx.conn.execute(q.values(status=s.value)) and None
            )

    moving = asyncio.create_task(move())
    while not moving.done():
        page = await database.read(
            lambda tx: task_lists.list_page(tx, wanted, check_page(1, 100, None))
        )
        assert {task.status for task in page.items} <= {TaskStatus.RUNNING}
        assert len(page.items) == min(100, page.total)
        seen.add(page.total)
    await moving
    assert {0, len(ids)} <= seen


@pytest.mark.parametrize("cap", [4, 5, 6])
async def test_totals_stop_at_their_cap(database, monkeypatch, cap):
    """So that no list counts its whole history; below the cap they are exact."""
    monkeypatch.setattr(task_lists, "TOTAL_CAP", cap)

    def store(tx):
        (node_id,) = add_nodes(tx, 1)
        add_tasks(tx, [new_task(node_id) for _ in range(5)])
        return node_id

    node_id = await database.write(store)
    for wanted in (TaskFilter(), TaskFilter(node_id=node_id), TaskFilter(kind=TaskKind.RELOAD)):
        page = await database.read(
            lambda tx, w=wanted: task_lists.list_page(tx, w, check_page(1, 2, None))
        )
        assert page.total == min(5, cap)
        assert page.next_cursor is not None


async def test_a_large_payload_is_left_out_of_lists(database):
    """16 KiB are shown, one byte more is not, in whatever characters; the task itself has all."""
    fits_in, large, wide = "x" * (16 << 10), "x" * ((16 << 10) + 1), "é" * ((8 << 10) + 1)

    def store(tx):
        (node_id,) = add_nodes(tx, 1)
        asked = [new_task(node_id, payload=payload) for payload in (fits_in, large, wide)]
        return add_tasks(tx, asked)

    made = await database.write(store)
    page = await database.read(
        lambda tx: task_lists.list_page(tx, TaskFilter(), check_page(1, 20, None))
    )
    assert [task.payload for task in page.items] == [None, None, fits_in]
    whole = await database.read(lambda tx: [stored(tx, task.id).payload for task in made])
    assert whole == [fits_in, large, wide]


async def test_times_are_utc_with_milliseconds_in_lists_too(database):
    """Whatever reads them."""
    await database.write(lambda tx: store_random(tx, 3))
    page = await database.read(
        lambda tx: task_lists.list_page(tx, TaskFilter(), check_page(1, 20, None))
    )
    for task in page.items:
        assert task.created_at.utcoffset() == timedelta(0)
        assert task.created_at.microsecond % 1000 == 0


def store_nodes(tx):
    """Store nodes that differ in all that can be asked for."""
    subs = (SubIP(ip="10.9.0.1", enabled=False), SubIP(ip="2001:db8::5", enabled=True))
    add_nodes(tx, 1, name="edge-1", main_ip="10.0.0.1")
    add_nodes(tx, 1, name="Edge-2", main_ip="10.0.0.2", enabled=False, sub_ips=subs)
    add_nodes(tx, 1, name="100%_x", main_ip="10.0.1.3", status=NodeStatus.OFFLINE)
    add_nodes(tx, 1, name="Ärger 节点", main_ip="2001:db8::1", status=NodeStatus.MAINTENANCE)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, ["Ärger 节点", "100%_x", "Edge-2", "edge-1"]),
        ({"name": "edge"}, ["Edge-2", "edge-1"]),
        ({"name": "EDGE-1"}, ["edge-1"]),
        ({"name": "%"}, ["100%_x"]),
        ({"name": "_"}, ["100%_x"]),
        ({"name": "Ärger"}, ["Ärger 节点"]),
        ({"name": "ärger"}, ["Ärger 节点"]),
        ({"name": "节点"}, ["Ärger 节点"]),
        ({"name": "nobody"}, []),
        ({"ip": "10.0.0."}, ["Edge-2", "edge-1"]),
        ({"ip": "10.9"}, ["Edge-2"]),
        ({"ip": "2001:DB8"}, ["Ärger 节点", "Edge-2"]),
        ({"ip": "%"}, []),
        ({"ip": "é😀"}, []),
        ({"status": NodeStatus.ONLINE}, ["Edge-2", "edge-1"]),
        ({"status": NodeStatus.MAINTENANCE}, ["Ärger 节点"]),
        ({"enabled": False}, ["Edge-2"]),
        ({"enabled": True}, ["Ärger 节点", "100%_x", "edge-1"]),
        ({"enabled": True, "name": "edge", "ip": "10."}, ["edge-1"]),
    ],
)
async def test_nodes_are_listed_by_what_is_asked(database, wanted, names):
    """Parts of names in any case, parts of any address; a wildcard is a character like others."""
    await database.write(store_nodes)
    page = await database.read(
        lambda tx: nodes.list_page(tx, NodeFilter(**wanted), check_page(1, 20, None))
    )
    assert [node.name for node in page.items] == names
    assert page.total == len(names)


async def test_nodes_are_paged_like_tasks(database):
    """By number and by cursor, newest first, with their sub-IPs in the order given."""
    await database.write(store_nodes)
    asked, seen = check_page(1, 3, None), []
    first = await database.read(lambda tx: nodes.list_page(tx, NodeFilter(), asked))
    rest = check_page(1, 3, first.next_cursor)
    second = await database.read(lambda tx: nodes.list_page(tx, NodeFilter(), rest))
    by_number = check_page(2, 3, None)
    third = await database.read(lambda tx: nodes.list_page(tx, NodeFilter(), by_number))
    seen = [node.name for page in (first, second) for node in page.items]
    assert seen == ["Ärger 节点", "100%_x", "Edge-2", "edge-1"]
    assert second.next_cursor is None
    assert third.items == second.items
    assert [sub.ip for sub in first.items[2].sub_ips] == ["10.9.0.1", "2001:db8::5"]
    assert [sub.enabled for sub in first.items[2].sub_ips] == [False, True]
