"""Tasks: one piece of work for one node, and what can become of an attempt at it."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from edgeplane.model.clock import epoch_millis
from edgeplane.model.errors import Invalid, Missing, NotAllowed

MAX_PAYLOAD_BYTES = 1 << 20
MAX_ERROR_BYTES = 4096
MAX_OUTPUT_BYTES = 16 << 10
DEFAULT_TIMEOUT_SECONDS = 30
MAX_TIMEOUT_SECONDS = 3600
DEFAULT_MAX_ATTEMPTS = 5
MAX_MAX_ATTEMPTS = 100
DEFAULT_DEADLINE_SECONDS = 86_400
MAX_DEADLINE_SECONDS = 30 * 86_400
DEFAULT_PRIORITY = 5
MAX_PRIORITY = 9
#: One step of priority is worth so much waiting: what is asked for first at 9 and what was asked
#: for 90 s before it at 0 are equal, so that nothing waits for ever behind what is more urgent.
PRIORITY_STEP_SECONDS = 10

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class TaskKind(StrEnum):
    """What is to be done at the edge (column and JSON key: ``type``)."""

    APPLY_CONFIG = "apply_config"
    RELOAD = "reload"
    PURGE_CACHE = "purge_cache"


class Lane(StrEnum):
    """Where a task waits: one after the other (``config``) or side by side (``purge``)."""

    CONFIG = "config"
    PURGE = "purge"


class TaskStatus(StrEnum):
    """What the contract shows of a task; ``lifecycle`` has the moves between them."""

    PENDING = "pending"  #: stored, and due
    RUNNING = "running"  #: an attempt is out, under a live lease
    SUCCESS = "success"  #: the agent verified it; final
    FAILED = "failed"  #: final, unless ``next_retry_at`` is set: then it is due then
    SUPERSEDED = "superseded"  #: a newer config of its node took its place; final
    CANCELLED = "cancelled"  #: a person took it back; final


_ENDS = frozenset({TaskStatus.SUCCESS, TaskStatus.SUPERSEDED, TaskStatus.CANCELLED})


class Outcome(StrEnum):
    """How an attempt ended, as far as anyone knows."""

    SUCCEEDED = "succeeded"  #: the agent carried it out
    FAILED = "failed"  #: the agent carried it out and says it failed
    REFUSED = "refused"  #: the agent (or what answered in its place) will not take it
    BUSY = "busy"  #: 429 or 5xx: not now
    UNANSWERED = "unanswered"  #: sent, and no usable answer in time: ask again with the same id
    UNREACHABLE = "unreachable"  #: never arrived
    LOST = "lost"  #: whoever held the lease died; nobody here knows: ask again
    EXPIRED = "expired"  #: its deadline passed before it could be carried out


class Task(NamedTuple):
    """A row of ``agent_tasks``, and ``result`` from its last attempt.

    A tuple, not a frozen dataclass: a task has five forms on its way, and those take ten times as
    long to make.
    """

    id: int
    node_id: int
    kind: TaskKind
    priority: int  #: 0 to ``MAX_PRIORITY``, which is the most urgent
    generation: int | None  #: of a config: the number of what its node should be; the newest wins
    superseded_by: int | None  #: the id of the task that took its place
    cancel_requested: bool  #: a person took it back while an attempt was out
    payload: (
        str | None
    )  #: the JSON text as it was accepted; None where a list leaves out a large one
    payload_bytes: int  #: its length in UTF-8, whether it is here or not
    status: TaskStatus
    attempts: int  #: deliveries begun; also the fence: only the last one may settle
    counted_attempts: int  #: those that use up ``max_attempts``
    run: int  #: number of the delivery that opened this run; the agent acts once per run
    max_attempts: int
    timeout_seconds: int
    deadline_seconds: int
    deadline_at: datetime
    request_id: str
    outcome: Outcome | None  #: of the last attempt that ended
    next_retry_at: datetime | None
    last_error: str | None
    result: str | None
    created_by: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    operation_id: int | None = None

    @property
    def final(self) -> bool:
        """Whether nothing but a person's retry will move it again."""
        return self.status in _ENDS or (
            self.status is TaskStatus.FAILED and self.next_retry_at is None
        )

    @property
    def rank(self) -> int:
        """Where it stands in its lane: the lowest goes first, and of equal ones the lowest id."""
        return rank_of(self.kind, self.priority, self.created_at)


class NewTask(NamedTuple):
    """A task as asked for, before it has an id."""

    node_id: int
    kind: TaskKind
    priority: int
    payload: str | None  #: None: that of its operation
    payload_bytes: int
    payload_digest: bytes
    request_id: str
    request_id_given: bool  #: by the client: then the same id may come again
    timeout_seconds: int
    max_attempts: int
    deadline_seconds: int
    created_by: str | None
    operation_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a delivery brought back: an outcome and the words that came with it."""

    outcome: Outcome
    message: str
    output: str | None = None  #: what the agent captured of what it ran
    address: str | None = None  #: where the task was sent last: ip:port
    retry_after: float | None = None  #: seconds the agent asked for (429)
    away_seconds: float = 0.0  #: how long its node had not been reached, where it was not
    stale: bool = False  #: the agent follows a newer owner of its node
    answered: bool = False  #: by a healthy agent of ours, whatever it said
    fault: str | None = None  #: why what answered is none


class Attempt(NamedTuple):
    """One delivery of a task, from its beginning to what became of it.

    One that is out has no end, outcome and message yet; ``replica`` is who sent it, where known.
    """

    task_id: int
    number: int
    begun_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None
    message: str | None
    output: str | None = None
    replica: str | None = None
    address: str | None = None


def lane_of(kind: TaskKind) -> Lane:
    """Return the lane a kind of task waits in."""
    return Lane.PURGE if kind is TaskKind.PURGE_CACHE else Lane.CONFIG


def rank_of(kind: TaskKind, priority: int, asked_at: datetime) -> int:
    """Return where a task stands in its lane.

    Config tasks go strictly in the order of their ids. Purges go by when they were asked for,
    which a priority puts forward by ``PRIORITY_STEP_SECONDS`` for each step.
    """
    if lane_of(kind) is Lane.CONFIG:
        return 0
    return epoch_millis(asked_at) - priority * PRIORITY_STEP_SECONDS * 1000


def check_request_id(value: str, field: str = "requestId") -> str:
    """Return a well-formed request id; raise Invalid otherwise."""
    if not _REQUEST_ID.fullmatch(value):
        raise Invalid(f"{field}: 1 to 64 characters of A-Z a-z 0-9 . _ - are allowed")
    return value


def check_kind(value: str, field: str = "type") -> TaskKind:
    """Return the kind a word names; raise Invalid for an unknown one."""
    try:
        return TaskKind(value)
    except ValueError:
        raise Invalid(f"{field}: must be one of {', '.join(TaskKind)}") from None


def check_payload(kind: TaskKind, payload: object) -> None:
    """Refuse a payload whose shape its kind cannot carry out.

    Raises:
        Invalid, Missing, NotAllowed: naming the field and what is wrong with it.

    """
    if not isinstance(payload, dict):
        raise Invalid("payload: must be an object")
    if kind is TaskKind.PURGE_CACHE:
        _check_urls(payload)


def _check_urls(payload: dict[str, Any]) -> None:
    if "urls" not in payload:
        raise Missing("payload.urls: at least one entry is required")
    urls = payload["urls"]
    if not isinstance(urls, list):
        raise Invalid("payload.urls: must be a list of strings")
    if not urls:
        raise NotAllowed("payload.urls: at least one entry is required")
    for index, url in enumerate(urls):
        if not isinstance(url, str):
            raise Invalid(f"payload.urls[{index}]: must be a string")
        if not url.strip():
            raise NotAllowed(f"payload.urls[{index}]: must not be empty")


def bounded_text(text: str, limit: int = MAX_ERROR_BYTES) -> str:
    """Cut a text to ``limit`` bytes of UTF-8, with a mark where it was cut; replace NULs."""
    clean = text.replace("\x00", "\ufffd").encode("utf-8", "replace")
    if len(clean) <= limit:
        return clean.decode("utf-8")
    mark = f"… [cut, {len(clean)} bytes in all]".encode()
    return clean[: limit - len(mark)].decode("utf-8", "ignore") + mark.decode()
