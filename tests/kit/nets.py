"""Network namespaces: hosts of a run's own, each on a cable that can be pulled out.

All of them hang on one bridge of this machine, with addresses that nothing else here has. Making
them takes root; without it a run fails, and says so. A host may stand behind a router instead,
with an address that only that one knows.
"""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress

_numbers = itertools.count()
PRIVATE = "192.168.77.2"  #: of a host behind a router; each router has such a network of its own
_GATEWAY = "192.168.77.1"  #: the router's side of it
_NAT = """
table ip nat {
  chain out { type nat hook postrouting priority 100; oifname != "lan" masquerade; }
  chain through {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lan" accept
  }
}"""
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

    def add_router(self, name: str) -> "Router":
        """Make a router on the bridge; it has two addresses there to choose from."""
        host = self.add_host(name)
        spare = f"{self._prefix}.{200 + len(self._hosts)}"
        return Router(host, spare)

    def add_private_host(self, name: str, router: "Router") -> "Host":
        """Make a host behind a router."""
        space = f"{self._name}-{name}"
        self._hosts.append(space)
        _ip(f"netns add {space}")
        router.take_in(space)
        return Host(name, space, "", PRIVATE)

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
        self.space = space
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


class Router:
    """A host that lets one other out behind its own address, and nobody in, as a NAT does."""

    def __init__(self, host: Host, spare: str) -> None:
        self.host = host
        self.address = host.address  #: the one that is shown to the bridge's side
        self._spare = spare
        self._out = _ip(f"-n {host.space} -o -4 addr show scope global").split()[1]

    def take_in(self, space: str) -> None:
        """Put a namespace behind it, and begin to masquerade."""
        mine = self.host.space
        for command in (
            f"-n {mine} link add lan type veth peer name up0 netns {space}",
            f"-n {mine} addr add {_GATEWAY}/24 dev lan",
            f"-n {mine} link set lan up",
            f"-n {space} link set lo up",
            f"-n {space} addr add {PRIVATE}/24 dev up0",
            f"-n {space} link set up0 up",
            f"-n {space} route add default via {_GATEWAY}",
        ):
            _ip(command)
        self._run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        self._run(_program("nft", "nftables"), _NAT)

    def redial(self) -> None:
        """Get another address, as after a night's line: all mappings are lost, nobody is told."""
        mine = self.host.space
        _ip(f"-n {mine} addr flush dev {self._out}")
        self.address, self._spare = self._spare, self.address
        _ip(f"-n {mine} addr add {self.address}/24 dev {self._out}")

    def _run(self, *command: str) -> None:
        inside = (_program(), "netns", "exec", self.host.space, *command)
        done = subprocess.run(inside, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            words = done.stderr.strip()
            raise NoNamespaces(f"{' '.join(command)}: {words}: no router can be made here")


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


def _program(name: str = "ip", package: str = "iproute2") -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        words = f"{name} is missing: run scripts/servers (or apt-get install {package})"
        raise NoNamespaces(words)
    return found
