"""Free ports, below the range the kernel hands out by itself.

The kernel's own choice (port 0) would not do: what is killed must come back on its port, and until
then any outgoing connection might be given it.
"""

import itertools
import os
import socket

_LOW, _HIGH = 20_000, 32_000
_claims: dict[int, int] = {}  #: ports given, each with the descriptor that claims it
_next = itertools.count(os.getpid() * 37 % (_HIGH - _LOW))


def free_port() -> int:
    """Return a port nobody listens on, and that no other run of tests is given or tries."""
    for step in _next:
        port = _LOW + step % (_HIGH - _LOW)
        if _claim(port) and _is_free(port):
            return port
    raise AssertionError


def give_back(port: int) -> None:
    """Let others have a port: nobody of this run will listen on it again."""
    os.close(_claims.pop(port))


def _claim(port: int) -> bool:
    """Take a port's name in the kernel's list of abstract sockets, until it is given back."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0edgeplane-tests-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims[port] = claim.detach()
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
