"""Events carry the operation they belong to, and tell of operations themselves."""

import sqlalchemy as sa

from edgeplane.store.migrations.steps import add_column, drop_column
from edgeplane.store.types import Id

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_column("events", sa.Column("operation_id", Id))


def downgrade() -> None:
    # Events of operations stay, as of task 0: they are pruned like all others.
    drop_column("events", "operation_id")
