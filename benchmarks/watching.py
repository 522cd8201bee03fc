"""Waiting for agents that connect out, and what a control plane says of them."""

import time
from urllib.request import urlopen

from kit.processes import ControlPlane

_PATIENCE_SECONDS = 180.0
_LOOK_SECONDS = 0.1


def connected(control: ControlPlane) -> int:
    """Return how many agents are connected, by the control plane's metrics."""
    with urlopen(f"http://127.0.0.1:{control.port}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("edgeplane_agents_connected "):
                return int(float(line.split()[1]))
    raise RuntimeError("its metrics do not say how many agents are connected")


def offline(control: ControlPlane) -> int:
    """Return how many nodes are shown offline."""
    return int(control.data("GET", "/nodes?status=offline&pageSize=1")["total"])


def until_connected(control: ControlPlane, count: int) -> tuple[float, int]:
    """Wait until all agents are; return the seconds, and how many were shown offline at most."""
    begun, most = time.monotonic(), 0
    while connected(control) < count:
        most = max(most, offline(control))
        if time.monotonic() - begun > _PATIENCE_SECONDS:
            raise RuntimeError(f"{connected(control)} of {count} agents are connected")
        time.sleep(_LOOK_SECONDS)
    return time.monotonic() - begun, max(most, offline(control))
