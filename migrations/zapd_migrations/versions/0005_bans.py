"""Bans by hand. The table is nobody's yet, so the previous release goes on beside it: it decides as if there were
no bans, so upgrade every zapd before the first one is made."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _name() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "bans",
        sa.Column("id", _name(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", _name(), nullable=False, comment="an address rule, a fingerprint or a user's name"),
        sa.Column("domains", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger()),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("created_by", _name(), nullable=False, comment="the name of the token that made it"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_bans"),
        sa.UniqueConstraint("kind", "subject", "domains", name="uq_bans_kind"),
        sa.CheckConstraint("kind IN ('address', 'key', 'user')", name="ck_bans_kind"),
    )
    op.create_index("ix_bans_expires", "bans", ["expires"])
