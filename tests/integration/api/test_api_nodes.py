"""Nodes over REST: shapes, rules, filters."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from edgeplane.model.users import Role
from edgeplane.store import node_health

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
KEYS = [
    "id",
    "name",
    "mainIP",
    "agentPort",
    "enabled",
    "status",
    "transport",
    "subIPs",
    "labels",
    "lastSeenAt",
    "lastHealthError",
    "createdAt",
    "updatedAt",
]


def a_node(name="edge-1", **given):
    """Make a body that registers a node."""
    return {"name": name, "mainIP": "192.0.2.1", **given}


async def test_a_node_is_answered_whole(api):
    """All keys are there, with the contract's defaults, and a look-up answers the same."""
    node = await api.data("/nodes/create", a_node())
    assert list(node) == KEYS
    assert TIME.fullmatch(node["createdAt"])
    assert node["updatedAt"] == node["createdAt"]
    assert {key: node[key] for key in KEYS[1:11]} == {
        "name": "edge-1",
        "mainIP": "192.0.2.1",
        "agentPort": 9090,
        "enabled": True,
        "status": "offline",
        "transport": "push",
        "subIPs": [],
        "labels": {},
        "lastSeenAt": None,
        "lastHealthError": None,
    }
    assert await api.data(f"/nodes/{node['id']}") == node
    assert (await api.data("/nodes"))["list"] == [node]


async def test_what_was_observed_is_shown_and_filtered_by(house, api):
    """In a node and in a list: when it was seen, what is wrong; and the status that follows."""
    seen = await api.data("/nodes/create", a_node("seen"))
    wrong = await api.data("/nodes/create", a_node("wrong", status="online"))

    def observe(tx):
        node_health.note_seen(tx, [seen["id"]])
        for seconds in (0, 10):
            later = replace(tx, now=tx.now + timedelta(seconds=seconds))
            node_health.note_failure(later, {wrong["id"]: "connection refused"})

    await house.database.write(observe)
    found = await api.data(f"/nodes/{seen['id']}")
    assert TIME.fullmatch(found["lastSeenAt"])
    assert (found["status"], found["lastHealthError"]) == ("online", None)
    (found,) = (await api.data("/nodes", status="offline"))["list"]
    assert found["id"] == wrong["id"]
    assert (found["lastSeenAt"], found["lastHealthError"]) == (None, "connection refused")


async def test_the_seeds_own_body_is_taken_as_it_is(api):
    """What the seed sends is stored as the seed shows it, the status included."""
    sent = {
        "name": "test-node-1",
        "mainIP": "127.0.0.1",
        "agentPort": 9090,
        "enabled": True,
        "status": "online",
    }
    node = await api.data("/nodes/create", sent)
    assert {key: node[key] for key in sent} == sent


@pytest.mark.parametrize("status", ["online", "offline", "maintenance"])
async def test_a_status_given_is_stored(api, status):
    """A person's word at creation and at update is kept."""
    node = await api.data("/nodes/create", a_node(status=status))
    assert node["status"] == status
    other = await api.data("/nodes/create", a_node("other"))
    assert (await api.data("/nodes/update", {"id": other["id"], "status": status}))[
        "status"
    ] == status


async def test_what_is_disabled_stays_disabled(api):
    """``enabled: false`` is stored as false, for a node and for a sub-IP."""
    subs = [{"ip": "192.0.2.2", "enabled": False}, {"ip": "192.0.2.3"}]
    node = await api.data("/nodes/create", a_node(enabled=False, subIPs=subs))
    assert node["enabled"] is False
    assert node["subIPs"] == [
        {"ip": "192.0.2.2", "enabled": False},
        {"ip": "192.0.2.3", "enabled": True},
    ]
    assert await api.data(f"/nodes/{node['id']}") == node
    assert (await api.data("/nodes"))["list"] == [node]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("fe80::1", "fe80::1"),
    ],
)
async def test_an_address_is_stored_in_its_usual_spelling(api, given, stored):
    """v4, v6 and a v4 written as v6 are IP literals."""
    node = await api.data("/nodes/create", a_node(mainIP=given, subIPs=[{"ip": given}]))
    assert (node["mainIP"], node["subIPs"][0]["ip"]) == (stored, stored)


NO_LITERALS = [
    "",
    " ",
    "localhost",
    "edge.example.com",
    "http://192.0.2.1",
    "192.0.2.1:9090",
    "192.0.2.1/24",
    "192.0.2.1/path?",
    "user@192.0.2.1",
    "192.0.2.1#",
    "[::1]",
    "::1]:80",
    "fe80::1%eth0",
    "fe80::1%25eth0",
    "192.0.2",
    "192.0.2.256",
    "192.0.2.01",
    "0x7f.1",
    "2130706433",
    " 192.0.2.1",
    "192.0.2.1\n",
    "192.0.2.1\r\nHost: x",
    "\uff11\uff19\uff12.0.2.1",
    "192.0.2.1\x00",
    "1" * 5000,
]


@pytest.mark.parametrize("ip", NO_LITERALS, ids=lambda ip: repr(ip[:24]))
async def test_only_ip_literals_are_addresses(api, ip):
    """Names, URLs, ports, prefixes, zones and the like are 400/2002, named by their field."""
    answer = await api.post("/nodes/create", a_node(mainIP=ip))
    assert answer.brief == (400, 2002)
    assert answer.message.startswith("mainIP: ")
    assert len(answer.message) < 300
    answer = await api.post("/nodes/create", a_node(subIPs=[{"ip": "192.0.2.2"}, {"ip": ip}]))
    assert answer.brief == (400, 2002)
    assert answer.message.startswith("subIPs[1].ip: ")
    node = await api.data("/nodes/create", a_node())
    for change in ({"mainIP": ip}, {"subIPs": [{"ip": ip}]}):
        assert (await api.post("/nodes/update", {"id": node["id"], **change})).brief == (400, 2002)
    assert await api.data(f"/nodes/{node['id']}") == node


@pytest.mark.parametrize(
    "ip",
    ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "239.1.1.1", "ff02::1", "255.255.255.255"],
)
async def test_what_is_no_machines_address_is_refused(api, ip):
    """Unspecified, multicast and broadcast addresses are well formed and not allowed: 400/2003."""
    for body in (a_node(mainIP=ip), a_node(subIPs=[{"ip": ip}])):
        assert (await api.post("/nodes/create", body)).brief == (400, 2003)


async def test_a_sub_ip_is_given_once(api):
    """The same sub-IP twice is refused, also in two spellings."""
    subs = [{"ip": "2001:db8::1"}, {"ip": "2001:DB8:0::1"}]
    answer = await api.post("/nodes/create", a_node(subIPs=subs))
    assert answer.brief == (400, 2002)
    assert answer.message == "subIPs[1].ip: duplicate sub IP: 2001:db8::1"


async def test_sub_ips_keep_their_order_and_have_a_bound(api):
    """Sixty-four are kept as given; one more is refused."""
    subs = [{"ip": f"192.0.2.{number}", "enabled": True} for number in range(64, 0, -1)]
    node = await api.data("/nodes/create", a_node(subIPs=subs))
    assert node["subIPs"] == subs
    more = [*subs, {"ip": "192.0.2.100"}]
    assert (await api.post("/nodes/create", a_node("more", subIPs=more))).brief == (400, 2003)


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"name": None}, 2002, "name"),
        ({"name": ""}, 2001, "name"),
        ({"name": "  "}, 2001, "name"),
        ({"name": "n" * 129}, 2003, "name"),
        ({"name": "a\nb"}, 2002, "name"),
        ({"name": "a\x00b"}, 2002, "name"),
        ({"name": 1}, 2002, "name"),
        ({"mainIP": None}, 2002, "mainIP"),
        ({"mainIP": 1}, 2002, "mainIP"),
        ({"agentPort": 0}, 2003, "agentPort"),
        ({"agentPort": -1}, 2003, "agentPort"),
        ({"agentPort": 65536}, 2003, "agentPort"),
        ({"agentPort": 2**70}, 2003, "agentPort"),
        ({"agentPort": "9090"}, 2002, "agentPort"),
        ({"agentPort": 1.5}, 2002, "agentPort"),
        ({"agentPort": True}, 2002, "agentPort"),
        ({"enabled": 1}, 2002, "enabled"),
        ({"enabled": "false"}, 2002, "enabled"),
        ({"status": "broken"}, 2002, "status"),
        ({"status": 1}, 2002, "status"),
        ({"subIPs": {}}, 2002, "subIPs"),
        ({"subIPs": ["192.0.2.2"]}, 2002, "subIPs"),
        ({"subIPs": [{}]}, 2001, "subIPs"),
        ({"subIPs": [{"ip": "192.0.2.2", "enabled": None}]}, 2002, "subIPs"),
    ],
)
async def test_each_field_is_typed_and_bounded(api, given, code, field):
    """What cannot be is 400 with the field's name, at creation and at update."""
    answer = await api.post("/nodes/create", a_node(**given))
    assert answer.brief == (400, code)
    assert answer.message.startswith(field)
    node = await api.data("/nodes/create", a_node("there"))
    if next(iter(given.values())) is not None:
        answer = await api.post("/nodes/update", {"id": node["id"], **given})
        assert answer.brief == (400, code)
        assert answer.message.startswith(field)
    assert await api.data(f"/nodes/{node['id']}") == node


@pytest.mark.parametrize("missing", ["name", "mainIP"])
async def test_name_and_address_are_required(api, missing):
    """A node without one of them is 400/2001."""
    body = a_node()
    del body[missing]
    answer = await api.post("/nodes/create", body)
    assert (answer.brief, answer.message) == ((400, 2001), f"{missing}: is required")


async def test_a_name_is_taken_once(api):
    """A second node of the name is 409/3002, at creation and at update; a case apart is another."""
    await api.data("/nodes/create", a_node("edge"))
    answer = await api.post("/nodes/create", a_node("edge"))
    assert answer.brief == (409, 3002)
    assert "edge" in answer.message
    assert (await api.post("/nodes/create", a_node(" edge "))).brief == (409, 3002)
    other = await api.data("/nodes/create", a_node("Edge"))
    assert (await api.post("/nodes/update", {"id": other["id"], "name": "edge"})).brief == (
        409,
        3002,
    )
    assert await api.data(f"/nodes/{other['id']}") == other
    assert (await api.post("/nodes/update", {"id": other["id"], "name": "Edge"})).brief == (200, 0)


async def test_an_update_changes_what_is_given(api, house):
    """What is absent or null stays; the engine is told, because the node may take tasks again."""
    subs = [{"ip": "192.0.2.2", "enabled": False}]
    node = await api.data("/nodes/create", a_node(agentPort=8080, status="online", subIPs=subs))
    house.told.clear()
    answer = await api.data("/nodes/update", {"id": node["id"], "enabled": False, "name": None})
    assert answer == {**node, "enabled": False, "updatedAt": answer["updatedAt"]}
    assert house.told == [{node["id"]}]
    changed = {"name": "new", "mainIP": "2001:db8::1", "agentPort": 1, "status": "maintenance"}
    answer = await api.data("/nodes/update", {"id": node["id"], **changed})
    assert {key: answer[key] for key in changed} == changed
    assert (answer["enabled"], answer["subIPs"]) == (False, subs)


@pytest.mark.parametrize("subs", [[], [{"ip": "192.0.2.7", "enabled": True}]])
async def test_sub_ips_given_replace_all(api, subs):
    """An update with ``subIPs`` leaves exactly those."""
    old = [{"ip": "192.0.2.2"}, {"ip": "192.0.2.3"}]
    node = await api.data("/nodes/create", a_node(subIPs=old))
    assert (await api.data("/nodes/update", {"id": node["id"], "subIPs": subs}))["subIPs"] == subs
    assert (await api.data(f"/nodes/{node['id']}"))["subIPs"] == subs


async def test_a_node_that_is_not_there_is_not_found(api):
    """Look-up and update are 404/3001."""
    assert (await api.get("/nodes/999")).brief == (404, 3001)
    assert (await api.post("/nodes/update", {"id": 999, "name": "x"})).brief == (404, 3001)


@pytest.mark.parametrize("noun", ["nodes", "agent-tasks"])
@pytest.mark.parametrize(
    "written",
    ["abc", "0", "-1", "1.0", "1e3", "+1", "0x1", "9" * 19, "9" * 400, "%31", "\u0661", "1 "],
)
async def test_what_is_no_id_is_malformed(api, noun, written):
    """An id is digits within 63 bits: 400/2002 otherwise."""
    assert (await api.get(f"/{noun}/{written}")).brief == (400, 2002)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, 2001),
        ({"ids": []}, 2003),
        ({"ids": list(range(1, 1002))}, 2003),
        ({"ids": [0]}, 2003),
        ({"ids": [-1]}, 2003),
        ({"ids": ["1"]}, 2002),
        ({"ids": 1}, 2002),
        ({"ids": None}, 2002),
        ({"ids": [2**63]}, 2003),
    ],
)
async def test_a_deletion_names_its_nodes(api, body, code):
    """One to a thousand ids, all of them numbers."""
    answer = await api.post("/nodes/delete", body)
    assert answer.brief == (400, code)
    assert answer.message.startswith("ids")


async def test_a_deletion_counts_what_was_there(api):
    """Unknown and repeated ids do not count; a thousand ids are fine."""
    first = await api.data("/nodes/create", a_node("a", subIPs=[{"ip": "192.0.2.2"}]))
    second = await api.data("/nodes/create", a_node("b"))
    ids = [first["id"], first["id"], second["id"], *range(100, 1097)]
    assert await api.data("/nodes/delete", {"ids": ids}) == {"deletedCount": 2}
    assert await api.data("/nodes/delete", {"ids": ids}) == {"deletedCount": 0}
    assert (await api.get(f"/nodes/{first['id']}")).brief == (404, 3001)
    assert (await api.data("/nodes"))["total"] == 0


@pytest.mark.parametrize("state", ["pending", "running", "failed, to be tried again"])
async def test_a_node_with_unfinished_tasks_is_not_deleted(api, house, state):
    """409/3003 for all of them, and none is deleted; once the task is final they go."""
    busy, free = await house.node(), await house.node()
    task = await house.task(busy)
    if state == "running":
        await house.move(task, status="running", attempts=1)
    elif state.startswith("failed"):
        await house.move(task, status="failed", next_retry_at=task.deadline_at)
    answer = await api.post("/nodes/delete", {"ids": [free, busy]})
    assert answer.brief == (409, 3003)
    assert str(busy) in answer.message
    assert (await api.data("/nodes"))["total"] == 2
    await house.fail(task, next_retry_at=None)
    assert await api.data("/nodes/delete", {"ids": [free, busy]}) == {"deletedCount": 2}


async def test_a_deleted_nodes_tasks_can_be_read_and_not_retried(api, house):
    """History stays; a retry says that the node is gone."""
    node = await house.node()
    task = await house.task(node)
    await house.fail(task)
    await api.data("/nodes/delete", {"ids": [node]})
    assert (await api.data(f"/agent-tasks/{task.id}"))["status"] == "failed"
    assert (await api.post("/agent-tasks/retry", {"id": task.id})).brief == (404, 3001)
    assert (await house.row(task.id)).last_error == "no"


async def _names(api, **query):
    return [node["name"] for node in (await api.data("/nodes", **query))["list"]]


async def test_nodes_are_filtered(house):
    """By part of the name or of any address, by status and by enabled; newest first."""
    api = house.callers[Role.ADMIN]
    await api.data("/nodes/create", a_node("paris-1", mainIP="192.0.2.10", status="online"))
    await api.data("/nodes/create", a_node("Paris-2", mainIP="2001:db8::a", enabled=False))
    subs = [{"ip": "198.51.100.7"}]
    await api.data("/nodes/create", a_node("rome", mainIP="192.0.2.11", subIPs=subs))
    assert await _names(api) == ["rome", "Paris-2", "paris-1"]
    assert await _names(api, name="PARIS") == ["Paris-2", "paris-1"]
    assert await _names(api, name="") == ["rome", "Paris-2", "paris-1"]
    assert await _names(api, ip="192.0.2.1") == ["rome", "paris-1"]
    assert await _names(api, ip="2001:DB8") == ["Paris-2"]
    assert await _names(api, ip="51.100") == ["rome"]
    assert await _names(api, status="online") == ["paris-1"]
    assert await _names(api, enabled="false") == ["Paris-2"]
    assert await _names(api, enabled="true", name="paris", status="online") == ["paris-1"]
    assert await _names(api, status="maintenance") == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"status": "broken"}, 2002),
        ({"status": ""}, 2002),
        ({"status": "ONLINE"}, 2002),
        ({"enabled": "maybe"}, 2002),
        ({"enabled": ""}, 2002),
        ({"name": "n" * 129}, 2003),
        ({"ip": "1" * 65}, 2003),
    ],
)
async def test_an_unknown_filter_value_is_no_empty_list(api, query, code):
    """400 with the filter's name."""
    answer = await api.get("/nodes", **query)
    assert answer.brief == (400, code)
    assert answer.message.startswith(next(iter(query)))


async def test_a_node_whose_agent_connects_out(api):
    """Its transport is set, shown, listed by and changed; another word is refused."""
    node = await api.data("/nodes/create", a_node(transport="sync"))
    assert node["transport"] == "sync"
    await api.data("/nodes/create", a_node("edge-2"))
    assert (await api.data("/nodes", transport="sync"))["list"] == [node]
    changed = await api.data("/nodes/update", {"id": node["id"], "transport": "push"})
    assert changed["transport"] == "push"
    assert (await api.data("/nodes", transport="sync"))["list"] == []
    refused = await api.post("/nodes/create", a_node("edge-3", transport="pigeon"))
    assert refused.code == 2002
