"""What Alembic runs: the connection comes from ``renderfarm.db.migrate``, which owns the transaction."""

from alembic import context

from renderfarm.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most things in place; batch mode copies the table instead.
    render_as_batch=True,
)
context.run_migrations()
