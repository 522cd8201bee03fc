"""How tasks get to a node, the replica its agent is connected to, and the replicas that run."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from edgeplane.store.migrations.steps import add_column, add_index, drop_column, drop_index
from edgeplane.store.types import UtcDateTime, exact

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mariadb_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
}


def upgrade() -> None:
    add_column("nodes", sa.Column("transport", exact(8), nullable=False, server_default="push"))
    add_column("node_mailboxes", sa.Column("via", exact(64)))
    add_index("ix_node_mailboxes_via", "node_mailboxes", ["via"])
    op.create_table(
        "replicas",
        sa.Column("id", exact(64), nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("seen_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replicas"),
        if_not_exists=True,
        **_OPTIONS,
    )


def downgrade() -> None:
    op.drop_table("replicas", if_exists=True)
    drop_index("ix_node_mailboxes_via", "node_mailboxes")
    drop_column("node_mailboxes", "via")
    drop_column("nodes", "transport")
