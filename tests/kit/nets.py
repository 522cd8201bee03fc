"""Network namespaces: hosts of a run's own, each on a cable that can be pulled out.

All of them hang on one bridge of this machine, with addresses that nothing else here has. Making
them takes root; without it a run fails, and says so.
"""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress

_numbers = itertools.count()
_PREFIXES = 200  #: so many runs of tests may have a bridge at the same time


class NoNamespaces(Exception):
    """Network namespaces cannot be made here."""


class Net:
    """A bridge and the hosts on it; ``close`` leaves nothing."""

    def __init__(self) -> None:
        self._name = f"ep{os.getpid() % 10**6}x{next(_numbers)}"
        self._hosts: list[str] = []
        if os.geteuid() != 0:
            raise NoNamespaces("network namespaces take root: run these tests as root")
        self._prefix = self._make_bridge()
        self.address = f"{self._prefix}.1"  #: this machine's own, as the hosts see it

    def add_host(self, name: str) -> "Host":
        """Make a host, with its cable plugged in."""
        number = len(self._hosts)
        space, cable = f"{self._name}-{name}", f"{self._name}{number}"
        self._hosts.append(space)
        inside = f"c{os.getpid() % 10**6}x{number}"
        address = f"{self._prefix}.{10 + number}"
        for command in (
            f"netns add {space}",
            f"link add {cable} type veth peer name {inside} netns {space}",
            f"link set {cable} master {self._name} up",
            f"-n {space} link set lo up",
            f"-n {space} addr add {address}/24 dev {inside}",
            f"-n {space} link set {inside} up",
        ):
            _ip(command)
        return Host(name, space, cable, address)

    def close(self) -> None:
        """Remove hosts, cables and bridge; who still runs there has no network any more."""
        for space in self._hosts:
            with suppress(NoNamespaces):
                _ip(f"netns del {space}")
        with suppress(NoNamespaces):
            _ip(f"link del {self._name}")

    def _make_bridge(self) -> str:
        """Make the bridge, on a network nobody uses yet; return the network's first three bytes."""
        _ip(f"link add {self._name} type bridge")
        try:
            for prefix in _prefixes():
                if f" {prefix}." not in _ip("-o addr show"):
                    _ip(f"addr add {prefix}.1/24 dev {self._name}")
                    _ip(f"link set {self._name} up")
                    return prefix
        except NoNamespaces:
            _ip(f"link del {self._name}")
            raise
        raise NoNamespaces("no free network: some run has not cleaned up (ip link show)")


class Host:
    """A host on a cable."""

    def __init__(self, name: str, space: str, cable: str, address: str) -> None:
        self.name = name
        self.address = address
        self._cable = cable
        #: What a command begins with that is to run here. Its process stays the same one.
        self.inside = (
            *(_program(), "netns", "exec", space),
            *("unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$0" "$@"'),
        )

    def cut(self) -> None:
        """Pull the cable at the far end: what is sent is lost, and nobody is told."""
        _ip(f"link set {self._cable} down")

    def mend(self) -> None:
        """Plug it in again."""
        _ip(f"link set {self._cable} up")


def _prefixes() -> Iterator[str]:
    begin = os.getpid()
    for number in range(_PREFIXES):
        yield f"10.77.{(begin + number) % _PREFIXES}"


def _ip(command: str) -> str:
    done = subprocess.run(
        [_program(), *command.split()], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise NoNamespaces(f"ip {command}: {done.stderr.strip()}: namespaces cannot be made here")
    return done.stdout


def _program() -> str:
    found = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise NoNamespaces("ip is missing: run scripts/servers (or apt-get install iproute2)")
    return found
