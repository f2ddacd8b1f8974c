"""An index for lists of the keys of one domain, such as a few among a million.

The previous release neither needs nor minds it.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_keys_domains", "keys", ["domains", "fingerprint"])
