"""Text that means something elsewhere (to SQL, to LIKE, to a log) means only itself here."""

import logging

import pytest
from sqlalchemy import func, select, text

from edgeplane.model.errors import DatabaseError
from edgeplane.model.users import Role
from edgeplane.store.rows import agent_tasks, nodes, users
from kit.asgi import Caller

INJECTIONS = [
    "'; DROP TABLE agent_tasks; --",
    "' OR '1'='1",
    '" OR ""="',
    "\\' OR 1=1 -- ",
    "1; DELETE FROM nodes",
    "%s %(x)s {0} :name ?",
    "${jndi:ldap://127.0.0.1/a}",
    "\u00e9\u4e2d\U0001f642",
    "a%b_c\\d",
    "<script>alert(1)</script>",
    "{{7*7}}",
]


@pytest.fixture
def api(either_house):
    """Call as an operator, on either dialect."""
    return either_house.callers[Role.OPERATOR]


async def counts(house):
    """Return how many rows each table has."""

    def count(tx):
        tables = (users, nodes, agent_tasks)
        return [tx.conn.scalar(select(func.count()).select_from(table)) for table in tables]

    return await house.database.read(count)


async def test_text_is_stored_and_found_as_it_is(api, either_house):
    """A node's name and a task's payload hold any word, and a filter finds exactly it."""
    node_id = (await api.data("/nodes/create", {"name": "plain", "mainIP": "192.0.2.1"}))["id"]
    for word in INJECTIONS:
        body = {"name": word, "mainIP": "192.0.2.2"}
        assert (await api.data("/nodes/create", body))["name"] == word.strip()
        found = await api.data("/nodes", name=word.strip())
        assert [node["name"] for node in found["list"]] == [word.strip()]
        payload = {"text": word, word: "text"}
        asked = {"nodeId": node_id, "type": "apply_config", "payload": payload}
        task = await api.data("/agent-tasks/create", asked)
        assert (await api.data(f"/agent-tasks/{task['id']}"))["payload"] == payload
    assert await counts(either_house) == [3, 1 + len(INJECTIONS), len(INJECTIONS)]


async def test_text_in_the_wrong_place_is_refused(api, either_house):
    """Where an id, a word or an address belongs, any other text is 400 and touches nothing."""
    before = await counts(either_house)
    for word in INJECTIONS:
        for answer in (
            await api.post("/agent-tasks/create", {"nodeId": 1, "type": word}),
            await api.post(
                "/agent-tasks/create", {"nodeId": 1, "type": "reload", "requestId": word}
            ),
            await api.post("/nodes/create", {"name": "n", "mainIP": word}),
            await api.post("/nodes/create", {"name": "n", "mainIP": "::1", "status": word}),
            await api.post("/nodes/delete", {"ids": [word]}),
            await api.get("/agent-tasks", cursor=word),
            await api.get("/agent-tasks", status=word),
            await api.get("/agent-tasks", nodeId=word),
            await api.get("/nodes", status=word),
            await api.get("/nodes", enabled=word),
        ):
            assert answer.status == 400, answer
    assert await counts(either_house) == before


async def test_an_address_filter_is_only_text(api):
    """Any text is a part of an address that no node has: an empty list, and never an error."""
    await api.data("/nodes/create", {"name": "n", "mainIP": "192.0.2.1"})
    for word in INJECTIONS:
        assert (await api.data("/nodes", ip=word))["list"] == []


async def test_wildcards_are_letters(api):
    """``%`` and ``_`` in a filter stand for themselves, in names and addresses."""
    for name in ("100% sure", "a_b", "axb", "back\\slash"):
        await api.data("/nodes/create", {"name": name, "mainIP": "192.0.2.1"})

    async def names(**query):
        return [node["name"] for node in (await api.data("/nodes", **query))["list"]]

    assert await names(name="%") == ["100% sure"]
    assert await names(name="_") == ["a_b"]
    assert await names(name="a_b") == ["a_b"]
    assert await names(name="\\") == ["back\\slash"]
    assert await names(name="%_") == []
    assert await names(ip="%") == []
    assert await names(ip="_") == []
    assert await names(ip="192_0") == []


async def test_a_login_of_any_text_is_only_refused(either_house):
    """A user name of any text is a name nobody has: 401, never an error."""
    for number, word in enumerate([*INJECTIONS, "admin\x00", "a\nb", "\ufeffadmin", "ADMIN"]):
        caller = Caller(either_house.app, address=f"192.0.2.{number}")
        answer = await caller.post("/auth/login", {"username": word, "password": word})
        assert answer.brief == (401, 1002), (word, answer)


async def test_a_database_error_logs_no_values(either_house, caplog):
    """What a statement was given (a payload with keys, a password's hash) is in no log record."""
    secret = "hunter" * 2
    statement = text("SELECT id FROM nowhere WHERE secret = :secret")
    with pytest.raises(DatabaseError, match="database error"):
        await either_house.database.write(lambda tx: tx.conn.execute(statement, {"secret": secret}))
    assert "nowhere" in caplog.text
    assert secret not in caplog.text


async def test_nobody_forges_a_log_line(api, caplog):
    """A line break in any text of a client's is in no log record, nor raw in a message."""
    caplog.set_level(logging.DEBUG)
    evil = "x\r\n2026-01-01 ERROR forged"
    for answer in (
        await api.post("/auth/login", {"username": evil, "password": "x"}),
        await api.post("/nodes/create", {"name": evil, "mainIP": "::1"}),
        await api.post("/nodes/create", {"name": "n", "mainIP": evil}),
        await api.post("/agent-tasks/create", {"nodeId": 1, "type": evil}),
        await api.post("/agent-tasks/create", {"nodeId": 1, "type": "reload", evil: 1}),
        await api.get("/nodes", **{evil: "1"}),
        await api.get(f"/{evil}"),
    ):
        assert answer.status >= 400
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("edgeplane")]
    assert not any("forged" in message for message in ours)
