"""Waiting for another process: until something holds, within a bound."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(holds: Callable[[], T], seconds: float = 15.0, what: str = "") -> T:
    """Return the first true result; fail when none came in time."""
    end = time.monotonic() + seconds
    pause = 0.005
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() >= end:
            raise AssertionError(f"not within {seconds} s: {what or holds}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
