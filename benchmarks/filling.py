"""A long history of tasks, made by the database itself from the numbers 1 to N.

In turns of twice as many rows as there are nodes: one operation's task for every node, then as many
tasks of nodes at random. Nine in ten purge, one in a hundred reloads; 2.5 % failed, few were
cancelled, some configs were superseded, and the newest two thousand are open.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import make_url

from benchmarks.registering import register
from benchmarks.stores import Mariadb, Sqlite
from edgeplane.store import migrate

NODES = 10_000
OPEN = 2_000  #: of the newest tasks, pending and running in turns
#: For a history larger than the tests' servers have room for.
MARIADB_OPTIONS = (
    "--innodb-buffer-pool-size=1G",
    "--innodb-log-file-size=1G",
    "--innodb-sort-buffer-size=64M",
)

#: Made after the rows: a sort costs less than as many searches. (name, columns)
_INDEXES = {
    "ix_agent_tasks_type_status_id": "type, status, id",
    "ix_agent_tasks_node_id_type_status_id": "node_id, type, status, id",
    "ix_agent_tasks_node_id_lane_lane_rank_id": "node_id, lane, lane_rank, id",
    "ix_agent_tasks_operation_id_status_id": "operation_id, status, id",
}
#: ``n`` comes from {numbers}; ``{div}`` divides whole numbers; ``{at}`` is a time that grows.
_TASKS = """
INSERT INTO agent_tasks (id, node_id, operation_id, type, payload, payload_bytes, payload_digest,
  status, lane, lane_rank, priority, generation, cancel_requested, outcome, last_error, attempts,
  counted_attempts, run, max_attempts, timeout_seconds, deadline_seconds, deadline_at, request_id,
  created_by, created_at, started_at, finished_at, updated_at)
SELECT n, node, operation, kind,
  CASE WHEN operation IS NULL THEN '{{"urls":["https://www.example.com/images/1.jpg"]}}' END,
  49, {digest}, status,
  CASE WHEN status IN ('pending', 'running') THEN
    CASE kind WHEN 'purge_cache' THEN 'purge' ELSE 'config' END END,
  CASE kind WHEN 'purge_cache' THEN 1766000000000 + n ELSE 0 END, 5,
  CASE kind WHEN 'apply_config' THEN n END, 0,
  CASE status WHEN 'success' THEN 'succeeded' WHEN 'failed' THEN 'failed' END,
  CASE status WHEN 'failed' THEN 'nginx: configuration file test failed' END,
  1, 1, 1, 5, 30, 86400, {at}, {request_id}, 'admin', {at}, {at},
  CASE WHEN status NOT IN ('pending', 'running') THEN {at} END, {at}
FROM (
  SELECT n, block, operation, kind,
    CASE WHEN operation IS NULL THEN 1 + b % {nodes} ELSE 1 + place END AS node,
    CASE WHEN n > {closed} THEN CASE n % 2 WHEN 0 THEN 'pending' ELSE 'running' END
      WHEN a % 1000 < 25 THEN 'failed'
      WHEN a % 1000 < 26 THEN 'cancelled'
      WHEN a % 1000 < 200 AND kind = 'apply_config' THEN 'superseded'
      ELSE 'success' END AS status
  FROM (
    SELECT n, block, place, a, b,
      CASE WHEN place < {nodes} THEN block + 1 END AS operation,
      CASE WHEN place < {nodes} THEN
          CASE block % 25 WHEN 7 THEN 'reload' WHEN 3 THEN 'apply_config' WHEN 14 THEN
          'apply_config' ELSE 'purge_cache' END
        WHEN b % 100 = 0 THEN 'reload' WHEN b % 100 < 10 THEN 'apply_config'
        ELSE 'purge_cache' END AS kind
    FROM (
      SELECT n, (n - 1) {div} (2 * {nodes}) AS block, (n - 1) % (2 * {nodes}) AS place,
        ((n * 2654435761) % 4294967296) {div} 1024 AS a,
        ((n * 1597334677) % 4294967296) {div} 64 AS b
      FROM {numbers}) AS numbered) AS placed) AS drawn
"""
_ATTEMPTS = """
INSERT INTO task_attempts (task_id, number, begun_at, ended_at, outcome, message, replica, address)
SELECT id, 1, started_at, finished_at, outcome, 'Cache purged', 'replica-1', '127.0.0.1:9090'
FROM agent_tasks WHERE outcome IS NOT NULL ORDER BY id
"""
_OPERATIONS = """
INSERT INTO operations (id, request_id, request_digest, type, payload, payload_bytes,
  payload_digest, target, priority, timeout_seconds, max_attempts, deadline_seconds, state, unsent,
  skipped, pending, running, waiting, unreachable, success, failed, superseded, cancelled, failures,
  epoch, work_seq, created_by, created_at, finished_at, updated_at)
SELECT n, {request_id}, {digest}, CASE n % 25 WHEN 8 THEN 'reload' WHEN 4 THEN 'apply_config'
  WHEN 15 THEN 'apply_config' ELSE 'purge_cache' END,
  '{{"urls":["https://www.example.com/images/1.jpg"]}}', 49, {digest}, '{{"all":true}}', 5, 30, 5,
  86400, 'done', 0, 0, 0, 0, 0, 0, {nodes}, 0, 0, 0, 0, 1, 1, 'admin', {at}, {at}, {at}
FROM {numbers}
"""


@dataclass(frozen=True)
class History:
    """What was filled in."""

    tasks: int
    nodes: int
    operations: int


class Filler(Protocol):
    """What a database is filled through."""

    def run(self, sql: str, count: int, **given: str) -> None:
        """Run a statement over the numbers 1 to ``count``."""
        ...

    def drop(self, indexes: Iterable[str]) -> None:
        """Drop indexes of the tasks."""
        ...

    def index(self, indexes: Mapping[str, str]) -> None:
        """Make indexes of the tasks, by name, on these columns."""
        ...

    def done(self) -> None:
        """Make it as durable as the control plane would have, and leave."""
        ...


class SqliteFiller:
    """Writes the file past any journal."""

    _STEP = 20_000  #: numbers that share a time

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -1048576"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._connection.execute("BEGIN")

    def run(self, sql: str, count: int, **given: str) -> None:
        """Take the numbers in steps."""
        for first in range(1, count + 1, self._STEP):
            last = min(first + self._STEP - 1, count)
            numbers = (
                f"(WITH RECURSIVE up(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM up"
                f" WHERE n < {last}) SELECT n FROM up)"
            )
            day, minute = divmod(first // self._STEP, 1440)
            at = f"'2026-01-{1 + day:02} {minute // 60:02}:{minute % 60:02}:00.000'"
            self._connection.execute(
                sql.format(
                    numbers=numbers,
                    at=at,
                    div="/",
                    digest="zeroblob(32)",
                    request_id="printf('0198c0de-0000-7000-8000-%012X', n)",
                    **given,
                )
            )

    def drop(self, indexes: Iterable[str]) -> None:
        """Drop indexes of the tasks."""
        for name in indexes:
            self._connection.execute(f"DROP INDEX {name}")

    def index(self, indexes: Mapping[str, str]) -> None:
        """Make them."""
        for name, columns in indexes.items():
            self._connection.execute(f"CREATE INDEX {name} ON agent_tasks ({columns})")

    def done(self) -> None:
        """Commit."""
        self._connection.execute("COMMIT")
        self._connection.execute("PRAGMA journal_mode = WAL").fetchall()
        self._connection.close()


class MariadbFiller:
    """Lets the server draw the rows, in turns: one long transaction would be dearer."""

    _STEP = 500_000

    def __init__(self, store: Mariadb) -> None:
        self._connection = store.connect()
        self._do("SET GLOBAL innodb_flush_log_at_trx_commit = 0")

    def run(self, sql: str, count: int, **given: str) -> None:
        """Take the numbers in steps."""
        for first in range(1, count + 1, self._STEP):
            last = min(first + self._STEP - 1, count)
            self._do(
                sql.format(
                    numbers=f"(SELECT seq AS n FROM seq_{first}_to_{last}) AS counted",
                    at="TIMESTAMPADD(MINUTE, n DIV 20000, '2026-01-01')",
                    div="DIV",
                    digest="REPEAT('\\0', 32)",
                    request_id="CONCAT('0198c0de-0000-7000-8000-', LPAD(HEX(n), 12, '0'))",
                    **given,
                )
            )

    def drop(self, indexes: Iterable[str]) -> None:
        """Drop indexes of the tasks."""
        self._do(f"ALTER TABLE agent_tasks {', '.join(f'DROP INDEX {name}' for name in indexes)}")

    def index(self, indexes: Mapping[str, str]) -> None:
        """Make all in one walk through the rows."""
        made = (f"ADD INDEX {name} ({columns})" for name, columns in indexes.items())
        self._do(f"ALTER TABLE agent_tasks {', '.join(made)}")

    def done(self) -> None:
        """Let commits be durable again."""
        self._do("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        self._connection.close()

    def _do(self, sql: str) -> None:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(sql)


def fill(store: Sqlite | Mariadb, rows: int, tell: Callable[[str], Any]) -> History:
    """Make so many tasks, and what belongs to them; ``tell`` is called before each part."""
    nodes = min(NODES, max(1, rows // 100))
    migrate.upgrade(make_url(store.control))
    tell(f"{nodes} nodes")
    register(store.control, nodes, 9090)
    filler: Filler = (
        SqliteFiller(make_url(store.control).database or "")
        if isinstance(store, Sqlite)
        else MariadbFiller(store)
    )
    operations = -(-rows // (2 * nodes))
    tell(f"{rows} tasks")
    filler.drop(_INDEXES)
    given = {"nodes": str(nodes), "closed": str(max(0, rows - OPEN))}
    filler.run(_OPERATIONS, operations, **given)
    filler.run(_TASKS, rows, **given)
    tell("indexes")
    filler.index(_INDEXES)
    tell("attempts")
    filler.run(_ATTEMPTS, 1)
    filler.done()
    return History(rows, nodes, operations)
