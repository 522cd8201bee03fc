"""Login tokens: what is in them, and that remembering one does not outlive it."""

import time

import jwt
import pytest

from edgeplane.auth import tokens as module
from edgeplane.auth.tokens import MAX_TOKEN_LENGTH, Tokens
from edgeplane.model.errors import BadCredentials, TokenExpired
from edgeplane.model.users import Role, User
from kit.factories import NOW

SECRET = "a-jwt-secret-for-the-tests-only-0123456789"
HASH = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaA"
USER = User(id=7, username="ann", role=Role.OPERATOR, active=True, created_at=NOW)


@pytest.fixture
def tokens():
    """Make tokens of an hour."""
    return Tokens(SECRET, issuer="edgeplane", minutes=60)


@pytest.fixture
def clock(monkeypatch):
    """Move the time a remembered token is compared with."""
    moved = [0.0]
    real = time.time
    monkeypatch.setattr("edgeplane.auth.tokens.time.time", lambda: real() + moved[0])
    return moved


def test_a_token_says_who_and_until_when(tokens):
    """Its claims are the documented ones; what is read back is the user and the end."""
    token, expires = tokens.issue(USER, HASH)
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], issuer="edgeplane")
    assert claims == {
        "uid": 7,
        "sub": "ann",
        "role": "operator",
        "pwd": tokens.mark(HASH),
        "iss": "edgeplane",
        "iat": claims["iat"],
        "exp": int(expires.timestamp()),
    }
    assert claims["exp"] - claims["iat"] == 3600
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    read = tokens.read(token)
    assert (read.user_id, read.expires) == (7, expires.timestamp())


def test_a_mark_tells_passwords_apart_and_nothing_else(tokens):
    """Each hash has its own; it holds nothing of the hash, and another secret makes another."""
    mark = tokens.mark(HASH)
    assert mark == tokens.mark(HASH) != tokens.mark(HASH + "x")
    assert mark != Tokens("another secret", issuer="edgeplane", minutes=60).mark(HASH)
    assert len(mark) == 16


def test_a_token_that_does_not_say_its_password_is_invalid(tokens):
    """Whoever signs without the mark gets nowhere."""
    claims = {"uid": 7, "iss": "edgeplane", "iat": 1, "exp": 2**40}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    with pytest.raises(BadCredentials, match="^invalid token$"):
        tokens.read(token)


def test_a_remembered_token_ends_when_it_says(tokens, clock):
    """Verified once, then remembered: at its end it is expired all the same, and forgotten."""
    token, _ = tokens.issue(USER, HASH)
    tokens.read(token)
    clock[0] = 3590
    assert tokens.read(token).user_id == 7
    clock[0] = 3601
    for _ in range(2):
        with pytest.raises(TokenExpired):
            tokens.read(token)
    assert token not in tokens._known


def test_a_token_is_verified_once(tokens, monkeypatch):
    """The signature of a token that was read before is not checked again."""
    token, _ = tokens.issue(USER, HASH)
    tokens.read(token)

    def fail(*_args, **_given):
        raise AssertionError

    monkeypatch.setattr(jwt, "decode", fail)
    assert tokens.read(token).user_id == 7


def test_what_is_remembered_is_bounded(tokens, monkeypatch):
    """The oldest goes; rubbish is not remembered at all."""
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    made = []
    for number in range(5):
        user = User(id=number, username="x", role=Role.VIEWER, active=True, created_at=NOW)
        made.append(tokens.issue(user, HASH)[0])
        tokens.read(made[-1])
    assert list(tokens._known) == made[2:]
    for number in range(10):
        with pytest.raises(BadCredentials):
            tokens.read(f"rubbish-{number}")
    assert len(tokens._known) == 3


@pytest.mark.parametrize("change", [0, 10, -1])
def test_a_changed_letter_is_noticed(tokens, change):
    """Head, claims and signature: any change makes it invalid, also of a token known before."""
    token, _ = tokens.issue(USER, HASH)
    tokens.read(token)
    parts = token.split(".")
    for number, part in enumerate(parts):
        letter = "A" if part[change] != "A" else "Q"
        place = change % len(part)
        forged = [*parts]
        forged[number] = part[:place] + letter + part[place + 1 :]
        with pytest.raises(BadCredentials, match="^invalid token$"):
            tokens.read(".".join(forged))


@pytest.mark.parametrize("token", ["", ".", "..", "a.b", "a.b.c.d", "\u00e9", "\x00", "{}"])
def test_rubbish_is_invalid(tokens, token):
    """Whatever is no token is BadCredentials, not an error of ours."""
    with pytest.raises(BadCredentials):
        tokens.read(token)


def test_an_endless_token_is_not_looked_at(tokens, monkeypatch):
    """Above its bound a token costs nothing."""
    monkeypatch.setattr(jwt, "decode", None)
    with pytest.raises(BadCredentials):
        tokens.read("a" * (MAX_TOKEN_LENGTH + 1))


def test_an_unsigned_token_is_invalid(tokens):
    """Algorithm ``none`` opens nothing."""
    token = jwt.encode({"uid": 7, "iss": "edgeplane", "iat": 1, "exp": 2**40}, "", algorithm="none")
    with pytest.raises(BadCredentials):
        tokens.read(token)


@pytest.mark.parametrize("secret", ["x", "your-secret-key", "s" * 31, "s" * 32, "s" * 200])
def test_a_secret_of_any_length_signs_the_usual_way(secret):
    """A short one works without a word (start-up warns of it), and others can verify with it."""
    tokens = Tokens(secret, issuer="edgeplane", minutes=1)
    token, _ = tokens.issue(USER, HASH)
    assert tokens.read(token).user_id == 7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jwt.api_jws.warnings.warn", lambda *_args, **_given: None)
        claims = jwt.decode(token, secret, algorithms=["HS256"], issuer="edgeplane")
    assert claims["uid"] == 7


def test_different_short_secrets_do_not_fit():
    """Filling a short secret up makes no two of them alike."""
    token, _ = Tokens("short", issuer="e", minutes=1).issue(USER, HASH)
    with pytest.raises(BadCredentials):
        Tokens("shorter", issuer="e", minutes=1).read(token)
