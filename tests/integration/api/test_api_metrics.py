"""``GET /metrics``: who may look, and what there is to see."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeplane.api.app import make_app
from edgeplane.model.clock import utc_now
from edgeplane.model.errors import DatabaseAway
from edgeplane.model.tasks import TaskKind
from edgeplane.model.users import Role
from edgeplane.services import monitoring
from edgeplane.store import node_health
from kit.asgi import Caller, call_raw

TOKEN = "a-token-for-the-metrics-of-the-tests"


async def look(app, address="127.0.0.1", method="GET", **headers):
    """Ask for the metrics; return the status and, if there are any, the samples."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    start, body = await call_raw(app, method, "/metrics", headers=given, address=address)
    if start["status"] != 200:
        return start["status"], {}
    assert dict(start["headers"])[b"content-type"].startswith(b"text/plain; version=0.0.4")
    return 200, {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


@pytest.fixture
def guarded(house):
    """The same control plane with a token for its metrics."""
    return make_app(replace(house.parts, metrics_token=TOKEN))


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """Ask the database at every look."""
    monkeypatch.setattr(monitoring, "CACHE_SECONDS", 0.0)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
async def test_without_a_token_this_machine_may_look(house, address):
    """In each way it can look to a socket for both versions of IP."""
    assert (await look(house.app, address))[0] == 200


@pytest.mark.parametrize("address", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "", "unix:"])
async def test_without_a_token_nobody_else_may(house, address):
    """Whoever is not known to be here is elsewhere."""
    assert (await look(house.app, address))[0] == 403


@pytest.mark.parametrize("header", ["forwarded", "via", "x_forwarded_for", "X_Real_IP"])
async def test_who_comes_through_a_proxy_is_not_this_machine(house, header):
    """Or a proxy on the same host would show them to the world."""
    assert (await look(house.app, **{header: "192.0.2.7"}))[0] == 403


async def test_with_a_token_it_alone_counts(guarded):
    """From anywhere with it; from nowhere without, this machine included."""
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert (await look(guarded, "192.0.2.7", **bearer))[0] == 200
    assert (await look(guarded, "192.0.2.7", x_forwarded_for="1.1.1.1", **bearer))[0] == 200
    for wrong in ({}, {"authorization": TOKEN}, {"authorization": f"Bearer {TOKEN}x"}):
        assert (await look(guarded, **wrong))[0] == 401


async def test_a_login_token_does_not_open_them(house, guarded):
    """And the refusals are the contract's envelope."""
    caller = next(iter(house.callers.values()))
    answer = await Caller(guarded, caller.token).call("GET", "/api/../metrics")
    assert answer.brief == (404, 3001)
    start, _ = await call_raw(
        guarded, "GET", "/metrics", headers={"authorization": f"Bearer {caller.token}"}
    )
    assert start["status"] == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
async def test_another_method_is_refused(house, method):
    """There is nothing to change."""
    assert (await look(house.app, method=method))[0] == 405


def test_the_token_is_in_no_repr(house):
    """Nor in what is logged of it."""
    assert TOKEN not in repr(replace(house.parts, metrics_token=TOKEN))


async def test_requests_and_logins_are_counted(house, anyone, api):
    """By classes of few words, whatever paths strangers make up."""
    await anyone.get("/ping")
    await anyone.get("/made-up/1")
    await anyone.get("/nodes/1")
    await api.post("/agent-tasks/create", {})
    await api.get("/agent-tasks/77")
    for _ in range(6):
        await anyone.post("/auth/login", {"username": "nobody", "password": "wrong-password"})
    _, seen = await look(house.app)
    requests = {key[1:]: n for key, n in seen.items() if key[0] == "edgeplane_http_requests_total"}
    assert requests == {
        ("200", "ping"): 1,
        ("404", "other"): 1,
        ("401", "nodes"): 1,
        ("400", "agent-tasks/create"): 1,
        ("404", "agent-tasks"): 1,
        ("401", "auth"): 5,
        ("429", "auth"): 1,
    }
    assert seen["edgeplane_http_request_seconds_count", "auth"] == 6
    assert seen["edgeplane_logins_failed_total", "credentials"] == 5
    assert seen["edgeplane_logins_failed_total", "throttled"] == 1


async def test_a_create_is_counted_with_its_commit(house, api):
    """One batch, one task."""
    node_id = await house.node()
    await api.data("/agent-tasks/create", {"nodeId": node_id, "type": "reload"})
    _, seen = await look(house.app)
    assert seen["edgeplane_create_batch_tasks_sum",] == 1
    assert seen["edgeplane_create_commit_seconds_count",] == 1
    assert seen["edgeplane_intake_waiting_tasks",] == 0


async def test_the_oldest_ages_come_from_the_database(either_house):
    """By lane, 0 where nothing waits."""
    house = either_house
    node_id = await house.node()
    _, before = await look(house.app)
    assert before["edgeplane_oldest_pending_age_seconds", "config"] == 0
    purge = await house.task(node_id, kind=TaskKind.PURGE_CACHE)
    await house.move(purge, updated_at=utc_now().replace(year=2025))
    running = await house.task(node_id)
    await house.move(running, status="running", started_at=utc_now().replace(year=2025))
    _, seen = await look(house.app)
    assert seen["edgeplane_oldest_pending_age_seconds", "purge"] > 86_400
    assert seen["edgeplane_oldest_pending_age_seconds", "config"] == 0
    assert seen["edgeplane_oldest_in_flight_age_seconds", "config"] > 86_400
    assert seen["edgeplane_oldest_in_flight_age_seconds", "purge"] == 0
    assert seen["edgeplane_oldest_due_mailbox_age_seconds",] >= 0


async def test_nodes_are_counted_by_status(either_house):
    """The disabled ones apart; and one that nobody has asked for long is told."""
    house = either_house
    node_id = await house.node()
    long = timedelta(hours=1)
    await house.database.write(
        lambda tx: node_health.ask_at_once(replace(tx, now=tx.now - long), node_id, anew=False)
    )
    await house.node(enabled=False)
    _, seen = await look(house.app)
    found = {key[1]: n for key, n in seen.items() if key[0] == "edgeplane_nodes"}
    assert found == {"online": 1, "offline": 0, "maintenance": 0, "disabled": 1}
    assert 3600 <= seen["edgeplane_oldest_due_probe_age_seconds",] < 3700


async def test_operations_under_way_are_counted_by_state(either_house):
    """From the database; those that have ended are history, and left out."""
    house = either_house
    await house.node()
    operator = house.callers[Role.OPERATOR]
    body = {"type": "reload", "target": {"all": True}}
    ids = [(await operator.data("/operations/create", body))["id"] for _ in range(4)]
    await operator.data("/operations/pause", {"id": ids[0]})
    await operator.data("/operations/cancel", {"id": ids[1]})
    _, seen = await look(house.app)
    found = {key[1]: n for key, n in seen.items() if key[0] == "edgeplane_operations"}
    assert found == {"running": 2, "paused": 1, "stopping": 0, "cancelling": 0}
    assert seen["edgeplane_operation_standstill_seconds",] == 0  # each has just been written


async def test_the_database_is_asked_once_in_a_while(house, monkeypatch):
    """However many look, and at once."""
    monkeypatch.setattr(monitoring, "CACHE_SECONDS", 3600.0)
    asked = []
    read = house.database.read

    def noted(work):
        asked.append(work)
        return read(work)

    monkeypatch.setattr(house.database, "read", noted)
    await asyncio.gather(*(look(house.app) for _ in range(10)))
    await look(house.app)
    assert len(asked) == 1


@pytest.mark.parametrize("away", ["refuses", "hangs"])
async def test_all_else_is_seen_while_the_database_is_away(house, monkeypatch, away):
    """The ages are absent then: 0 would say that nothing waits."""
    await look(house.app)

    async def read(_work):
        if away == "hangs":
            await asyncio.Event().wait()
        raise DatabaseAway("away")

    monkeypatch.setattr(house.database, "read", read)
    monkeypatch.setattr(monitoring, "PATIENCE_SECONDS", 0.01)
    status, seen = await look(house.app)
    assert status == 200
    assert ("edgeplane_oldest_pending_age_seconds", "config") not in seen
    assert seen["edgeplane_oldest_due_mailbox_age_seconds",] != 0
    assert seen["edgeplane_http_requests_total", "200", "metrics"] == 1
