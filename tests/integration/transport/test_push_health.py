"""Push: an agent is asked how it is, and what answers may be something else."""

import asyncio
import subprocess
from ssl import PROTOCOL_TLS_SERVER, SSLContext, create_default_context

import pytest

from edgeplane.transport.base import Address, Busy, Refused, Unanswered, Unreachable
from edgeplane.transport.push import PushTransport
from edgeplane.wire import HEALTH_PATH
from kit.agents import Hangup, Silence, http, refusal, request, well
from kit.ports import free_port

NO_AGENT = "what answers is no Edgeplane agent: "


@pytest.fixture
def health(agent, push):
    """Ask the scripted agent how it is; return what that raises, if anything."""

    async def ask(*steps, seconds=10.0):
        agent.script.extend(steps)
        try:
            await push.health(agent.address, seconds)
        except Exception as error:  # noqa: BLE001 (looked at by the test)
            return error
        return None

    return ask


async def test_what_is_sent_has_the_token_and_no_body(agent, health):
    """A GET of the agent's own path."""
    assert await health() is None
    line, headers = agent.heads[0]
    assert line == f"GET {HEALTH_PATH} HTTP/1.1"
    assert headers == {
        "Host": str(agent.address),
        "Authorization": "Bearer an-agent-token-for-the-tests",
    }


async def test_probes_and_deliveries_share_a_connection(agent, health, push):
    """It is kept alive between them; one the agent has closed is replaced."""
    assert await health() is None
    await push.deliver(agent.address, request(), 10.0)
    assert await health() is None
    assert push.connections_made == 1
    agent.hang_up()
    assert await health() is None
    assert push.connections_made == 2


@pytest.mark.parametrize("told", [{}, {"running": ["r-1"]}, {"aKeyOfLater": [1]}])
async def test_an_agent_of_any_release_is_well(health, told):
    """What it says beside its version may change."""
    assert await health(http(200, well(**told))) is None


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        (http(401, refusal(1001, "unauthorized")), "agent answers 401: AGENT_TOKEN differs"),
        (http(401, b"<html>log in</html>"), NO_AGENT + "status 401"),
        (http(404, refusal(3001, "path: nothing is here")), NO_AGENT + "status 404"),
        (http(404, b"404 page not found"), NO_AGENT + "status 404"),
        (http(405, refusal(2003, "method")), NO_AGENT + "status 405"),
        (http(302, b"", "Location: http://127.0.0.1:9/"), NO_AGENT + "status 302"),
        (http(503, b"upstream is away"), NO_AGENT + "status 503"),
        (http(200, b"<html>It works!</html>"), NO_AGENT + "its answer is not understood"),
        (http(200, b"\xff\xfe"), NO_AGENT + "its answer is not understood"),
        (http(200, b'{"code":0,"message":"ok","data":"pong"}'), NO_AGENT + "its answer is not"),
        (http(200, refusal(7, "no")), NO_AGENT + "status 200 with code 7"),
    ],
)
async def test_what_is_no_healthy_agent_says_so(health, step, fault):
    """A wrong token, another server, an answer that is not ours: never a good answer."""
    error = await health(step)
    assert isinstance(error, Refused | Unanswered | Busy)
    assert (error.fault or "").startswith(fault)
    assert not error.answered


@pytest.mark.parametrize(
    "step",
    [
        http(429, refusal(3004, "256 requests are under way"), "Retry-After: 1"),
        http(503, refusal(5002, "the journal cannot be read")),
        http(500, refusal(5001, "internal error")),
        http(409, refusal(3003, "stale epoch")),
    ],
)
async def test_a_refusal_in_the_envelope_comes_from_an_agent(health, step):
    """It knows the token, or it would not have come to that."""
    error = await health(step)
    assert (error.answered, error.fault) == (True, None)


@pytest.mark.parametrize("step", [Hangup(), Hangup(b"HTTP/1.1 200"), Hangup(reset=True)])
async def test_who_hangs_up_has_not_answered(health, step):
    """Reached, and nothing came: neither well nor known to be another."""
    error = await health(step, step)
    assert isinstance(error, Unanswered)
    assert (error.answered, error.fault) == (False, None)


async def test_who_says_nothing_is_given_up(health):
    """After the time there is."""
    error = await health(Silence(), seconds=0.05)
    assert isinstance(error, Unanswered)
    assert "within 0.05 s" in str(error)


async def test_where_nobody_listens_nobody_is_reached(push):
    """In the system's words."""
    with pytest.raises(Unreachable, match="connection refused") as raised:
        await push.health(Address("127.0.0.1", free_port()), 1.0)
    assert (raised.value.answered, raised.value.fault) == (False, None)


@pytest.fixture
def pair(tmp_path):
    """A key and a certificate that signs itself."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=agent", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


@pytest.mark.parametrize("trusted", [False, True])
async def test_a_certificate_nobody_trusts_is_told(pair, trusted):
    """In words about the certificate, not in a number's; one that is trusted is well."""
    key, certificate = pair
    serving = SSLContext(PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(200, well(), "Connection: close"))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=serving)
    address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    context = create_default_context(cafile=str(certificate) if trusted else None)
    push = PushTransport("a-token", tls=context)
    try:
        if trusted:
            await push.health(address, 5.0)
        else:
            with pytest.raises(Unreachable, match=r"certificate is not accepted: self.signed"):
                await push.health(address, 5.0)
    finally:
        await push.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("step", "answered", "fault"),
    [
        (http(401, refusal(1001, "unauthorized")), False, "agent answers 401"),
        (http(404, b"not found"), False, NO_AGENT),
        (http(400, refusal(2002, "type: unknown")), True, None),
        (http(409, refusal(3002, "another payload")), True, None),
    ],
)
async def test_a_refused_delivery_says_the_same_of_its_agent(ask, step, answered, fault):
    """Who knows the token is an agent, whatever it refuses."""
    with pytest.raises(Refused) as raised:
        await ask(step)
    assert raised.value.answered == answered
    assert (raised.value.fault or "").startswith(fault or "")
    assert (raised.value.fault is None) == (fault is None)
