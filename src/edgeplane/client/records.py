"""What the API takes and shows, typed; keys this does not know are passed over."""

from datetime import datetime
from typing import Generic, TypeVar

from msgspec import Raw, Struct, field

from edgeplane.model.nodes import DEFAULT_AGENT_PORT

T = TypeVar("T")


class User(Struct, rename="camel", frozen=True, kw_only=True):
    """Who is logged in."""

    id: int
    username: str
    role: str


class Login(Struct, rename="camel", frozen=True, kw_only=True):
    """A token and how long it is good."""

    token: str
    expire_at: datetime
    user: User

    def __repr__(self) -> str:
        """Say whose it is, never the token."""
        return f"Login(of {self.user.username} until {self.expire_at})"


class SubIP(Struct, frozen=True):
    """A further address of a node."""

    ip: str
    enabled: bool = True


class Node(Struct, rename="camel", frozen=True, kw_only=True):
    """A node as the API shows it."""

    id: int
    name: str
    main_ip: str = field(name="mainIP")
    agent_port: int
    enabled: bool
    status: str
    sub_ips: list[SubIP] = field(name="subIPs", default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    transport: str = "push"
    last_seen_at: datetime | None = None
    last_health_error: str | None = None
    created_at: datetime
    updated_at: datetime


class NewNode(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A node to create."""

    name: str
    main_ip: str = field(name="mainIP")
    agent_port: int = field(default=DEFAULT_AGENT_PORT)
    enabled: bool = True
    status: str | None = None
    sub_ips: list[SubIP] | None = field(name="subIPs", default=None)
    labels: dict[str, str] | None = None
    transport: str | None = None


class NodeChanges(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """What to change of a node; None leaves a value, a list or mapping replaces the whole one."""

    name: str | None = None
    main_ip: str | None = field(name="mainIP", default=None)
    agent_port: int | None = None
    enabled: bool | None = None
    status: str | None = None
    sub_ips: list[SubIP] | None = field(name="subIPs", default=None)
    labels: dict[str, str] | None = None
    transport: str | None = None


class NodeFilter(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Which nodes to list."""

    page: int | None = None
    page_size: int | None = None
    name: str | None = None
    ip: str | None = None
    status: str | None = None
    enabled: bool | None = None
    transport: str | None = None
    label: list[str] | None = None  #: ``key=value``; all must match


class Task(Struct, rename="camel", frozen=True, kw_only=True):
    """A task as the API shows it; ``payload`` is its JSON text, byte for byte."""

    id: int
    node_id: int
    type: str
    payload: Raw = Raw(b"null")
    status: str
    attempts: int
    max_attempts: int | None = None
    timeout_seconds: int | None = None
    deadline_at: datetime | None = None
    priority: int | None = None
    generation: int | None = None
    superseded_by: int | None = None
    cancel_requested: bool = False
    request_id: str
    next_retry_at: datetime | None = None
    last_error: str | None = None
    result: str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime | None = None
    operation_id: int | None = None

    @property
    def final(self) -> bool:
        """Whether nothing but a person's retry will move it again."""
        ends = ("success", "superseded", "cancelled")
        return self.status in ends or (self.status == "failed" and self.next_retry_at is None)


class NewTask(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A task to create; ``payload`` is the JSON text of an object."""

    node_id: int
    type: str
    payload: Raw = Raw(b"{}")
    request_id: str | None = None
    timeout_seconds: int | None = None
    max_attempts: int | None = None
    deadline_seconds: int | None = None
    priority: int | None = None


class TaskFilter(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Which tasks to list; ``cursor`` is the ``next_cursor`` of the page before."""

    page: int | None = None
    page_size: int | None = None
    cursor: str | None = None
    node_id: int | None = None
    type: str | None = None
    status: str | None = None


class PageWanted(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Which page of a list; ``cursor`` is the ``next_cursor`` of the page before."""

    page_size: int | None = None
    cursor: str | None = None


class Attempt(Struct, rename="camel", frozen=True, kw_only=True):
    """One delivery of a task; while it is out, how it ended is None."""

    number: int
    begun_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = None
    message: str | None = None
    output: str | None = None
    replica: str | None = None
    address: str | None = None


class Target(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Which nodes an operation is for: exactly one of these."""

    node_ids: list[int] | None = None
    labels: dict[str, str] | None = None
    all: bool | None = None


class NewOperation(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """An operation to create; limits are a number of nodes, or a part like ``"10%"``."""

    type: str
    target: Target
    payload: Raw = Raw(b"{}")
    request_id: str | None = None
    timeout_seconds: int | None = None
    max_attempts: int | None = None
    deadline_seconds: int | None = None
    priority: int | None = None
    max_concurrency: int | str | None = None
    max_failures: int | str | None = None


class Operation(Struct, rename="camel", frozen=True, kw_only=True):
    """An operation as the API shows it; ``counts`` says where its nodes stand."""

    id: int
    request_id: str
    type: str
    payload: Raw = Raw(b"null")
    target: Raw = Raw(b"null")
    state: str
    reason: str | None = None
    total: int
    counts: dict[str, int]
    failures: int = 0
    priority: int | None = None
    max_concurrency: int | str | None = None
    max_failures: int | str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def final(self) -> bool:
        """Whether nothing but a person will move it again."""
        return self.state in {"done", "stopped", "cancelled"}

    @property
    def left(self) -> int:
        """How many of its nodes have come to no end; once it is stopped they did not get it."""
        names = ("unsent", "pending", "running", "waiting", "unreachable")
        return sum(self.counts.get(name, 0) for name in names)

    @property
    def quiet(self) -> bool:
        """Whether it has ended, or is paused and no task of it is out at a node any more."""
        return self.final or (self.state == "paused" and not self.counts.get("running"))

    @property
    def succeeded(self) -> bool:
        """Whether it has ended, and nothing of it failed."""
        return self.state == "done" and not self.counts.get("failed")


class OperationFilter(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Which operations to list; ``cursor`` is the ``next_cursor`` of the page before."""

    page: int | None = None
    page_size: int | None = None
    cursor: str | None = None
    state: str | None = None


class Page(Struct, Generic[T], rename="camel", frozen=True, kw_only=True):
    """One page of a list, newest first."""

    list: list[T]
    total: int
    page: int
    page_size: int
    next_cursor: str | None = None


class Deleted(Struct, rename="camel", frozen=True):
    """What deleting answers."""

    deleted_count: int
