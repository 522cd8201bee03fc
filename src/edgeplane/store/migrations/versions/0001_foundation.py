"""Users, nodes, mailboxes, tasks, attempts, events, leaders, operations."""

import sqlalchemy as sa
from alembic import op

from edgeplane.store.migrations.steps import OPTIONS, add_index
from edgeplane.store.types import Digest, Id, PayloadText, UtcDateTime, exact, name

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("username", exact(64), nullable=False),
        sa.Column("password_hash", exact(255), nullable=False),
        sa.Column("role", exact(16), nullable=False),
        sa.Column("active", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
        sqlite_autoincrement=True,
        if_not_exists=True,
        **OPTIONS,
    )
    _nodes()
    _tasks()
    _leaders()
    _operations()


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", name(128), nullable=False),
        sa.Column("main_ip", exact(45), nullable=False),
        sa.Column("agent_port", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("status", exact(16), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nodes"),
        sa.UniqueConstraint("name", name="uq_nodes_name"),
        sqlite_autoincrement=True,
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "node_sub_ips",
        sa.Column("node_id", Id, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("ip", exact(45), nullable=False),
        sa.Column("enabled", sa.Boolean(create_constraint=False), nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name="fk_node_sub_ips_node_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("node_id", "position", name="pk_node_sub_ips"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "node_labels",
        sa.Column("node_id", Id, nullable=False),
        sa.Column("name", exact(63), nullable=False),
        sa.Column("value", exact(63), nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name="fk_node_labels_node_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("node_id", "name", name="pk_node_labels"),
        if_not_exists=True,
        **OPTIONS,
    )
    add_index("ix_node_labels_name_value_node_id", "node_labels", ["name", "value", "node_id"])
    op.create_table(
        "node_mailboxes",
        sa.Column("node_id", Id, autoincrement=False, nullable=False),
        sa.Column("next_at", UtcDateTime),
        sa.Column("owner", exact(64)),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("work_seq", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("unreachable_since", UtcDateTime),
        sa.PrimaryKeyConstraint("node_id", name="pk_node_mailboxes"),
        if_not_exists=True,
        **OPTIONS,
    )
    add_index("ix_node_mailboxes_next_at_node_id", "node_mailboxes", ["next_at", "node_id"])
    add_index("ix_node_mailboxes_owner", "node_mailboxes", ["owner"])


def _tasks() -> None:
    op.create_table(
        "agent_tasks",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("node_id", Id, nullable=False),
        sa.Column("operation_id", Id),
        sa.Column("type", exact(32), nullable=False),
        sa.Column("payload", PayloadText),
        sa.Column("payload_bytes", sa.Integer(), nullable=False),
        sa.Column("payload_digest", Digest, nullable=False),
        sa.Column("status", exact(16), nullable=False),
        sa.Column("lane", exact(16)),
        sa.Column("lane_rank", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger()),
        sa.Column("superseded_by", Id),
        sa.Column("cancel_requested", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("outcome", exact(16)),
        sa.Column("last_error", sa.Text()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("counted_attempts", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("deadline_seconds", sa.Integer(), nullable=False),
        sa.Column("deadline_at", UtcDateTime, nullable=False),
        sa.Column("next_retry_at", UtcDateTime),
        sa.Column("request_id", exact(64), nullable=False),
        sa.Column("created_by", exact(64)),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("started_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agent_tasks"),
        sa.UniqueConstraint("request_id", name="uq_agent_tasks_request_id"),
        sa.UniqueConstraint("operation_id", "node_id", name="uq_agent_tasks_operation_id_node_id"),
        sqlite_autoincrement=True,
        if_not_exists=True,
        **OPTIONS,
    )
    add_index("ix_agent_tasks_type_status_id", "agent_tasks", ["type", "status", "id"])
    add_index(
        "ix_agent_tasks_node_id_type_status_id", "agent_tasks", ["node_id", "type", "status", "id"]
    )
    add_index(
        "ix_agent_tasks_node_id_lane_lane_rank_id",
        "agent_tasks",
        ["node_id", "lane", "lane_rank", "id"],
    )
    add_index(
        "ix_agent_tasks_operation_id_status_id", "agent_tasks", ["operation_id", "status", "id"]
    )
    op.create_table(
        "task_attempts",
        sa.Column("task_id", Id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("begun_at", UtcDateTime, nullable=False),
        sa.Column("ended_at", UtcDateTime, nullable=False),
        sa.Column("outcome", exact(16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("output", sa.Text()),
        sa.Column("replica", exact(64)),
        sa.Column("address", exact(64)),
        sa.PrimaryKeyConstraint("task_id", "number", name="pk_task_attempts"),
        if_not_exists=True,
        **OPTIONS,
    )
    op.create_table(
        "events",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("type", exact(16), nullable=False),
        sa.Column("task_id", Id, nullable=False),
        sa.Column("node_id", Id, nullable=False),
        sa.Column("status", exact(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sqlite_autoincrement=True,
        if_not_exists=True,
        **OPTIONS,
    )


def _leaders() -> None:
    op.create_table(
        "leaders",
        sa.Column("duty", exact(32), nullable=False),
        sa.Column("owner", exact(64)),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("until_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("duty", name="pk_leaders"),
        if_not_exists=True,
        **OPTIONS,
    )


def _operations() -> None:
    op.create_table(
        "operations",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("request_id", exact(64), nullable=False),
        sa.Column("request_digest", Digest, nullable=False),
        sa.Column("type", exact(32), nullable=False),
        sa.Column("payload", PayloadText, nullable=False),
        sa.Column("payload_bytes", sa.Integer(), nullable=False),
        sa.Column("payload_digest", Digest, nullable=False),
        sa.Column("target", PayloadText, nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("deadline_seconds", sa.Integer(), nullable=False),
        sa.Column("concurrency_limit", exact(16)),
        sa.Column("failure_limit", exact(16)),
        sa.Column("max_concurrency", sa.Integer()),
        sa.Column("max_failures", sa.Integer()),
        sa.Column("state", exact(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("unsent", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("pending", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("unreachable", sa.Integer(), nullable=False),
        sa.Column("success", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("superseded", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("waking", Id),
        sa.Column("retrying", Id),
        sa.Column("next_at", UtcDateTime),
        sa.Column("owner", exact(64)),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("work_seq", sa.BigInteger(), nullable=False),
        sa.Column("created_by", exact(64)),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_operations"),
        sa.UniqueConstraint("request_id", name="uq_operations_request_id"),
        sqlite_autoincrement=True,
        if_not_exists=True,
        **OPTIONS,
    )
    add_index("ix_operations_state_id", "operations", ["state", "id"])
    add_index("ix_operations_next_at_id", "operations", ["next_at", "id"])
    op.create_table(
        "operation_targets",
        sa.Column("operation_id", Id, nullable=False),
        sa.Column("node_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("operation_id", "node_id", name="pk_operation_targets"),
        if_not_exists=True,
        **OPTIONS,
    )


def downgrade() -> None:
    for table in (
        "events",
        "leaders",
        "operation_targets",
        "operations",
        "task_attempts",
        "agent_tasks",
        "node_mailboxes",
        "node_labels",
        "node_sub_ips",
        "nodes",
        "users",
    ):
        op.drop_table(table, if_exists=True)
