"""What an agent makes of a control plane that does not answer as it should.

That is: when it comes again, and what it says of it in its log.
"""

import logging
import time
from collections import deque
from random import Random
from typing import Final

from edgeplane.agent.requests import Reply
from edgeplane.agent.uplink import NotReached, ReplyLost

FIRST_WINDOW: Final = 2.0  #: until a reply says in which time lost connections are made anew
LEAST_WINDOW: Final = 0.1
MOST_WINDOW: Final = 10.0  #: or as long as the window is: work waits for it
REFUSED_SECONDS: Final = (15.0, 30.0)  #: what a person has to mend is asked again so much later
MALFORMED_SECONDS: Final = 30.0
MOST_SECONDS: Final = 3_600.0  #: whatever a control plane says

_BAD_REQUEST = 400
_REQUEST_TIMEOUT = 408
_CONFLICT = 409
_TOO_MANY = 429
_SERVER_ERROR = 500


class Refused(Exception):
    """A control plane has answered an exchange with something else than a reply."""

    def __init__(self, status: int, words: str, retry_after: str | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.retry_after = _seconds(retry_after)


Trouble = NotReached | ReplyLost | Refused


class Comeback:
    """When to come again, spread at random: many agents lose their connections at once."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._window = FIRST_WINDOW
        self._failures = 0  #: one after another, without a reply between them

    def replied(self, reply: Reply) -> None:
        """Begin anew, with what a reply says."""
        self._window = within(reply.reconnect_seconds)
        self._failures = 0

    def seconds(self, trouble: Trouble) -> float:
        """Return how long to stay away after this."""
        if not isinstance(trouble, Refused) or passing(trouble.status):
            window = max(self._window, LEAST_WINDOW)
            if self._failures:  # doubled from a second at least: the window may be small
                doubled = max(window, 1.0) * 2.0 ** min(self._failures, 10)
                window = min(doubled, max(MOST_WINDOW, self._window))
            self._failures += 1
            return self._asked_for(trouble) or self._random.uniform(0, window)
        if trouble.status == _BAD_REQUEST:
            return MALFORMED_SECONDS
        # Who speaks for a node changes hands by itself, unlike a name or a token.
        asked_for = self._asked_for(trouble) if trouble.status == _CONFLICT else None
        return asked_for or self._random.uniform(*REFUSED_SECONDS)

    def _asked_for(self, trouble: Trouble) -> float | None:
        """Return what a refusal asks for, never less, and spread as a reconnect is."""
        least = trouble.retry_after if isinstance(trouble, Refused) else None
        if least is None:
            return None
        least = max(least, 1.0)
        return least + self._random.uniform(0, max(least / 2, self._window))


def passing(status: int) -> bool:
    """Say whether what was refused with this may be taken later, without anybody's doing."""
    return status in {_REQUEST_TIMEOUT, _TOO_MANY} or status >= _SERVER_ERROR


def within(seconds: float) -> float:
    """Return a time that a control plane says, kept within reason."""
    return min(max(seconds, 0.0), MOST_SECONDS)


def _seconds(written: str | None) -> float | None:
    plain = written and written.isascii() and written.isdigit()
    return within(float(written)) if written and plain else None


class News:
    """Log lines on the connection: the same one once a minute, and few of them in all."""

    SECONDS: Final = 60.0
    LINES: Final = 20  #: within that time

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[str, float] = {}
        self._times: deque[float] = deque(maxlen=self.LINES)
        self._left_out = 0

    def good(self, words: str) -> None:
        """Tell of a connection; what went wrong before it may be told anew."""
        self._said.clear()
        self._say(logging.INFO, words)

    def bad(self, url: object, trouble: Trouble) -> None:
        """Tell what went wrong, as loudly as somebody has to do something about it."""
        if not isinstance(trouble, Refused):
            verb = "cannot be reached" if isinstance(trouble, NotReached) else "lost"
            self._say(logging.WARNING, f"control plane {url} {verb}: {trouble}")
            return
        words = f"control plane {url} refuses this agent ({trouble.status}): {trouble}"
        by_itself = passing(trouble.status) or trouble.status == _CONFLICT
        self._say(logging.WARNING if by_itself else logging.ERROR, words)

    def _say(self, level: int, words: str) -> None:
        now = time.monotonic()
        if now - self._said.get(words, -self.SECONDS) < self.SECONDS:
            return
        if len(self._times) == self.LINES and now - self._times[0] < self.SECONDS:
            self._left_out += 1
            return
        if len(self._said) >= self.LINES:
            self._said.clear()
        self._said[words] = now
        self._times.append(now)
        if self._left_out:
            self._log.warning("%d lines on the connection were left out", self._left_out)
            self._left_out = 0
        self._log.log(level, "%s", words)
