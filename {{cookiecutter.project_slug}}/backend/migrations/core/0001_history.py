"""Create the history: one row per run of a task."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "task_runs",
        sa.Column("id", sa.String(255), nullable=False, comment="Celery's task id"),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.Column("arguments", JSONB, nullable=False, comment="argument by name"),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("result", JSONB),
        sa.Column("error", sa.Text, comment="type and message of the last exception"),
        sa.Column("traceback", sa.Text),
        sa.Column("progress", JSONB, comment='{"done": number, "total": number}'),
        sa.Column("attempts", sa.Integer, server_default="0", nullable=False, comment="number of starts"),
        sa.Column("earlier_attempts", JSONB, comment="the oldest first"),
        sa.Column("retries", sa.Integer, server_default="0", nullable=False, comment="of the newest message"),
        sa.Column("losses", sa.Integer, server_default="0", nullable=False, comment="attempts whose worker was lost"),
        sa.Column("worker", sa.String(255), comment="Celery node name"),
        sa.Column("owner", sa.Integer, comment="worker process of the last attempt, by its advisory lock"),
        sa.Column("deadline", sa.DateTime(timezone=True), comment="latest end of the last attempt"),
        sa.Column("message", JSONB, comment="chain, callbacks and the like of its message"),
        sa.Column("outbox_action", sa.String(16), comment="message for the relay to send"),
        sa.Column("publish_count", sa.Integer, server_default="0", nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "publish_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="no earlier",
        ),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.Column("started_at", sa.DateTime(timezone=True), comment="of the last attempt"),
        sa.Column("stopped_at", sa.DateTime(timezone=True), comment="of the last attempt, if another follows"),
        sa.Column("next_try_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_task_runs"),
    )
    op.create_index("ix_task_runs_accepted_at_id", "task_runs", ["accepted_at", "id"])
    for filtered in ("state", "name", "worker"):
        op.create_index(f"ix_task_runs_{filtered}_accepted_at_id", "task_runs", [filtered, "accepted_at", "id"])
    op.create_index(
        "ix_task_runs_outbox", "task_runs", ["publish_at"], postgresql_where=sa.text("outbox_action IS NOT NULL")
    )


def downgrade() -> None:
    """Drop the table and all runs."""
    op.drop_table("task_runs")
