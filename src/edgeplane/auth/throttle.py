"""A brake on guessing passwords: so many failures a minute for a user from one address."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from edgeplane.model.errors import TooMany

WINDOW_SECONDS = 60.0
PER_USER_AND_ADDRESS = 5
PER_ADDRESS = 30
_REMEMBERED = 10_000


class LoginThrottle:
    """Counts failed logins, in memory, bounded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def check(self, username: str, address: str) -> None:
        """Raise TooMany, with the seconds to wait, where there were too many failures."""
        for key, most in (
            ((username, address), PER_USER_AND_ADDRESS),
            (("", address), PER_ADDRESS),
        ):
            recent = self._recent(key)
            if len(recent) >= most:
                wait = int(recent[-most] + WINDOW_SECONDS - self._clock()) + 1
                raise TooMany("too many failed logins: wait and try again", retry_after=wait)

    def failed(self, username: str, address: str) -> None:
        """Count a failure."""
        for key in ((username, address), ("", address)):
            recent = self._failures.setdefault(key, deque(maxlen=PER_ADDRESS))
            recent.append(self._clock())
            self._failures.move_to_end(key)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def succeeded(self, username: str, address: str) -> None:
        """Forget the user's failures from this address."""
        self._failures.pop((username, address), None)

    def _recent(self, key: tuple[str, str]) -> "deque[float]":
        recent = self._failures.get(key, deque())
        while recent and recent[0] <= self._clock() - WINDOW_SECONDS:
            recent.popleft()
        return recent
