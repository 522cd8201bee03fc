"""What an agent's answer means: a result, or which kind of failure it is."""

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from edgeplane.http1.outgoing import Answer
from edgeplane.model.errors import AlreadyExists, NotFound, WrongState
from edgeplane.model.tasks import MAX_ERROR_BYTES
from edgeplane.transport.base import (
    Busy,
    Ending,
    Outdated,
    Refused,
    Stale,
    TransportError,
    Unanswered,
)
from edgeplane.wire import (
    BatchRefusal,
    CancelReply,
    CancelState,
    Envelope,
    ExecuteReply,
    RefusalData,
)

_OK = 200
_PASSING = {408, 429}  #: the request came too slowly; there were too many
_SERVER_ERROR = 500
_NOT_AS_A_BATCH = {400, 413}
#: What an agent of ours answers only to a wrong token, path or method: it may be anything else.
_NOT_AN_AGENTS = {401, 403, 404, 405}
_UNAUTHORIZED = 401


class _Health(Struct):
    version: str  #: all else may change from release to release


class _Results(Struct):
    results: list[Raw]


_T = TypeVar("_T")
_envelope_decoder = msgspec.json.Decoder(Envelope)
_reply_decoder = msgspec.json.Decoder(ExecuteReply)
_results_decoder = msgspec.json.Decoder(_Results)
_refusal_decoder = msgspec.json.Decoder(BatchRefusal)
_cancel_decoder = msgspec.json.Decoder(CancelReply)
_health_decoder = msgspec.json.Decoder(_Health)
_data_decoder = msgspec.json.Decoder(RefusalData)


def read_reply(answer: Answer, request_id: str) -> ExecuteReply:
    """Return the result of a task; raise TransportError where there is none."""
    reply = _read(answer, _reply_decoder)
    _check_id(reply.request_id, request_id)
    return reply


def read_cancel(answer: Answer, request_id: str) -> CancelState:
    """Return how a cancelled request stands; raise TransportError where that is not told."""
    reply = _read(answer, _cancel_decoder)
    _check_id(reply.request_id, request_id)
    return reply.state


def read_health(answer: Answer) -> None:
    """Raise TransportError where an agent does not say that it is well."""
    _read(answer, _health_decoder)


def read_batch(answer: Answer, request_ids: Sequence[str]) -> list[Ending]:
    """Return what became of each task of a batch; raise TransportError where no word is of any.

    Results are told by their request id, not by their place. A task without a result that is
    understood is unanswered.
    """
    found: defaultdict[str, deque[Ending]] = defaultdict(deque)
    for raw in _read(answer, _results_decoder).results:
        item = read_result(raw)
        if item is not None:
            found[item[0]].append(item[1])
    return [
        found[request_id].popleft()
        if found[request_id]
        else Unanswered("sent in a batch, and its result is not in the agent's answer")
        for request_id in request_ids
    ]


def knows_no_batches(answer: Answer) -> bool:
    """Say whether an agent of before there were batches has answered one."""
    return answer.status == NotFound.status and _envelope(answer)[0] == NotFound.code


def may_be_one_tasks_fault(answer: Answer) -> bool:
    """Say whether a batch was refused as a whole where each task may be judged otherwise."""
    return answer.status in _NOT_AS_A_BATCH


def _read(answer: Answer, decoder: "msgspec.json.Decoder[_T]") -> _T:
    """Return the data of a success, or raise what kind of failure it is."""
    if answer.status != _OK:
        code, words, outdated = _envelope(answer)
        failure = _failure(
            answer.status, code, words, outdated=outdated, retry_after=_seconds(answer.retry_after)
        )
        failure.fault = _fault(answer.status, code)
        failure.answered = failure.fault is None
        raise failure
    try:
        outer = _envelope_decoder.decode(answer.body)
        if outer.code != 0:
            odd = Refused(f"agent returned error code {outer.code}: {outer.message}")
            odd.fault = f"what answers is no Edgeplane agent: status 200 with code {outer.code}"
            raise odd
        return decoder.decode(outer.data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        garbled = Unanswered(f"agent's answer is not understood: {error}")
        garbled.fault = "what answers is no Edgeplane agent: its answer is not understood"
        raise garbled from error


def _fault(status: int, code: int) -> str | None:
    """Say why what answered so is no healthy agent of ours; ``code`` 0: not in our envelope."""
    if status == _UNAUTHORIZED and code:
        return "agent answers 401: AGENT_TOKEN differs"
    if code == 0 or status in _NOT_AN_AGENTS:
        return f"what answers is no Edgeplane agent: status {status}"
    return None


def _check_id(told: str, asked: str) -> None:
    if told != asked:
        raise Unanswered(f"agent answered for another request: {told[:64]}")


def read_result(raw: Raw) -> tuple[str, Ending] | None:
    """Return one result of a batch and whose it is; None where it is not understood."""
    try:
        refusal = _refusal_decoder.decode(raw)
    except msgspec.ValidationError:
        pass  # then it should be a reply
    else:
        failure = _failure(
            refusal.http_status,
            refusal.code,
            refusal.error,
            outdated=refusal.data is not None,
            retry_after=refusal.retry_after,
        )
        failure.answered = True
        return refusal.request_id, failure
    try:
        reply = _reply_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return reply.request_id, reply


def _envelope(answer: Answer) -> tuple[int, str, bool]:
    """Return an error's code and words, and whether it bears the mark of an outdated task."""
    try:
        outer = _envelope_decoder.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # Not our envelope: its text is all there is.
        return 0, answer.body[:MAX_ERROR_BYTES].decode("utf-8", "replace"), False
    try:
        _data_decoder.decode(outer.data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return outer.code, outer.message, False
    return outer.code, outer.message, True


def _failure(
    status: int, code: int, text: str, *, outdated: bool, retry_after: float | None
) -> TransportError:
    words = f"agent returned status {status}: {text}"
    if status in _PASSING or status >= _SERVER_ERROR:
        return Busy(words, retry_after)
    if status == WrongState.status and code == WrongState.code != AlreadyExists.code:
        return Outdated(words) if outdated else Stale(words)
    return Refused(words)


def _seconds(written: str | None) -> float | None:
    return float(written) if written and written.isascii() and written.isdigit() else None
