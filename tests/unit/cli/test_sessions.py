"""Who the command line is, and where a token may go."""

import json
import stat
import sys
from io import StringIO
from pathlib import Path

import pytest

from edgeplane.cli import sessions
from edgeplane.cli.sessions import Session
from edgeplane.model.clock import utc_now
from unit.cli.fake_api import LOGIN, page


@pytest.fixture
def passed(monkeypatch):
    """Return a function that puts a line on standard input."""
    return lambda line: monkeypatch.setattr(sys, "stdin", StringIO(line))


@pytest.fixture
def listing(api):
    """Return a control plane that lists no nodes and lets anyone log in."""
    api.answer("GET", "/api/v1/nodes", page())
    api.answer("POST", "/api/v1/auth/login", LOGIN)
    return api


def _token(api):
    return api.requests[-1].headers.get("Authorization")


def _save(path, api, token="saved-token", **given):
    sessions.save(Path(path), Session(url=api.url, username="admin", token=token, **given))


def test_login_keeps_a_private_session(listing, edgeplane, passed):
    """The session is mode 0600 in a folder of mode 0700, and the next command uses it."""
    passed("the-password\n")
    outcome = edgeplane("login", "--url", listing.url, "--password-stdin")
    assert outcome.code == 0
    assert listing.requests[0].json == {"username": "admin", "password": "the-password"}
    path = sessions.config_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert edgeplane("node", "list").code == 0
    assert _token(listing) == "Bearer made-token"
    assert "made-token" not in outcome.out + outcome.err
    assert "the-password" not in outcome.out + outcome.err + path.read_text()


def test_login_can_answer_in_json(listing, edgeplane, passed):
    """With --json the user and the time are printed, the token is not."""
    passed("the-password\n")
    outcome = edgeplane("login", "--url", listing.url, "--password-stdin", "--json")
    assert json.loads(outcome.out)["user"] == LOGIN["user"]
    assert "made-token" not in outcome.out


def test_login_refused_keeps_nothing(api, edgeplane, passed):
    """A wrong password is exit code 3, and no session is written."""
    api.refuse("POST", "/api/v1/auth/login", 401, 1002, "invalid credentials")
    passed("wrong-word\n")
    outcome = edgeplane("login", "--url", api.url, "--password-stdin")
    assert outcome.code == 3
    assert "wrong-word" not in outcome.err
    assert not sessions.config_file().exists()


@pytest.mark.parametrize("options", [("--password-stdin",), ()])
def test_without_a_password_login_says_so(edgeplane, passed, options):
    """Neither a line nor a terminal: exit code 2."""
    passed("")
    assert edgeplane("login", *options).code == 2


def test_a_token_goes_only_where_it_was_issued(listing, api, edgeplane):
    """With another --url the saved token is not sent."""
    _save(sessions.config_file(), api)
    other = api.url.replace("127.0.0.1", "localhost")
    outcome = edgeplane("node", "list", "--url", other)
    assert outcome.code == 3
    assert [request.path for request in listing.requests] == ["/api/v1/ping"]
    assert _token(listing) is None


def test_the_environment_comes_first(listing, edgeplane, monkeypatch):
    """EDGEPLANE_TOKEN wins over user and password, those over the saved session."""
    _save(sessions.config_file(), listing)
    monkeypatch.setenv("EDGEPLANE_USERNAME", "ci")
    monkeypatch.setenv("EDGEPLANE_PASSWORD", "ci-password")
    assert edgeplane("node", "list").code == 0
    assert listing.requests[0].json == {"username": "ci", "password": "ci-password"}
    assert _token(listing) == "Bearer made-token"
    monkeypatch.setenv("EDGEPLANE_TOKEN", "given-token")
    assert edgeplane("node", "list").code == 0
    assert _token(listing) == "Bearer given-token"


def test_a_running_up_in_this_folder_comes_before_the_saved_session(listing, edgeplane):
    """In the folder where ``up`` runs, its session counts; EDGEPLANE_CONFIG_DIR overrules it."""
    _save(sessions.config_file(), listing)
    _save(".state/session.json", listing, token="local-token")
    assert edgeplane("node", "list").code == 0
    assert _token(listing) == "Bearer local-token"


def test_a_login_in_the_folder_of_a_running_up_counts(listing, edgeplane, passed):
    """What a person asked for last counts: a login after ``up`` was started, or the other way."""
    _save(".state/session.json", listing, token="local-token", since=utc_now())
    passed("the-password\n")
    assert edgeplane("login", "--url", listing.url, "--password-stdin").code == 0
    assert edgeplane("node", "list").code == 0
    assert _token(listing) == "Bearer made-token"
    _save(".state/session.json", listing, token="later-token", since=utc_now())
    assert edgeplane("node", "list").code == 0
    assert _token(listing) == "Bearer later-token"


def test_login_takes_the_user_from_the_environment(listing, edgeplane, monkeypatch):
    """EDGEPLANE_USERNAME and EDGEPLANE_PASSWORD count, the option first."""
    monkeypatch.setenv("EDGEPLANE_USERNAME", "ci")
    monkeypatch.setenv("EDGEPLANE_PASSWORD", "ci-password")
    assert edgeplane("login", "--url", listing.url).code == 0
    assert listing.requests[-1].json == {"username": "ci", "password": "ci-password"}
    assert edgeplane("login", "--url", listing.url, "--username", "ann").code == 0
    assert listing.requests[-1].json["username"] == "ann"


def test_what_was_refused_is_named(api, edgeplane, monkeypatch, passed):
    """A person learns which of the places a password or token comes from holds the wrong one."""
    for method, path in (("POST", "/api/v1/auth/login"), ("GET", "/api/v1/nodes")):
        api.refuse(method, path, 401, 1002, "invalid")
    monkeypatch.setenv("EDGEPLANE_URL", api.url)
    _save(sessions.config_file(), api)
    file = sessions.config_file()
    assert edgeplane("node", "list").err == (
        f"edgeplane: invalid (the session in {file}; log in anew with:"
        " edgeplane login --username NAME)\n"
    )
    passed("wrong-word\n")
    assert edgeplane("login", "--password-stdin").err == (
        "edgeplane: invalid (user admin, the password given)\n"
    )
    monkeypatch.setenv("EDGEPLANE_USERNAME", "ci")
    monkeypatch.setenv("EDGEPLANE_PASSWORD", "wrong-word")
    for command in (("login",), ("node", "list")):
        assert edgeplane(*command).err == "edgeplane: invalid (user ci, EDGEPLANE_PASSWORD)\n"
    monkeypatch.setenv("EDGEPLANE_TOKEN", "wrong-token")
    assert edgeplane("node", "list").err == "edgeplane: invalid (EDGEPLANE_TOKEN)\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [("EDGEPLANE_URL", "nowhere"), ("EDGEPLANE_TOKEN", "a token"), ("--url", "nowhere")],
)
def test_a_malformed_address_or_token_is_named(api, edgeplane, monkeypatch, name, value):
    """The line begins with what holds it."""
    monkeypatch.setenv("EDGEPLANE_URL", api.url)
    options = (name, value) if name.startswith("--") else ()
    if not options:
        monkeypatch.setenv(name, value)
    outcome = edgeplane("node", "list", *options)
    assert outcome.code == 2
    assert outcome.err.startswith(f"edgeplane: {name}: ")
    assert api.requests == []


def test_where_nothing_listens_that_is_said(edgeplane, monkeypatch, nobody):
    """Nobody is logged in and nobody is there: the second is what has to be mended first."""
    monkeypatch.setattr(sessions, "DEFAULT_URL", nobody)
    outcome = edgeplane("node", "list")
    assert outcome.code == 7
    assert outcome.err == (
        f"edgeplane: cannot reach {nobody}: connection refused; is edgeplane up running?\n"
    )


def test_a_chosen_config_folder_is_the_only_one(listing, edgeplane, monkeypatch, tmp_path):
    """EDGEPLANE_CONFIG_DIR says where the session lies, whatever the working folder holds."""
    _save(".state/session.json", listing, token="local-token")
    _save(tmp_path / "chosen" / "session.json", listing, token="chosen-token")
    monkeypatch.setenv("EDGEPLANE_CONFIG_DIR", str(tmp_path / "chosen"))
    assert edgeplane("node", "list").code == 0
    assert _token(listing) == "Bearer chosen-token"


def test_a_session_others_can_read_is_not_used(listing, edgeplane):
    """A session file that is not this user's alone is passed over, with a word about it."""
    _save(".state/session.json", listing)
    Path(".state/session.json").chmod(0o644)
    outcome = edgeplane("node", "list", "--url", listing.url)
    assert outcome.code == 3
    assert "mode 0600" in outcome.err


def test_a_damaged_session_says_what_to_do(edgeplane):
    """A session file that holds something else is one line."""
    path = sessions.config_file()
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    path.chmod(0o600)
    outcome = edgeplane("node", "list")
    assert outcome.code == 3
    assert "run edgeplane login" in outcome.err


def test_a_dotenv_of_the_folder_chooses_no_address(listing, edgeplane, nobody):
    """A .env in the working folder cannot direct credentials elsewhere."""
    _save(sessions.config_file(), listing)
    Path(".env").write_text(f"EDGEPLANE_URL={nobody}\n")
    assert edgeplane("node", "list").code == 0


def test_a_session_shows_no_token():
    """The repr of a session, which may meet a log, holds no token."""
    assert "t0ken" not in repr(Session(url="http://x", username="u", token="t0ken"))
