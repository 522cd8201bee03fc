"""Tasks, nodes and tables to test with: what a test does not name has a sensible value."""

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from edgeplane.dsn import read_dsn
from edgeplane.model.nodes import NewNode, NodeStatus
from edgeplane.model.paging import MAX_PAGE_SIZE, PageRequest
from edgeplane.model.tasks import Attempt, NewTask, Task, TaskKind, TaskStatus
from edgeplane.services import tasks as rule
from edgeplane.store import attempts, mailboxes, migrate, node_health, nodes, tasks
from edgeplane.store.rows import metadata
from edgeplane.store.urls import URL, sqlite_url
from edgeplane.store.workers import Tx

NOW = datetime(2026, 1, 23, 10, tzinfo=UTC)
_numbers = count(1)


def after(seconds: float) -> datetime:
    """Return a time so long after ``NOW``."""
    return NOW + timedelta(seconds=seconds)


def a_task(**given: Any) -> Task:
    """Make a task that nobody has stored."""
    values: dict[str, Any] = {
        "id": 1,
        "node_id": 1,
        "kind": TaskKind.RELOAD,
        "priority": 5,
        "generation": None,
        "superseded_by": None,
        "cancel_requested": False,
        "payload": "{}",
        "payload_bytes": 2,
        "status": TaskStatus.PENDING,
        "attempts": 0,
        "counted_attempts": 0,
        "run": 1,
        "max_attempts": 5,
        "timeout_seconds": 30,
        "deadline_seconds": 86_400,
        "deadline_at": after(86_400),
        "request_id": "r-1",
        "outcome": None,
        "next_retry_at": None,
        "last_error": None,
        "result": None,
        "created_by": None,
        "created_at": NOW,
        "started_at": None,
        "finished_at": None,
        "updated_at": NOW,
    }
    return Task(**{**values, **given})


def new_task(node_id: int, **given: Any) -> NewTask:
    """Make a task to ask for."""
    payload = given.get("payload", "{}")
    values: dict[str, Any] = {
        "node_id": node_id,
        "kind": TaskKind.RELOAD,
        "priority": 5,
        "payload": payload,
        "payload_bytes": len(payload.encode()),
        "payload_digest": hashlib.sha256(payload.encode()).digest(),
        "request_id": f"r-{next(_numbers)}",
        "request_id_given": False,
        "timeout_seconds": 30,
        "max_attempts": 5,
        "deadline_seconds": 86_400,
        "created_by": "tester",
    }
    return NewTask(**{**values, **given})


def new_node(**given: Any) -> NewNode:
    """Make a node to register."""
    values: dict[str, Any] = {
        "name": f"node-{next(_numbers)}",
        "main_ip": "127.0.0.1",
        "agent_port": 9090,
        "enabled": True,
        "status": NodeStatus.ONLINE,
        "sub_ips": (),
    }
    return NewNode(**{**values, **given})


def add_nodes(tx: Tx, number: int, **given: Any) -> list[int]:
    """Store nodes with their mailboxes and health; return their ids."""
    ids = [nodes.add(tx, new_node(**given)) for _ in range(number)]
    for node_id in ids:
        mailboxes.add(tx, node_id)
        node_health.add(tx, node_id)
    return ids


def add_tasks(tx: Tx, asked: Iterable[NewTask]) -> list[Task]:
    """Store tasks by the rule; fail when one is refused."""
    found = []
    for answer in rule.create_many(tx, list(asked)):
        assert isinstance(answer, Task), answer
        found.append(answer)
    return found


def stored(tx: Tx, task_id: int) -> Task:
    """Return a task that must be there."""
    found = tasks.get(tx, task_id)
    assert found is not None
    return found


def ended_attempts(tx: Tx, task_id: int) -> list[Attempt]:
    """Return a task's attempts that ended, oldest first, as their list shows them."""
    page = attempts.list_page(tx, stored(tx, task_id), PageRequest(size=MAX_PAGE_SIZE))
    assert page.next_cursor is None  # they are all here
    return [each for each in reversed(page.items) if each.ended_at is not None]


def clear(tx: Tx) -> None:
    """Empty every table."""
    for table in reversed(metadata.sorted_tables):
        tx.conn.execute(table.delete())


@cache
def mysql_url(dsn: str) -> URL:
    """Return the URL of a MariaDB database whose tables are migrated (once)."""
    url = empty_mysql_url(dsn)
    migrate.upgrade(url)
    return url


def empty_mysql_url(dsn: str) -> URL:
    """Return the URL of a MariaDB database as it is."""
    parts = read_dsn(dsn)
    return URL.create(
        "mysql+pymysql",
        username=parts.user,
        password=parts.password,
        host=parts.host,
        port=parts.port,
        database=parts.database,
        query={"charset": "utf8mb4"},
    )


@dataclass(frozen=True, slots=True)
class SqliteTemplate:
    """A migrated SQLite file, to be copied for each test."""

    path: Path

    @classmethod
    def make(cls, folder: Path) -> "SqliteTemplate":
        """Migrate it."""
        path = folder / "template.db"
        migrate.upgrade(sqlite_url(path))
        return cls(path)

    def copy(self, folder: Path) -> URL:
        """Return the URL of a copy."""
        path = folder / "edgeplane.db"
        shutil.copy(self.path, path)
        return sqlite_url(path)
