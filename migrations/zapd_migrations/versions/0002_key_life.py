"""Keys and agents that were rotated, and what retried requests were answered.

New columns may be empty and the new table is nobody's yet, so the previous release goes on beside it: what it
writes leaves them empty, and what it reads names its own columns.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _name() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column(
        "keys",
        sa.Column("replaces", _name(), comment="the fingerprint of the key that this one was rotated in for"),
    )
    op.add_column(
        "keys",
        sa.Column("replaced_by", _name(), comment="the fingerprint of the key that was rotated in for this one"),
    )
    op.add_column(
        "agents",
        sa.Column("previous_key", sa.LargeBinary(32), comment="what the agent's key was before it was rotated"),
    )
    op.add_column(
        "agents",
        sa.Column("previous_until", sa.BigInteger(), comment="until when the previous key is good as well"),
    )
    op.create_table(
        "idempotency",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("token", _name(), nullable=False, comment="the id of the token that asked"),
        sa.Column("key", _name(), nullable=False, comment="what the caller calls its request"),
        sa.Column(
            "request", sa.LargeBinary(32), nullable=False, comment="a hash of it, keyed with the token itself"
        ),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), comment="of the answer; empty until there is one to repeat"),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_idempotency"),
        sa.UniqueConstraint("token", "key", name="uq_idempotency_token"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_idempotency_time", "idempotency", ["time"])
