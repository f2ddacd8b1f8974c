"""Join tokens, and where a key came from when no operator registered it.

The new column may be empty and the new table is nobody's yet, so the previous release goes on beside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _name() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column(
        "keys",
        sa.Column("origin", _name(), comment="join:ID or signin:DOMAIN; empty where an operator registered it"),
    )
    op.create_index(
        "ix_keys_enrolled",
        "keys",
        ["expires"],
        sqlite_where=sa.text("origin IS NOT NULL"),
        postgresql_where=sa.text("origin IS NOT NULL"),
    )
    op.create_table(
        "joins",
        sa.Column("id", _name(), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the token"),
        sa.Column("user", _name(), nullable=False),
        sa.Column("domains", sa.Text(), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("addresses", sa.Text(), nullable=False),
        sa.Column("hints", sa.Text(), nullable=False, comment="what an exchange is told besides"),
        sa.Column("uses", sa.Integer(), nullable=False, comment="how often it may be exchanged"),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.Column("key_lifetime", sa.Integer(), comment="seconds that a key lives; empty is for ever"),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("created_by", _name(), nullable=False),
        sa.Column("revoked", sa.BigInteger()),
        sa.Column("last_used", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_joins"),
        sa.UniqueConstraint("hash", name="uq_joins_hash"),
        sa.CheckConstraint("used >= 0 AND used <= uses", name="ck_joins_used"),
    )
