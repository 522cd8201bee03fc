"""Fixtures: a scripted control plane, and the command line run in this process."""

import socket
from dataclasses import dataclass

import pytest

from edgeplane.cli.root import run
from unit.cli.fake_api import FakeApi, serve


@pytest.fixture
def api():
    """Return a scripted control plane on loopback."""
    fake = FakeApi()
    server = serve(fake)
    yield fake
    fake.end_streams()
    server.shutdown()
    server.server_close()


@pytest.fixture
def nobody():
    """Return an address where nothing listens, and nothing can begin to while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """Run in an empty folder, with no settings and no session of whoever runs the tests."""
    for name in (
        *("EDGEPLANE_URL", "EDGEPLANE_TOKEN", "EDGEPLANE_USERNAME", "EDGEPLANE_PASSWORD"),
        *("EDGEPLANE_DEBUG", "XDG_CONFIG_HOME", "MYSQL_DSN", "REDIS_ADDR", "EDGEPLANE_CONFIG_DIR"),
        *("ADMIN_PASSWORD", "AGENT_TOKEN", "JWT_SECRET", "HTTP_ADDR", "AGENT_HTTP_ADDR"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEPLANE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def edgeplane(capsysbinary):
    """Return a function that runs a command in this process."""

    def command(*arguments):
        capsysbinary.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return Outcome(int(code), out.decode(), err.decode())

    return command


@pytest.fixture
def logged_in(api, monkeypatch):
    """Return the scripted control plane, with the command line logged in there."""
    monkeypatch.setenv("EDGEPLANE_URL", api.url)
    monkeypatch.setenv("EDGEPLANE_TOKEN", "a-token")
    return api
