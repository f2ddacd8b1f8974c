"""An index for lists of keys in one state, such as those that wait for approval among a million active ones.

The previous release neither needs nor minds it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_keys_not_active",
        "keys",
        ["state", "fingerprint"],
        sqlite_where=sa.text("state != 'active'"),
        postgresql_where=sa.text("state != 'active'"),
    )
