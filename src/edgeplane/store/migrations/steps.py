"""Steps of migrations that may be taken again: MariaDB keeps those of one that was killed."""

import sqlalchemy as sa
from alembic import op


def add_index(name: str, table: str, columns: list[str]) -> None:
    """Make an index, where it is not there yet."""
    known = sa.inspect(op.get_bind()).get_indexes(table)
    if name not in {index["name"] for index in known}:
        op.create_index(name, table, columns)
