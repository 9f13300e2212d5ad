"""Add indexes for keys and for searches by argument.

In a migration of their own: while indexes are built, rows can be read, which the locks of new columns prevent.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Create the indexes."""
    op.create_index(
        "uq_task_runs_key",
        "task_runs",
        ["name", "key"],
        unique=True,
        postgresql_where=sa.text("key IS NOT NULL AND state IN ('PENDING', 'STARTED', 'RETRY')"),
    )
    op.create_index(
        "ix_task_runs_key", "task_runs", ["name", "key", "accepted_at"], postgresql_where=sa.text("key IS NOT NULL")
    )
    op.create_index(
        "ix_task_runs_arguments",
        "task_runs",
        ["arguments"],
        postgresql_using="gin",
        postgresql_ops={"arguments": "jsonb_path_ops"},
        postgresql_where=sa.text("state IN ('SUCCESS', 'FAILURE', 'REVOKED')"),
    )


def downgrade() -> None:
    """Drop the indexes."""
    for index in ("ix_task_runs_arguments", "ix_task_runs_key", "uq_task_runs_key"):
        op.drop_index(index, "task_runs")
