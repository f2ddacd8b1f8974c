"""What alembic runs: the migrations, over the connection that `zapd.store.schema` opened.

The transaction is the caller's, so that an upgrade happens whole or not at all. Tables that are not the
registry's (the searchable audit copy shares a PostgreSQL database with it) are left alone.
"""

from typing import Any

from alembic import context

from zapd.store.tables import metadata


def _is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    return kind != "table" or name in metadata.tables


_connection = context.config.attributes.get("connection")
if _connection is not None:
    context.configure(
        connection=_connection,
        target_metadata=metadata,
        include_name=_is_ours,
        render_as_batch=_connection.dialect.name == "sqlite",
        transaction_per_migration=False,
    )
    context.run_migrations()
else:
    context.configure(
        dialect_name=context.config.attributes["dialect"],
        target_metadata=metadata,
        literal_binds=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
