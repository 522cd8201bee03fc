"""How Alembic reaches the database: over the connection it is handed."""

from alembic import context

from edgeplane.store.rows import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_type=connection.dialect.name != "sqlite",  # SQLite keeps a column's type as a word only
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
