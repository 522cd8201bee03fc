"""Logging in, being known, being known no more."""

import asyncio
import base64
import json
import re
import time
from datetime import datetime

import jwt
import pytest
from sqlalchemy import delete

from edgeplane.auth import passwords
from edgeplane.auth.tokens import Tokens
from edgeplane.model.users import Role
from edgeplane.services import users as people
from edgeplane.services.users import STANDING_SECONDS
from edgeplane.store import users
from edgeplane.store.rows import users as user_rows
from kit.asgi import Caller
from kit.houses import CHEAP_HASH, PASSWORD, SECRET

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def a_login(username="operator", password=PASSWORD):
    """Make a login body."""
    return {"username": username, "password": password}


def forged(**claims):
    """Sign claims as the control plane would, some of them replaced; None leaves one out."""
    now = int(time.time())
    mark = Tokens(SECRET, issuer="edgeplane", minutes=60).mark(CHEAP_HASH)
    whole = {"uid": 1, "sub": "viewer", "iss": "edgeplane", "iat": now, "exp": now + 600}
    whole |= {"pwd": mark, **claims}
    return {name: value for name, value in whole.items() if value is not None}


@pytest.fixture
def clock(monkeypatch):
    """Give the standing of users a clock that is moved by hand."""
    moved = [0.0]
    real = time.monotonic
    monkeypatch.setattr("edgeplane.services.users.time.monotonic", lambda: real() + moved[0])
    return moved


async def test_ping_answers_anyone(anyone):
    """A sign of life needs no token, and is exactly this."""
    assert (await anyone.get("/ping")).raw == (
        b'{"code":0,"message":"success","data":{"pong":true}}'
    )


async def test_a_login_brings_a_token_its_end_and_who_it_is(anyone, house):
    """The shape is exactly the contract's, and the token works."""
    data = await anyone.data("/auth/login", a_login())
    assert list(data) == ["token", "expireAt", "user"]
    assert TIME.fullmatch(data["expireAt"])
    assert list(data["user"]) == ["id", "username", "role"]
    assert (data["user"]["username"], data["user"]["role"]) == ("operator", "operator")
    assert await Caller(house.app, data["token"]).data("/me") == data["user"]


async def test_the_token_ends_when_it_says(anyone):
    """``expireAt`` is the token's own ``exp``, an hour away as configured."""
    data = await anyone.data("/auth/login", a_login())
    claims = jwt.decode(data["token"], SECRET, algorithms=["HS256"], issuer="edgeplane")
    assert int(datetime.fromisoformat(data["expireAt"]).timestamp()) == claims["exp"]
    assert 3500 < claims["exp"] - time.time() <= 3600


@pytest.mark.parametrize(
    "body",
    [
        a_login("nobody"),
        a_login(password="wrong"),
        a_login("gone"),
        a_login("Operator"),
        a_login("operator "),
        a_login("operatör"),
        a_login("' OR '1'='1"),
        a_login("operator'--"),
        a_login("oper\x00ator"),
        a_login("a\nb"),
        a_login(password="\x00"),
        a_login(password="密码"),
    ],
    ids=repr,
)
async def test_whoever_may_not_get_in_hears_the_same_words(anyone, house, body):
    """Wrong name, wrong password and a disabled user differ in nothing: 401/1002."""
    await house.user("gone")
    await people.set_active(house.database, "gone", active=False)
    answer = await anyone.post("/auth/login", body)
    assert (answer.brief, answer.message) == ((401, 1002), "invalid credentials")


@pytest.mark.parametrize("username", ["operator", "nobody", "gone"])
async def test_every_refusal_costs_one_check_of_a_password(anyone, house, monkeypatch, username):
    """An unknown or disabled user is refused after the same work, so that time tells nothing."""
    await house.user("gone")
    await people.set_active(house.database, "gone", active=False)
    checked = []
    real = passwords._verify

    def counted(*args):
        checked.append(args)
        return real(*args)

    monkeypatch.setattr(passwords, "_verify", counted)
    await anyone.post("/auth/login", a_login(username, "wrong"))
    assert len(checked) == 1


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"username": "a"}, 2001, "password: is required"),
        ({"password": "a"}, 2001, "username: is required"),
        ({}, 2001, "username: is required"),
        (a_login(""), 2003, "username: "),
        (a_login("a" * 65), 2003, "username: "),
        (a_login(password=""), 2003, "password: "),
        (a_login(password="p" * 257), 2003, "password: "),
        (a_login(1), 2002, "username: "),
        (a_login(None), 2002, "username: "),
        (a_login(password=["a"]), 2002, "password: "),
        (a_login(password={"$ne": ""}), 2002, "password: "),
    ],
)
async def test_a_login_is_bounded_and_typed(anyone, body, code, message):
    """What is no name and password is 400, before any password is checked."""
    answer = await anyone.post("/auth/login", body)
    assert answer.brief == (400, code)
    assert answer.message.startswith(message)


async def test_guessing_is_braked(anyone, house):
    """After five failures even the right password waits (429/3004); others do not."""
    for _ in range(5):
        assert (await anyone.post("/auth/login", a_login(password="x"))).brief == (401, 1002)
    answer = await anyone.post("/auth/login", a_login())
    assert answer.brief == (429, 3004)
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert (await anyone.post("/auth/login", a_login("viewer"))).brief == (200, 0)
    elsewhere = Caller(house.app, address="192.0.2.8")
    assert (await elsewhere.post("/auth/login", a_login())).brief == (200, 0)


async def test_guesses_made_side_by_side_are_braked_too(anyone):
    """Twenty guesses at once learn no more than guesses one by one would."""
    guesses = [anyone.post("/auth/login", a_login(password=f"guess {n}")) for n in range(20)]
    answers = [answer.brief for answer in await asyncio.gather(*guesses)]
    assert answers.count((401, 1002)) == 5
    assert answers.count((429, 3004)) == 15


@pytest.mark.parametrize("path", ["/me", "/nodes", "/agent-tasks", "/agent-tasks/1"])
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Token abc", "bearerabc", "abc"]
)
async def test_without_a_bearer_token_nobody_is_logged_in(anyone, path, header):
    """No header, another scheme or no token in it: 401/1001."""
    headers = {} if header is None else {"authorization": header}
    assert (await anyone.call("GET", path, headers=headers)).brief == (401, 1001)


@pytest.mark.parametrize("header", [None, "Basic dXNlcjpwYXNz"])
async def test_the_hot_route_knows_nobody_either(anyone, header):
    """Creating a task without a bearer token is 401/1001 as well, whatever the body."""
    headers = {} if header is None else {"authorization": header}
    assert (await anyone.call("POST", "/agent-tasks/create", b"?", headers=headers)).brief == (
        401,
        1001,
    )


async def test_the_scheme_is_read_in_any_case(house, anyone):
    """``bearer`` is ``Bearer`` (RFC 9110)."""
    token = house.callers[Role.VIEWER].token
    answer = await anyone.call("GET", "/me", headers={"authorization": f"bearer {token}"})
    assert answer.brief == (200, 0)


def _unsigned():
    """Make a token of algorithm ``none``."""
    parts = ({"alg": "none", "typ": "JWT"}, forged())
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return f"{texts[0].rstrip('=')}.{texts[1].rstrip('=')}."


BAD_TOKENS = {
    "rubbish": lambda: "abc",
    "three parts of rubbish": lambda: "a.b.c",
    "another secret": lambda: jwt.encode(forged(), SECRET + "x", algorithm="HS256"),
    "no algorithm": _unsigned,
    "another algorithm": lambda: jwt.encode(forged(), SECRET * 2, algorithm="HS512"),
    "yet another algorithm": lambda: jwt.encode(forged(), SECRET * 2, "HS384"),
    "another issuer": lambda: jwt.encode(forged(iss="somebody"), SECRET),
    "no issuer": lambda: jwt.encode(forged(iss=None), SECRET),
    "no end": lambda: jwt.encode(forged(exp=None), SECRET),
    "no beginning": lambda: jwt.encode(forged(iat=None), SECRET),
    "no user": lambda: jwt.encode(forged(uid=None), SECRET),
    "no mark of a password": lambda: jwt.encode(forged(pwd=None), SECRET),
    "the mark of another password": lambda: jwt.encode(forged(pwd="0" * 16), SECRET),
    "a user that is no number": lambda: jwt.encode(forged(uid="1"), SECRET),
    "not yet valid": lambda: jwt.encode(forged(nbf=int(time.time()) + 600), SECRET),
    "nobody's": lambda: jwt.encode(forged(uid=999), SECRET),
    "endless": lambda: "a" * 5000,
    "not ASCII": lambda: "é.é.é",
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_a_token_that_is_not_ours_is_invalid(house, kind):
    """Whatever is wrong with it, 401/1002 in the same words, on both ways in."""
    caller = Caller(house.app, BAD_TOKENS[kind]())
    for answer in (await caller.get("/me"), await caller.post("/agent-tasks/create", {})):
        assert (answer.brief, answer.message) == ((401, 1002), "invalid token")


async def test_a_token_past_its_end_is_expired(house):
    """401/1003 tells a client to log in again."""
    token = jwt.encode(forged(exp=int(time.time()) - 1), SECRET, algorithm="HS256")
    assert (await Caller(house.app, token).get("/me")).brief == (401, 1003)


async def test_a_role_written_into_a_token_counts_for_nothing(house):
    """What a caller may do is what the table says now, not what the token said then."""
    user = await house.user("somebody", Role.OPERATOR)
    caller = Caller(house.app, house.token(user))
    await people.set_role(house.database, "somebody", Role.VIEWER)
    assert (await caller.get("/me")).data["role"] == "viewer"
    assert (await caller.post("/nodes/delete", {"ids": [1]})).brief == (403, 1004)


@pytest.mark.parametrize("how", ["disabled", "deleted", "made a viewer"])
async def test_who_is_out_is_out_within_the_standing(house, clock, how):
    """A user who is disabled, deleted or lowered loses it within STANDING_SECONDS."""
    user = await house.user("somebody", Role.OPERATOR)
    caller = Caller(house.app, house.token(user))
    assert (await caller.post("/nodes/delete", {"ids": [1]})).brief == (200, 0)
    if how == "disabled":
        await people.set_active(house.database, "somebody", active=False)
    elif how == "deleted":
        gone = delete(user_rows).where(user_rows.c.id == user.id)
        await house.database.write(lambda tx: tx.conn.execute(gone))
    else:
        await people.set_role(house.database, "somebody", Role.VIEWER)
    clock[0] = STANDING_SECONDS
    expected = (403, 1004) if how == "made a viewer" else (401, 1002)
    assert (await caller.post("/nodes/delete", {"ids": [1]})).brief == expected


async def test_a_new_password_ends_the_sessions_of_the_old_one(house, anyone, clock):
    """What was issued before is out within STANDING_SECONDS; a new login is in at once."""
    caller = house.callers[Role.OPERATOR]
    assert (await caller.get("/me")).brief == (200, 0)
    await people.set_password(house.database, "operator", "another-password")
    fresh = await anyone.data("/auth/login", a_login(password="another-password"))
    assert (await Caller(house.app, fresh["token"]).get("/me")).brief == (200, 0)
    clock[0] = STANDING_SECONDS
    assert (await caller.get("/me")).brief == (401, 1002)
    assert (await Caller(house.app, fresh["token"]).get("/me")).brief == (200, 0)


async def test_who_is_let_in_again_is_in(house, clock):
    """The same token works again once its user is active again."""
    user = await house.user("somebody")
    caller = Caller(house.app, house.token(user))
    await people.set_active(house.database, "somebody", active=False)
    assert (await caller.get("/me")).brief == (401, 1002)
    await people.set_active(house.database, "somebody", active=True)
    clock[0] = STANDING_SECONDS
    assert (await caller.get("/me")).brief == (200, 0)


async def test_the_standing_of_many_users_is_bounded(house, monkeypatch):
    """What is remembered of callers does not grow with their number."""
    monkeypatch.setattr(people, "_REMEMBERED", 4)
    for number in range(10):
        user = await house.user(f"user-{number}")
        assert (await Caller(house.app, house.token(user)).get("/me")).brief == (200, 0)
    assert len(house.parts.sessions._standing) <= 4


async def test_no_answer_and_no_log_line_shows_a_secret(house, anyone, caplog):
    """A password, a token and a hash are in no message, whatever goes wrong."""
    caplog.set_level(0)
    found = await house.database.read(lambda tx: users.by_name(tx, "operator"))
    token = house.callers[Role.OPERATOR].token
    answers = [
        await anyone.post("/auth/login", a_login(password="hunter22-hunter22")),
        await anyone.post("/auth/login", {"username": "operator", "pasword": "hunter22-hunter22"}),
        await anyone.post("/auth/login", a_login(password=["hunter22-hunter22"])),
        await Caller(house.app, token[:-2]).get("/me"),
        await Caller(house.app, token).data("/me"),
    ]
    shown = caplog.text + repr(answers) + repr(found)
    for secret in ("hunter22", token[:-2], SECRET, found.password_hash):
        assert secret not in shown


async def test_tokens_of_another_control_plane_are_refused(house):
    """The same secret under another issuer's name opens nothing."""
    other = Tokens(SECRET, issuer="another", minutes=60)
    user = await house.user("somebody")
    assert (await Caller(house.app, other.issue(user, CHEAP_HASH)[0]).get("/me")).brief == (
        401,
        1002,
    )
