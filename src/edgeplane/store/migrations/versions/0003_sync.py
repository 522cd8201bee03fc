"""How tasks get to a node, the replica its agent is connected to, and the replicas that run."""

import sqlalchemy as sa
from alembic import op

from edgeplane.store.migrations.steps import OPTIONS, add_column, add_index, drop_column, drop_index
from edgeplane.store.types import UtcDateTime, exact

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


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
        **OPTIONS,
    )


def downgrade() -> None:
    op.drop_table("replicas", if_exists=True)
    drop_index("ix_node_mailboxes_via", "node_mailboxes")
    drop_column("node_mailboxes", "via")
    drop_column("nodes", "transport")
