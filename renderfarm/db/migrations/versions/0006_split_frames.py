"""Split frames into parts: what a unit renders of its frame, what it waits for, and what a file is of its task."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("units", schema=None) as batch_op:
        batch_op.add_column(sa.Column("part", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column("feeds", sa.String(26), nullable=True))
        batch_op.add_column(sa.Column("inputs_open", sa.Integer(), server_default="0", nullable=False))
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("parts_done", sa.Double(), server_default="0", nullable=False))
    with op.batch_alter_table("outputs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("role", sa.String(16), server_default="picture", nullable=False))
