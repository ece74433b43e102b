"""Look at pictures: what looks wrong with each, and what its neighbours are compared with."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("outputs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("flaws", sa.JSON(none_as_null=True), nullable=True))
        batch_op.add_column(sa.Column("impression", sa.LargeBinary(), nullable=True))
