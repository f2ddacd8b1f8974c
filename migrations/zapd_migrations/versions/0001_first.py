"""The first schema: keys, users, agents, tokens and the change log.

Written out, not taken from `zapd.store.tables`: a migration says what was, the tables say what is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _name() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("fingerprint", _name(), nullable=False, comment="43 characters of URL-safe base64"),
        sa.Column("public_key", sa.LargeBinary(32), nullable=False),
        sa.Column("user", _name(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("not_before", sa.BigInteger()),
        sa.Column("expires", sa.BigInteger()),
        sa.Column("domains", sa.Text(), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="why it was revoked or rejected"),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_keys"),
        sa.UniqueConstraint("public_key", name="uq_keys_public_key"),
        sa.CheckConstraint("state IN ('pending', 'active', 'revoked')", name="ck_keys_state"),
    )
    op.create_index("ix_keys_user", "keys", ["user"])
    op.create_table(
        "users",
        sa.Column("name", _name(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger()),
        sa.Column("domains", sa.Text(), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_users"),
        sa.CheckConstraint("state IN ('enabled', 'disabled')", name="ck_users_state"),
    )
    op.create_table(
        "agents",
        sa.Column("name", _name(), nullable=False),
        sa.Column("fingerprint", _name(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(32), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("domains", sa.Text(), nullable=False),
        sa.Column("mechanisms", sa.Text(), nullable=False),
        sa.Column("addresses", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_agents"),
        sa.UniqueConstraint("fingerprint", name="uq_agents_fingerprint"),
        sa.UniqueConstraint("public_key", name="uq_agents_public_key"),
        sa.CheckConstraint("state IN ('active', 'revoked')", name="ck_agents_state"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", _name(), nullable=False),
        sa.Column("name", _name(), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the token"),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("domains", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger()),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.BigInteger()),
        sa.Column("last_used", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="ck_tokens_role"),
    )
    op.create_table(
        "change_log",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False, comment="the whole audit event as JSON"),
        sa.Column(
            "instance", sa.Text(), nullable=False, comment="whose journal takes it; empty until one claims it"
        ),
        sa.Column("journalled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_change_log"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_change_log_waiting",
        "change_log",
        ["sequence"],
        sqlite_where=sa.text("NOT journalled"),
        postgresql_where=sa.text("NOT journalled"),
    )
