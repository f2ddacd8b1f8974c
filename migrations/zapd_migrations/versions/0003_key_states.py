"""An index for lists of keys in one state, such as those that wait for approval among a million.

The previous release neither needs nor minds it.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_keys_state", "keys", ["state", "fingerprint"])
