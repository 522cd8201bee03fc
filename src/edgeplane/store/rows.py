"""The tables."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from edgeplane.store.types import Digest, Id, PayloadText, UtcDateTime, exact, name

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_INNODB: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mariadb_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
}

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("username", exact(64), nullable=False),
    Column("password_hash", exact(255), nullable=False),
    Column("role", exact(16), nullable=False),
    Column("active", Boolean(create_constraint=False), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("username"),
    sqlite_autoincrement=True,
    **_INNODB,
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("name", name(128), nullable=False),
    Column("main_ip", exact(45), nullable=False),
    Column("agent_port", Integer, nullable=False),
    Column("enabled", Boolean(create_constraint=False), nullable=False),
    Column("status", exact(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("transport", exact(8), nullable=False, server_default="push"),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
    **_INNODB,
)

node_sub_ips = Table(
    "node_sub_ips",
    metadata,
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),  # the order a person gave them in
    Column("ip", exact(45), nullable=False),
    Column("enabled", Boolean(create_constraint=False), nullable=False),
    PrimaryKeyConstraint("node_id", "position"),
    **_INNODB,
)

node_labels = Table(
    "node_labels",
    metadata,
    Column("node_id", Id, ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False),
    Column("name", exact(63), nullable=False),
    Column("value", exact(63), nullable=False),
    PrimaryKeyConstraint("node_id", "name"),
    Index(None, "name", "value", "node_id"),
    **_INNODB,
)

#: One row per node, made and deleted with it: who may act for the node, and when to look at it
#: next. ``next_at`` is due time, back-off and end of a lease at once; NULL: nothing to do.
node_mailboxes = Table(
    "node_mailboxes",
    metadata,
    Column("node_id", Id, primary_key=True, autoincrement=False),
    Column("next_at", UtcDateTime),
    Column("owner", exact(64)),
    Column("epoch", BigInteger, nullable=False),
    Column("work_seq", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),  # of the newest config asked for
    Column("unreachable_since", UtcDateTime),
    Column("via", exact(64)),  # the replica its agent is connected to: nobody else may claim it
    Index(None, "owner"),
    Index(None, "via"),
    **_INNODB,
)
#: Equal to the claim's ORDER BY, or SKIP LOCKED starves the second claimer.
DUE_INDEX = Index(None, node_mailboxes.c.next_at, node_mailboxes.c.node_id)

#: One row per control plane that runs, or did a moment ago.
replicas = Table(
    "replicas",
    metadata,
    Column("id", exact(64), primary_key=True),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    **_INNODB,
)

#: One row per node, made and deleted with it: what is observed of it, and when it is asked next.
node_health = Table(
    "node_health",
    metadata,
    Column("node_id", Id, primary_key=True, autoincrement=False),
    Column("check_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime),
    Column("failures", Integer, nullable=False),
    Column("failing_since", UtcDateTime),
    Column("last_error", Text),
    **_INNODB,
)
#: Equal to the ORDER BY of who asks next, as that of the mailboxes.
CHECK_INDEX = Index(None, node_health.c.check_at, node_health.c.node_id)

#: One row per request that fans out. Where its nodes stand is counted here, in the transaction that
#: moves a task. ``next_at``, ``owner``, ``epoch`` and ``work_seq`` are as those of a mailbox.
operations = Table(
    "operations",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("request_id", exact(64), nullable=False),
    Column("request_digest", Digest, nullable=False),  # of all that was asked for
    Column("type", exact(32), nullable=False),
    Column("payload", PayloadText, nullable=False),  # once, for all of its tasks
    Column("payload_bytes", Integer, nullable=False),
    Column("payload_digest", Digest, nullable=False),
    Column("target", PayloadText, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("timeout_seconds", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("deadline_seconds", Integer, nullable=False),
    Column("concurrency_limit", exact(16)),  # as it was written
    Column("failure_limit", exact(16)),
    Column("max_concurrency", Integer),
    Column("max_failures", Integer),
    Column("state", exact(16), nullable=False),
    Column("reason", Text),
    Column("unsent", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("pending", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("waiting", Integer, nullable=False),
    Column("unreachable", Integer, nullable=False),
    Column("success", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("superseded", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("waking", Id),
    Column("retrying", Id),
    Column("next_at", UtcDateTime),
    Column("owner", exact(64)),
    Column("epoch", BigInteger, nullable=False),
    Column("work_seq", BigInteger, nullable=False),
    Column("created_by", exact(64)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("request_id"),
    Index(None, "next_at", "id"),
    sqlite_autoincrement=True,
    **_INNODB,
)
#: Serves the lists of operations.
STATE_INDEX = Index(None, operations.c.state, operations.c.id)

#: The nodes an operation was aimed at, until their tasks are made.
operation_targets = Table(
    "operation_targets",
    metadata,
    Column("operation_id", Id, nullable=False),
    Column("node_id", Id, nullable=False),
    PrimaryKeyConstraint("operation_id", "node_id"),
    **_INNODB,
)

agent_tasks = Table(
    "agent_tasks",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("node_id", Id, nullable=False),
    Column("operation_id", Id),
    Column("type", exact(32), nullable=False),
    Column("payload", PayloadText),  # NULL: that of its operation
    Column("payload_bytes", Integer, nullable=False),
    Column("payload_digest", Digest, nullable=False),
    Column("status", exact(16), nullable=False),
    Column("lane", exact(16)),  # NULL once the task is final: it has left its lane
    Column("lane_rank", BigInteger, nullable=False),  # where it stands in its lane, before the id
    Column("priority", SmallInteger, nullable=False),
    Column("generation", BigInteger),
    Column("superseded_by", Id),
    Column("cancel_requested", Boolean(create_constraint=False), nullable=False),
    Column("outcome", exact(16)),
    Column("last_error", Text),
    Column("attempts", Integer, nullable=False),
    Column("counted_attempts", Integer, nullable=False),
    Column("run", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("timeout_seconds", Integer, nullable=False),
    Column("deadline_seconds", Integer, nullable=False),
    Column("deadline_at", UtcDateTime, nullable=False),
    Column("next_retry_at", UtcDateTime),
    Column("request_id", exact(64), nullable=False),
    Column("created_by", exact(64)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("request_id"),
    UniqueConstraint("operation_id", "node_id"),  # a fan-out may be gone over again
    sqlite_autoincrement=True,
    **_INNODB,
)

#: What is open at a node, in the order in which its lanes serve it.
LANE_INDEX = Index(
    None,
    agent_tasks.c.node_id,
    agent_tasks.c.lane,
    agent_tasks.c.lane_rank,
    agent_tasks.c.id,
)

# Three indexes serve every list: a column that is not asked for is walked value by value.
#: Serves lists of all nodes' tasks, the oldest ages, and the walk of what may be removed.
LIST_INDEX = Index(None, agent_tasks.c.type, agent_tasks.c.status, agent_tasks.c.id)
NODE_LIST_INDEX = Index(
    None, agent_tasks.c.node_id, agent_tasks.c.type, agent_tasks.c.status, agent_tasks.c.id
)
OPERATION_LIST_INDEX = Index(
    None, agent_tasks.c.operation_id, agent_tasks.c.status, agent_tasks.c.id
)

#: Append-only: every attempt that ended, and how.
task_attempts = Table(
    "task_attempts",
    metadata,
    Column("task_id", Id, nullable=False),
    Column("number", Integer, nullable=False),
    Column("begun_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=False),
    Column("outcome", exact(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("output", Text),
    Column("replica", exact(64)),
    Column("address", exact(64)),
    PrimaryKeyConstraint("task_id", "number"),
    **_INNODB,
)

#: Append-only, and pruned from its beginning: every move of a task, and of an operation (of no task
#: and no node: 0). Ids are never used again.
events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("type", exact(16), nullable=False),
    Column("task_id", Id, nullable=False),
    Column("node_id", Id, nullable=False),
    Column("status", exact(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("operation_id", Id),
    sqlite_autoincrement=True,
    **_INNODB,
)

#: What only one replica does at a time: who, under which term, and until when.
leaders = Table(
    "leaders",
    metadata,
    Column("duty", exact(32), nullable=False),
    Column("owner", exact(64)),  # NULL: nobody; the duty is due at ``until_at``
    Column("term", BigInteger, nullable=False),
    Column("until_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("duty"),
    **_INNODB,
)
