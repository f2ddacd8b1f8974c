"""Unknown keys that wait for approval, where and when they came.

The new table is nobody's yet, so the previous release goes on beside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _name() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sightings",
        sa.Column("fingerprint", _name(), nullable=False, comment="as in keys"),
        sa.Column("domain", _name(), nullable=False, comment="the ZAP domain that it knocked at"),
        sa.Column("public_key", sa.LargeBinary(32), nullable=False),
        sa.Column("rule", _name(), nullable=False, comment="the pattern that speaks for the domain"),
        sa.Column("source", _name(), nullable=False, comment="who is behind the address"),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("agent", _name(), nullable=False),
        sa.Column("first_seen", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", "domain", name="pk_sightings"),
    )
    for column in ("rule", "source", "agent", "last_seen"):
        op.create_index(f"ix_sightings_{column}", "sightings", [column])
