"""Add the span that enqueued a run."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("task_runs", sa.Column("traceparent", sa.String(55), comment="span that enqueued it"))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("task_runs", "traceparent")
