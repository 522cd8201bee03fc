"""What an agent that connects out has to tell, until it is acknowledged."""

from collections.abc import Iterable
from itertools import islice
from typing import Final

import msgspec
from msgspec import Raw

from edgeplane.agent.refusals import refusal
from edgeplane.model.errors import DomainError
from edgeplane.swarm.tally import Tally
from edgeplane.wire import MAX_TOLD, CancelReply, ExecuteReply, SyncResult, Told

_encoder: Final = msgspec.json.Encoder()

_KEPT: Final = MAX_TOLD  #: results told and not acknowledged; older ones are told when asked again


class Telling:
    """Results and answers of one agent; all of it dies with it."""

    __slots__ = ("_answers", "_told", "_untold")

    def __init__(self) -> None:
        self._untold: dict[tuple[str, int], tuple[SyncResult, float]] = {}
        self._told: dict[tuple[str, int], SyncResult] = {}
        self._answers: list[CancelReply] = []

    @property
    def anything(self) -> bool:
        """Whether there is something that was never told."""
        return bool(self._untold or self._answers)

    def add(
        self, fence: tuple[str, int], reply: ExecuteReply | DomainError, arrived: float
    ) -> None:
        """Keep how a run ended; ``arrived`` is when it was asked for, by the loop's time."""
        self._told.pop(fence, None)
        told = refusal(fence[0], reply) if isinstance(reply, DomainError) else reply
        self._untold[fence] = SyncResult(fence[1], Raw(_encoder.encode(told))), arrived

    def answer(self, reply: CancelReply) -> None:
        """Keep how a cancelled request stands; it is told once."""
        if len(self._answers) < MAX_TOLD:
            self._answers.append(reply)

    def acknowledge(self, told: Iterable[Told]) -> None:
        """Forget what is not to be told again."""
        for one in told:
            self._told.pop((one.request_id, one.attempt), None)

    def take(self, now: float, tally: Tally) -> tuple[list[SyncResult], list[CancelReply]]:
        """Return what goes into one exchange: what is new, and what is not acknowledged."""
        new = list(islice(self._untold, MAX_TOLD))
        results = list(islice(self._told.values(), MAX_TOLD - len(new)))
        for fence in new:
            result, arrived = self._untold.pop(fence)
            results.append(result)
            self._told[fence] = result
            tally.answered(now - arrived)
        while len(self._told) > _KEPT:
            del self._told[next(iter(self._told))]
        answers, self._answers = self._answers, []
        return results, answers

    def clear(self) -> None:
        """Forget everything."""
        self._untold.clear()
        self._told.clear()
        self._answers.clear()
