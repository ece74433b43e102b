"""Verify warm frames: which frames were rendered warm, what a unit is of a frame, and which tasks have gone cold."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("cold", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("verifications", sa.Integer(), server_default="0", nullable=False))
    with op.batch_alter_table("units", schema=None) as batch_op:
        batch_op.add_column(sa.Column("share", sa.Double(), server_default="1", nullable=False))
    with op.batch_alter_table("outputs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("warm", sa.Boolean(), server_default=sa.false(), nullable=False))
