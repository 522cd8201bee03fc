"""Which core a process gets: the control plane one, everything it talks to the other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_ALL = sorted(os.sched_getaffinity(0))
PINNED = len(_ALL) > 1
CONTROL = {_ALL[0]}
OTHERS = {_ALL[1]} if PINNED else CONTROL


@contextmanager
def starting_on(cores: set[int]) -> Iterator[None]:
    """Let what is started meanwhile inherit these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
