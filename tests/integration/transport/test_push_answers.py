"""Push: what is sent, and what each answer means."""

import json

import pytest
from msgspec import Raw

from edgeplane.transport.base import Busy, Outdated, Refused, Stale, Unanswered
from edgeplane.wire import EXECUTE_PATH
from kit.agents import http, refusal, reply


def chunked(*parts):
    """Make a chunked answer."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head + chunks + b"0\r\n\r\n"


async def test_what_is_sent_is_the_seeds_request(agent, ask):
    """Method, path, bearer and body are the seed's; the payload's bytes are untouched."""
    payload = b'{ "zeta": 1180591620717411303424,\n "alpha": [1.0] }'
    await ask(payload=Raw(payload), attempt=3, timeout_seconds=30, node_id=7, epoch=2)
    line, headers = agent.heads[0]
    assert line == f"POST {EXECUTE_PATH} HTTP/1.1"
    assert headers == {
        "Host": str(agent.address),
        "Content-Type": "application/json",
        "Content-Length": str(len(agent.bodies[0])),
        "Authorization": "Bearer an-agent-token-for-the-tests",
    }
    assert payload in agent.bodies[0]
    sent = json.loads(agent.bodies[0])
    assert sent.pop("payload")["zeta"] == 1180591620717411303424
    assert sent == {
        "requestId": "r-1",
        "type": "reload",
        "attempt": 3,
        "timeoutSeconds": 30,
        "nodeId": 7,
        "epoch": 2,
    }


async def test_proxy_variables_are_not_read(agent, ask, monkeypatch):
    """The task goes to the node's own address, whatever the environment says."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await ask()
    assert len(agent.bodies) == 1


@pytest.mark.parametrize("status", ["success", "failed"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda body: http(200, body),
        lambda body: http(200, body, "X-Other: \xff", "content-type: text/html"),
        chunked,
        lambda body: chunked(*(body[n : n + 1] for n in range(len(body)))),
        lambda body: b"HTTP/1.1 100 Continue\r\n\r\n" + http(200, body),
        lambda body: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + http(200, body),
        lambda body: b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + http(200, body),
    ],
    ids=["plain", "headers", "chunked", "chunk by chunk", "100", "103", "100 and 102"],
)
async def test_the_agents_own_status_is_the_result(ask, wrap, status):
    """However the bytes are framed, ``data.status`` is what comes back: never the HTTP code."""
    answer = await ask(wrap(reply(status=status, message="its words")))
    assert (answer.request_id, answer.status, answer.message) == ("r-1", status, "its words")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 2002, Refused),
        (401, 1001, Refused),
        (403, 1004, Refused),
        (404, 3001, Refused),
        (405, 2003, Refused),
        (409, 3002, Refused),
        (409, 3003, Stale),
        (413, 2003, Refused),
        (408, 2003, Busy),
        (429, 3004, Busy),
        (500, 5001, Busy),
        (502, 5003, Busy),
        (503, 5002, Busy),
        (599, 0, Busy),
    ],
)
async def test_each_refusal_is_of_its_kind(agent, ask, status, code, kind):
    """What can pass by itself is Busy, a newer owner Stale, the rest final; the words are kept."""
    with pytest.raises(kind) as caught:
        await ask(http(status, refusal(code)))
    assert type(caught.value) is kind
    assert str(caught.value) == f"agent returned status {status}: the agent's own words"
    await ask()
    assert len(agent.connections) == 1


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"begunGeneration": 7}, Outdated),
        ({"begunGeneration": 7, "more": 1}, Outdated),
        (None, Stale),
        ({}, Stale),
        ({"begunGeneration": "7"}, Stale),
        ([7], Stale),
    ],
    ids=str,
)
async def test_a_task_that_is_past_is_told_from_an_owner_that_is(ask, data, kind):
    """By the data of the error, not by its words; without it, it may be asked for again."""
    words = "generation: 5 is older than 7, which this agent has begun for node 1"
    with pytest.raises(kind) as caught:
        await ask(http(409, refusal(3003, words, data)))
    assert type(caught.value) is kind
    assert str(caught.value) == f"agent returned status 409: {words}"


@pytest.mark.parametrize(("status", "code"), [(409, 3002), (404, 3001), (503, 5001)])
async def test_the_mark_of_what_is_past_counts_with_its_code_only(ask, status, code):
    """Elsewhere it means nothing."""
    with pytest.raises((Refused, Busy)) as caught:
        await ask(http(status, refusal(code, data={"begunGeneration": 7})))
    assert type(caught.value) in {Refused, Busy}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Retry-After: 7", 7.0),
        ("retry-after: 0", 0.0),
        ("Retry-After: 999999999", 999999999.0),
        ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("Retry-After: -5", None),
        ("Retry-After: 1.5", None),
        ("Retry-After: \xb2", None),
        ("Retry-After: ", None),
        ("X-Other: 7", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_agent_says_when_to_come_back(ask, status, header, seconds):
    """Seconds are read; anything else is as if nothing was said."""
    with pytest.raises(Busy) as caught:
        await ask(http(status, refusal(3004), header))
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(agent, ask, status):
    """The token goes to no other place: a redirect is refused."""
    where = f"Location: http://{agent.address}/elsewhere"
    with pytest.raises(Refused, match=f"status {status}"):
        await ask(http(status, b"", where))
    assert len(agent.bodies) == 1


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (502, b"<html>Bad Gateway</html>", "<html>Bad Gateway</html>"),
        (400, b"\xff\xfe", "\ufffd\ufffd"),
        (404, b"", ""),
        (400, b'{"error":"other"}', '{"error":"other"}'),
        (204, b"", ""),
    ],
)
async def test_an_error_that_is_not_our_envelope_is_quoted(ask, status, body, words):
    """A proxy's page or nothing at all: its text is all there is."""
    kind = Busy if status >= 500 else Refused
    with pytest.raises(kind) as caught:
        await ask(http(status, body))
    assert str(caught.value) == f"agent returned status {status}: {words}"


async def test_an_error_page_is_quoted_with_a_bound(ask):
    """Of an endless page the beginning is kept."""
    with pytest.raises(Busy) as caught:
        await ask(http(500, b"x" * 100_000))
    assert 4096 <= len(str(caught.value)) < 5000


@pytest.mark.parametrize("code", [1, 2002, 5001, -1])
async def test_a_code_that_is_not_zero_is_no_success(ask, code):
    """HTTP 200 with an error inside is refused, in the agent's words."""
    with pytest.raises(Refused, match=f"error code {code}: its words"):
        await ask(http(200, refusal(code, "its words")))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"<html></html>",
        b"[]",
        b"null",
        b"\xff",
        b'{"code":0}',
        b'{"code":"0","message":"success","data":{}}',
        b'{"code":0,"message":"success"}',
        b'{"code":0,"message":"success","data":null}',
        b'{"code":0,"message":"success","data":{"requestId":"r-1","status":"success"}}',
        reply(status="done"),
        reply(status="SUCCESS"),
        reply(status=None),
        reply(request_id=None),
        reply(request_id="r-2"),
        reply(request_id="R-1"),
        reply(request_id=""),
        reply()[:-1],
        reply() + b"{}",
    ],
    ids=repr,
)
async def test_an_answer_not_understood_is_no_answer(ask, body):
    """HTTP 200 with no word of ours, another request's or a word unknown: ask again."""
    with pytest.raises(Unanswered):
        await ask(http(200, body))


@pytest.mark.parametrize(
    "answer",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=repr,
)
async def test_what_is_no_http_is_no_answer(agent, ask, answer):
    """Whatever listens there is no agent: unanswered at once, and the connection is ended."""
    with pytest.raises(Unanswered, match="not HTTP"):
        await ask(answer, seconds=30)
    await ask()
    assert len(agent.connections) == 2
