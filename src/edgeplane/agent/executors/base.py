"""The protocol of executors, and the permit that decides between an effect and a time limit."""

import threading
from dataclasses import dataclass
from typing import Literal, Protocol

from edgeplane.wire import ExecuteRequest


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an executor says of a request."""

    status: Literal["success", "failed"]
    message: str


class NotNow(Exception):
    """No effect was made, and none will be; asked for again, it may work."""


class Unclear(Exception):
    """The effect may be there or not; asked for again, ``recover`` is to say."""


class Permit:
    """The right to make one effect: taken by the executor, or revoked before, never both.

    An executor takes it when all that is left is the effect itself. Whoever gave up on the executor
    revokes it; then nothing appears afterwards.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = ""

    def take(self) -> bool:
        """Claim the right; False when it was revoked: leave no trace and return."""
        return self._claim("taken")

    def revoke(self) -> bool:
        """Withdraw the right; False when it was taken: the effect is under way, await it."""
        return self._claim("revoked")

    def _claim(self, state: str) -> bool:
        with self._lock:
            self._state = self._state or state
            return self._state == state


class Executor(Protocol):
    """Carries requests out. Its methods block, and are called from several threads at once."""

    @property
    def name(self) -> str:
        """What the setting calls it."""

    def execute(self, request: ExecuteRequest, permit: Permit) -> Outcome:
        """Make the effect, once ``permit`` is taken, and say what became of it.

        Raises:
            NotNow: something was short that may be there later.
            Unclear: it broke where the effect may be there.

        """

    def recover(self, request: ExecuteRequest) -> Outcome | None:
        """Return the outcome of an effect that an interrupted run completed; None if it did not.

        Also removes what the interrupted run left behind. Raises, whatever it likes, where it could
        not look: None is for what is known not to be there.
        """

    def close(self) -> None:
        """Give back what it holds."""
