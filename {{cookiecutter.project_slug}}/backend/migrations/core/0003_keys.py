"""Add keys and requests of runs, and paused queues."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column("task_runs", sa.Column("key", sa.String(255), comment="one unfinished run of its task"))
    op.add_column(
        "task_runs",
        sa.Column("fingerprint", sa.String(64), comment="of the arguments of a request with an idempotency key"),
    )
    op.add_column("task_runs", sa.Column("request_id", sa.String(100)))
    op.add_column("task_runs", sa.Column("api_key", sa.String(100), comment="name of the API key of its request"))
    op.create_table(
        "paused_queues",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_paused_queues"),
    )


def downgrade() -> None:
    """Publish the runs that paused queues hold, and drop the columns and the table."""
    op.execute("UPDATE task_runs SET publish_at = accepted_at WHERE publish_at = '9999-01-01 00:00:00Z'")
    op.drop_table("paused_queues")
    for column in ("api_key", "request_id", "fingerprint", "key"):
        op.drop_column("task_runs", column)
