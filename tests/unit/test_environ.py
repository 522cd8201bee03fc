"""Reading the environment and ``.env``: what is written there counts, or stops the start."""

import os
from pathlib import Path

import pytest

from edgeplane import environ as environment
from edgeplane.environ import Environ, SettingError, keep_secret, keep_token


@pytest.fixture
def dotenv(tmp_path, monkeypatch):
    """Return a function that loads a ``.env`` of this text, beside a bare real environment."""
    for name in ("HTTP_ADDR", "MIGRATE", "REDIS_PASS"):
        monkeypatch.delenv(name, raising=False)

    def load(text):
        (tmp_path / ".env").write_bytes(text if isinstance(text, bytes) else text.encode())
        return Environ.load(tmp_path)

    return load


def test_the_file_is_read_from_the_working_folder(tmp_path, monkeypatch):
    """No path is given anywhere: a ``.env`` beside whoever starts the daemon counts."""
    (tmp_path / ".env").write_text("HTTP_ADDR=:8181\n")
    monkeypatch.delenv("HTTP_ADDR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Environ.load().text("HTTP_ADDR") == ":8181"


def test_the_real_environment_wins(dotenv, monkeypatch):
    """An empty value there counts as unset: then the file's holds."""
    monkeypatch.setenv("HTTP_ADDR", ":1")
    monkeypatch.setenv("MIGRATE", "")
    found = dotenv('export HTTP_ADDR=":2"\nMIGRATE=1 # comment\n\n# more\n')
    assert (found.text("HTTP_ADDR"), found.text("MIGRATE")) == (":1", "1")


def test_nothing_in_it_is_expanded(dotenv):
    """A password with a dollar sign stays that password."""
    assert dotenv("REDIS_PASS=pa${HOME}s$HOME\n").text("REDIS_PASS") == "pa${HOME}s$HOME"


@pytest.mark.parametrize(
    ("text", "line"),
    [("MIGRATE 1\n", 1), ('A=1\nHTTP_ADDR=":8080\n', 2), ("A=1\n\nMIGRATE\n", 3)],
)
def test_a_malformed_line_is_named_and_not_passed_over(dotenv, text, line):
    """Otherwise a setting somebody wrote would have no effect, and nobody would know."""
    with pytest.raises(SettingError, match=rf"\.env, line {line}: must look like NAME=value"):
        dotenv(text)


def test_a_file_that_is_no_text_is_told(dotenv):
    """In one line."""
    with pytest.raises(SettingError, match=r"\.env: cannot be read: "):
        dotenv(b"A=\xff\xfe\n")


def test_a_home_that_nobody_knows_is_told():
    """``~name`` of no such user names the setting."""
    with pytest.raises(SettingError, match="^EDGEPLANE_STATE_DIR: must be an absolute path"):
        Environ({"EDGEPLANE_STATE_DIR": "~no-such-user/x"}).folder("EDGEPLANE_STATE_DIR", Path)


def test_a_default_that_cannot_be_is_asked_for_only_when_needed(tmp_path):
    """A service without a home starts, as long as its folder is set."""

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    environ = Environ({"EDGEPLANE_STATE_DIR": str(tmp_path)})
    assert environ.folder("EDGEPLANE_STATE_DIR", homeless) == tmp_path
    with pytest.raises(SettingError, match="^EDGEPLANE_STATE_DIR: must be an absolute path"):
        Environ({}).folder("EDGEPLANE_STATE_DIR", homeless)


@pytest.mark.parametrize(
    ("user", "home", "expected"),
    [(0, "/root", "/var/lib/edgeplane"), (1000, "/home/op", "/home/op/.local/state/edgeplane")],
)
def test_root_and_a_user_keep_their_state_where_it_belongs(monkeypatch, user, home, expected):
    """Below /var/lib, or in the home."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert environment.default_state_folder("edgeplane") == Path(expected)


@pytest.mark.parametrize(
    "token", ["with blank", "caf\u00e9-caf\u00e9-caf\u00e9", "a\r\nX-Evil: 1", "\u4e2d\u6587"]
)
def test_a_token_that_no_header_carries_stops_the_start(tmp_path, token):
    """Both ends would read it differently, or it would add a header."""
    with pytest.raises(SettingError, match="^AGENT_TOKEN: must be printable ASCII without blanks"):
        keep_token(Environ({"AGENT_TOKEN": token}), "AGENT_TOKEN", tmp_path)


def test_a_kept_secret_that_is_no_text_is_told(tmp_path):
    """With what to do."""
    (tmp_path / "jwt_secret").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(SettingError, match="^JWT_SECRET: .* remove it to have one made"):
        keep_secret(Environ({}), "JWT_SECRET", tmp_path)
