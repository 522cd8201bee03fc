"""What is observed of each node, beside the nodes themselves."""

import sqlalchemy as sa
from alembic import op

from edgeplane.model.clock import utc_now
from edgeplane.store.migrations.steps import OPTIONS, add_index
from edgeplane.store.types import Id, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "node_health",
        sa.Column("node_id", Id, autoincrement=False, nullable=False),
        sa.Column("check_at", UtcDateTime, nullable=False),
        sa.Column("seen_at", UtcDateTime),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", UtcDateTime),
        sa.Column("last_error", sa.Text()),
        sa.PrimaryKeyConstraint("node_id", name="pk_node_health"),
        if_not_exists=True,
        **OPTIONS,
    )
    add_index("ix_node_health_check_at_node_id", "node_health", ["check_at", "node_id"])
    _fill()


def _fill() -> None:
    """Make the rows of the nodes there are: nothing is known of them, and all are due."""
    nodes = sa.table("nodes", sa.column("id"))
    health = sa.table(
        "node_health", sa.column("node_id"), sa.column("check_at"), sa.column("failures")
    )
    known = sa.select(health.c.node_id)
    missing = sa.select(
        nodes.c.id, sa.literal(utc_now(), UtcDateTime), sa.literal(0, sa.Integer)
    ).where(nodes.c.id.not_in(known))
    op.execute(sa.insert(health).from_select(["node_id", "check_at", "failures"], missing))


def downgrade() -> None:
    op.drop_table("node_health", if_exists=True)
