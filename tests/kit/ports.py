"""Free ports, below the range the kernel hands out by itself."""

import itertools
import os
import socket

_LOW, _HIGH = 20_000, 32_000
_next = itertools.count(os.getpid() * 37 % (_HIGH - _LOW))


def free_port() -> int:
    """Return a port nobody listens on just now."""
    for step in _next:
        port = _LOW + step % (_HIGH - _LOW)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise AssertionError
