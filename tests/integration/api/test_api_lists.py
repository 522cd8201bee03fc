"""Pages and filters of the lists."""

import pytest

LIST_KEYS = ["list", "total", "page", "pageSize", "nextCursor"]
LISTS = ("/nodes", "/agent-tasks")


async def fill(house, number):
    """Store nodes with a task each; return the ids of either list, newest first."""
    nodes = [await house.node() for _ in range(number)]
    tasks = [(await house.task(node)).id for node in nodes]
    return {"/nodes": nodes[::-1], "/agent-tasks": tasks[::-1]}


def ids(page):
    """Return a page's ids."""
    return [item["id"] for item in page["list"]]


@pytest.mark.parametrize("path", LISTS)
async def test_an_empty_list_has_the_same_shape(api, path):
    """All five keys are there, with the defaults."""
    page = await api.data(path)
    assert list(page) == LIST_KEYS
    assert page == {"list": [], "total": 0, "page": 1, "pageSize": 20, "nextCursor": None}


@pytest.mark.parametrize("path", LISTS)
async def test_pages_are_cut_newest_first(api, house, path):
    """Twenty to a page unless asked otherwise; a page past the end is empty."""
    there = (await fill(house, 23))[path]
    first = await api.data(path)
    assert (ids(first), first["total"], first["page"], first["pageSize"]) == (
        there[:20],
        23,
        1,
        20,
    )
    assert first["nextCursor"]
    second = await api.data(path, page=2)
    assert (ids(second), second["page"], second["nextCursor"]) == (there[20:], 2, None)
    third = await api.data(path, page=3)
    assert (third["list"], third["total"], third["nextCursor"]) == ([], 23, None)
    assert ids(await api.data(path, page=2, pageSize=10)) == there[10:20]
    assert ids(await api.data(path, pageSize=100)) == there


@pytest.mark.parametrize("path", LISTS)
async def test_a_cursor_walks_the_whole_list_once(api, house, path):
    """Following ``nextCursor`` shows every row once, whatever arrives meanwhile."""
    there = (await fill(house, 11))[path]
    seen, query = [], {"pageSize": 4}
    while True:
        page = await api.data(path, **query)
        seen += ids(page)
        if page["nextCursor"] is None:
            break
        query = {"pageSize": 4, "cursor": page["nextCursor"]}
        await fill(house, 1)
    assert seen == there


@pytest.mark.parametrize("path", LISTS)
async def test_a_page_that_ends_the_list_has_no_cursor(api, house, path):
    """Exactly a page of rows: nothing follows."""
    await fill(house, 5)
    assert (await api.data(path, pageSize=5))["nextCursor"] is None
    assert (await api.data(path, pageSize=4))["nextCursor"] is not None


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"page": 0}, 2003),
        ({"page": -1}, 2003),
        ({"page": "x"}, 2002),
        ({"page": ""}, 2002),
        ({"page": "1.5"}, 2002),
        ({"page": 10**30}, 2003),
        ({"page": 502}, 2003),
        ({"page": 1002, "pageSize": 10}, 2003),
        ({"pageSize": 0}, 2003),
        ({"pageSize": 101}, 2003),
        ({"pageSize": -5}, 2003),
        ({"pageSize": "all"}, 2002),
        ({"cursor": ""}, 2002),
        ({"cursor": "x"}, 2002),
        ({"cursor": "b"}, 2002),
        ({"cursor": "b0"}, 2002),
        ({"cursor": "bffffffffffffffff"}, 2002),
        ({"cursor": "b1\n"}, 2002),
        ({"cursor": "b-1"}, 2002),
        ({"cursor": "b" + "1" * 40}, 2003),
        ({"cursor": "1 OR 1=1"}, 2002),
    ],
)
async def test_a_page_that_cannot_be_is_refused(api, path, query, code):
    """A page, a size or a cursor out of bounds or of no list's making is 400, by name."""
    answer = await api.get(path, **query)
    assert answer.brief == (400, code)
    assert answer.message.split(":")[0] in query


@pytest.mark.parametrize("path", LISTS)
async def test_the_deepest_page_by_number_is_allowed(api, path):
    """Ten thousand rows deep is the bound; beyond, the message says what to do."""
    assert (await api.get(path, page=501)).brief == (200, 0)
    assert "cursor" in (await api.get(path, page=502)).message


async def test_tasks_are_filtered(api, house):
    """By node, type and status, alone and together, total and pages included."""
    from edgeplane.model.tasks import TaskKind

    first, second = await house.node(), await house.node()
    made = {}
    for node in (first, second):
        for kind in TaskKind:
            task = await house.task(node, kind=kind)
            if node == second:
                await house.fail(task)
            made[node, kind.value] = task.id
    page = await api.data("/agent-tasks", nodeId=first)
    assert (ids(page), page["total"]) == (
        [made[first, kind.value] for kind in reversed(TaskKind)],
        3,
    )
    page = await api.data("/agent-tasks", type="purge_cache")
    assert ids(page) == [made[second, "purge_cache"], made[first, "purge_cache"]]
    assert {
        task["nodeId"] for task in (await api.data("/agent-tasks", status="failed"))["list"]
    } == {second}
    page = await api.data("/agent-tasks", status="pending", type="reload", nodeId=first)
    assert (ids(page), page["total"]) == ([made[first, "reload"]], 1)
    page = await api.data("/agent-tasks", status="success", nodeId=first)
    assert (page["list"], page["total"]) == ([], 0)
    assert (await api.data("/agent-tasks", nodeId=999))["total"] == 0
    page = await api.data("/agent-tasks", nodeId=second, pageSize=2)
    assert ids(await api.data("/agent-tasks", nodeId=second, cursor=page["nextCursor"])) == [
        made[second, "apply_config"]
    ]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"status": "done"}, 2002),
        ({"status": ""}, 2002),
        ({"status": "FAILED"}, 2002),
        ({"type": "restart"}, 2002),
        ({"type": ""}, 2002),
        ({"nodeId": "x"}, 2002),
        ({"nodeId": ""}, 2002),
        ({"nodeId": 0}, 2003),
        ({"nodeId": -1}, 2003),
        ({"nodeId": 2**63}, 2003),
    ],
)
async def test_an_unknown_task_filter_is_no_empty_list(api, query, code):
    """400 with the filter's name."""
    answer = await api.get("/agent-tasks", **query)
    assert answer.brief == (400, code)
    assert answer.message.startswith(next(iter(query)))


async def test_a_list_leaves_out_large_payloads(api, house):
    """Above 16 KiB a list shows null; the task itself always has its own."""
    node = await house.node()
    small = '{"a":"' + "x" * ((16 << 10) - 8) + '"}'
    large = '{"a":"' + "x" * ((16 << 10) - 7) + '"}'
    for payload in (small, large):
        await house.task(node, payload=payload)
    listed = (await api.data("/agent-tasks"))["list"]
    assert [task["payload"] is None for task in listed] == [True, False]
    whole = await api.data(f"/agent-tasks/{listed[0]['id']}")
    assert len(whole["payload"]["a"]) == (16 << 10) - 7
