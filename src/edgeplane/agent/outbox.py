"""What has ended and is to be told, until the control plane has acknowledged it.

In memory only: all of it is in the journal, and what is lost here is asked for again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Raw

from edgeplane.agent.results import Result
from edgeplane.wire import MAX_TOLD, CancelReply, SyncResult, Told

Run = tuple[str, int]  #: a request id and the attempt, as it was asked

MAX_KEPT: Final = 2_048  #: results and answers to cancels, each
_RESULTS_BYTES: Final = 1 << 20  #: in one exchange; the rest of its body is for what surrounds them
_AROUND: Final = 64  #: bytes of a result beside itself, at most

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Load:
    """What one exchange tells."""

    results: list[SyncResult]
    cancels: list[CancelReply]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A result; ``epoch`` is that of whoever asked for it."""

    epoch: int | None
    told: SyncResult

    @property
    def size(self) -> int:
        return len(memoryview(self.told.result)) + _AROUND


class Outbox:
    """Results and answers to cancels: untold, or told and not acknowledged.

    ``stir`` is called when there is something untold.
    """

    def __init__(self, stir: Callable[[], None]) -> None:
        self._stir = stir
        self._untold: dict[Run, _Kept] = {}
        self._told: dict[Run, _Kept] = {}
        self._cancels: dict[str, CancelReply] = {}
        self._cancels_told: set[str] = set()

    def __len__(self) -> int:
        """Return how many results there are."""
        return len(self._untold) + len(self._told)

    @property
    def untold(self) -> bool:
        """Whether there is something that no exchange has told."""
        return bool(self._untold) or len(self._cancels) > len(self._cancels_told)

    def put(self, run: Run, epoch: int | None, result: Result) -> None:
        """Keep how a run has ended; one that was kept before gives way."""
        self._told.pop(run, None)
        self._untold[run] = _Kept(epoch, SyncResult(run[1], Raw(_encoder.encode(result))))
        self._stir()

    def put_cancel(self, reply: CancelReply) -> None:
        """Keep the answer to a cancel; where there are too many, the oldest is left out."""
        self._forget_cancel(reply.request_id)
        self._cancels[reply.request_id] = reply
        while len(self._cancels) > MAX_KEPT:
            self._forget_cancel(next(iter(self._cancels)))
        self._stir()

    def tell_again(self, run: Run, epoch: int | None) -> bool:
        """Tell a result once more, if it is kept; say whether it is.

        One that another epoch asked for is forgotten: it may have been refused for its epoch.
        """
        kept = self._told.pop(run, None) or self._untold.pop(run, None)
        if kept is None or kept.epoch != epoch:
            return False
        self._untold[run] = kept
        self._stir()
        return True

    def load(self) -> Load:
        """Take what the next exchange tells: what is untold first, then what was told longest ago.

        All that was told and not acknowledged is told again as far as there is room.
        """
        chosen: list[SyncResult] = []
        room = _RESULTS_BYTES
        for run, kept in [*self._untold.items(), *self._told.items()]:
            room -= kept.size
            if (chosen and room < 0) or len(chosen) == MAX_TOLD:
                break
            chosen.append(kept.told)
            self._untold.pop(run, None)
            self._told.pop(run, None)
            self._told[run] = kept
        cancels = [*self._cancels.values()][:MAX_TOLD]
        self._cancels_told.update(reply.request_id for reply in cancels)
        return Load(chosen, cancels)

    def arrived(self, load: Load, acknowledged: Sequence[Told]) -> None:
        """Forget what a control plane need not be told any more, now that a reply is here.

        The answers to cancels are over with the exchange that told them.
        """
        for reply in load.cancels:
            if self._cancels.get(reply.request_id) is reply:
                self._forget_cancel(reply.request_id)
        for told in acknowledged:
            self._told.pop((told.request_id, told.attempt), None)
            self._untold.pop((told.request_id, told.attempt), None)

    def nothing_arrived(self) -> None:
        """Take what was told as untold: it may be lost, and the next to hear may know nothing."""
        self._untold = {**self._told, **self._untold}
        self._told = {}
        self._cancels_told.clear()

    def _forget_cancel(self, request_id: str) -> None:
        self._cancels.pop(request_id, None)
        self._cancels_told.discard(request_id)
