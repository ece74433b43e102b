"""Find who refers to a blob: the sweep of the object store asks for a thousand digests at a time."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("asset_files", schema=None) as batch_op:
        batch_op.create_index("ix_asset_files_digest", ["digest"], unique=False)
    with op.batch_alter_table("outputs", schema=None) as batch_op:
        batch_op.create_index("ix_outputs_digest", ["digest"], unique=False)
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.create_index("ix_attempts_log_digest", ["log_digest"], unique=False)
