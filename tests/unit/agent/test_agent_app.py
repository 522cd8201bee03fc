"""The HTTP door, spoken to in ASGI: what only shows without a socket."""

import asyncio
import json
from typing import Any, cast

import pytest

from edgeplane.agent import app as app_module
from edgeplane.agent.app import AgentApp
from edgeplane.agent.refusals import Outdated
from edgeplane.model.errors import DatabaseError, TooMany, WrongState
from edgeplane.wire import (
    BATCH_PATH,
    CANCEL_PATH,
    EXECUTE_PATH,
    HEALTH_PATH,
    MAX_BODY_BYTES,
    ExecuteReply,
    ExecuteRequest,
    HealthReply,
)

TOKEN = "a-token-of-some-length"
BODY = b'{"requestId":"r1","type":"reload"}'


PATHS = [
    (EXECUTE_PATH, "POST"),
    (BATCH_PATH, "POST"),
    (CANCEL_PATH, "POST"),
    (HEALTH_PATH, "GET"),
]


class Door:
    """An app whose executions do what the test says."""

    def __init__(self, **options):
        self.result: Any = ExecuteReply("r1", "success", "made")
        self.asked: list[ExecuteRequest] = []
        self.app = AgentApp(cast("Any", self), TOKEN, self.health, **options)

    async def execute(self, request):
        """Return or raise what was set."""
        self.asked.append(request)
        if callable(self.result):
            return await self.result()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def health(self):
        """Tell something."""
        return HealthReply("1", 0.5, 2, 3, "scripted", [])

    async def __call__(self, *messages, path=EXECUTE_PATH, method="POST", headers=None):
        """Return status, headers and body of the answer; None where there is none."""
        waiting = list(messages)
        sent = []

        async def receive():
            if waiting:
                return waiting.pop(0)
            return await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        if headers is None:
            headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
        scope = {"type": "http", "path": path, "method": method, "headers": headers}
        await self.app(scope, receive, send)
        if not sent:
            return None
        return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])


def _part(body=BODY, *, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_pieces_is_put_together():
    """However it is cut."""
    door = Door()
    parts = [_part(BODY[n : n + 5], more=True) for n in range(0, len(BODY), 5)]
    status, _, answer = await door(*parts, _part(b""))
    assert (status, answer["data"]["status"]) == (200, "success")


async def test_a_body_that_does_not_arrive_is_given_up():
    """The wait is bounded."""
    status, _, answer = await Door(body_seconds=0.01)(_part(BODY[:9], more=True))
    assert (status, answer["code"]) == (400, 2002)
    assert answer["message"] == "body: did not arrive within 0.01 s"


async def test_a_body_that_grows_too_large_is_refused_where_it_does():
    """No length was declared; nothing was executed."""
    door = Door()
    half = b"x" * (MAX_BODY_BYTES // 2 + 1)
    status, _, answer = await door(_part(half, more=True), _part(half, more=True))
    assert (status, answer["code"], door.asked) == (413, 2003, [])


async def test_nothing_is_read_of_a_body_declared_too_large():
    """The answer comes at once, though no byte of it does."""
    headers = [
        (b"authorization", f"Bearer {TOKEN}".encode()),
        (b"content-length", str(MAX_BODY_BYTES + 1).encode()),
    ]
    status, _, answer = await Door()(headers=headers)
    assert (status, answer["code"]) == (413, 2003)


@pytest.mark.parametrize(
    "shown",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        b"Basic " + TOKEN.encode(),
        TOKEN.encode(),
        b"Bearer " + TOKEN.encode()[:-1],
        b"Bearer " + TOKEN.encode() + b"x",
        b"Bearer \xff\xfe",
    ],
)
@pytest.mark.parametrize(("path", "method"), PATHS)
async def test_without_the_right_bearer_nothing_is_read(shown, path, method):
    """401, the same for every way of being wrong, before the body."""
    door = Door()
    headers = [] if shown is None else [(b"authorization", shown)]
    status, sent, answer = await door(path=path, method=method, headers=headers)
    assert (status, answer) == (401, {"code": 1001, "message": "unauthorized", "data": None})
    assert sent[b"www-authenticate"] == b"Bearer"
    assert door.asked == []


async def test_the_scheme_of_a_bearer_is_read_in_any_case():
    """As HTTP has it."""
    headers = [(b"authorization", b"bEARER " + TOKEN.encode())]
    assert (await Door()(_part(), headers=headers))[0] == 200


async def test_a_caller_that_goes_before_its_body_is_not_answered():
    """And nothing is executed."""
    door = Door()
    assert await door(_part(BODY[:5], more=True), {"type": "http.disconnect"}) is None
    assert door.asked == []


async def test_a_caller_that_goes_before_its_answer_takes_up_no_place(monkeypatch):
    """Another one finds room at once."""
    monkeypatch.setattr(app_module, "MAX_CONCURRENT", 1)
    door = Door()
    door.result = asyncio.Event().wait
    for _ in range(2):
        left = door(_part(), {"type": "http.disconnect"})
        assert await asyncio.wait_for(left, 10) is None
    door.result = ExecuteReply("r1", "success", "made")
    status, _, _ = await door(_part())
    assert (status, len(door.asked)) == (200, 3)


async def test_too_many_says_when_to_come_back():
    """The header repeats what the error knows."""
    door = Door()
    door.result = TooMany("full", retry_after=7)
    status, headers, answer = await door(_part())
    assert (status, answer["code"], headers[b"retry-after"]) == (429, 3004, b"7")


async def test_the_number_of_requests_under_way_is_bounded(monkeypatch):
    """One too many is refused; when one ends there is room again; health is always told."""
    monkeypatch.setattr(app_module, "MAX_CONCURRENT", 2)
    door = Door()
    gate = asyncio.Event()

    async def wait():
        await gate.wait()
        return ExecuteReply("r1", "success", "made")

    door.result = wait
    under_way = [asyncio.create_task(door(_part())) for _ in range(2)]
    await asyncio.sleep(0)
    status, headers, answer = await door(_part())
    assert (status, answer["code"], headers[b"retry-after"]) == (429, 3004, b"1")
    assert (await door(path=HEALTH_PATH, method="GET"))[0] == 200
    gate.set()
    assert [(await task)[0] for task in under_way] == [200, 200]
    assert (await door(_part()))[0] == 200


async def test_what_nobody_foresaw_is_a_500_that_says_nothing_and_can_be_found(caplog):
    """The request id in the answer is the one in the log."""
    door = Door()
    door.result = RuntimeError("internals")
    status, headers, answer = await door(_part())
    assert (status, answer["code"]) == (500, 5001)
    assert "internals" not in answer["message"]
    assert headers[b"x-request-id"].decode() in caplog.text


async def test_what_is_outdated_is_marked_beside_its_words():
    """A stale epoch has the same code, and no data."""
    door = Door()
    for error, data in (
        (Outdated(5, 7, 1), {"begunGeneration": 7}),
        (WrongState("stale epoch"), None),
    ):
        door.result = error
        status, _, answer = await door(_part())
        assert (status, answer["code"], answer["data"]) == (409, 3003, data)


async def test_a_journal_that_cannot_be_written_is_a_500():
    """So that the control plane asks again."""
    door = Door()
    door.result = DatabaseError("journal cannot be written")
    status, _, answer = await door(_part())
    assert (status, answer["code"], answer["message"]) == (500, 5002, "journal cannot be written")
