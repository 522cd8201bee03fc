"""What the agent listens with: one clear line where it cannot, and no more than it may open."""

import errno
import resource
import socket

import pytest

from edgeplane import listening
from edgeplane.environ import ListenAddress, SettingError
from edgeplane.http1.bounds import Bounds
from edgeplane.listening import FILES_KEPT, bind, within_files


@pytest.fixture
def without_v6(monkeypatch):
    """Be a machine without IPv6."""
    bound = listening._bound

    def refusing(family, address):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return bound(family, address)

    monkeypatch.setattr(listening, "_bound", refusing)


@pytest.mark.usefixtures("without_v6")
def test_without_ipv6_every_interface_means_those_of_ipv4():
    """And a port that is taken is told in one line there too."""
    with bind("AGENT_HTTP_ADDR", ListenAddress("", 0)) as first:
        assert first.family == socket.AF_INET
        port = first.getsockname()[1]
        with pytest.raises(SettingError, match=f"^AGENT_HTTP_ADDR: .* :{port}: the port is taken"):
            bind("AGENT_HTTP_ADDR", ListenAddress("", port))


@pytest.mark.parametrize(
    ("limits", "asked", "connections"),
    [
        ((1024, 1 << 20), [(1 << 20, 1 << 20)], 1000),
        ((512, 512), [], 512 - FILES_KEPT),
        ((10, 10), [], 1),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), [], 1000),
    ],
)
def test_as_many_connections_are_taken_as_files_may_be_open(
    monkeypatch, limits, asked, connections
):
    """The limit is raised as far as it goes first."""
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, values: raised.append(values))
    assert within_files(Bounds(connections=1000)).connections == connections
    assert raised == asked


def test_a_limit_that_cannot_be_raised_counts_as_it_is(monkeypatch):
    """Where that is not permitted."""

    def refused(*_):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (500, 1000))
    monkeypatch.setattr(resource, "setrlimit", refused)
    assert within_files(Bounds(connections=1000)).connections == 500 - FILES_KEPT
