"""Results of qualifications, and what a token may do besides reading.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "qualification",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("submitter", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("received_at", sa.Text, nullable=False),
    )
    with op.batch_alter_table("token") as table:
        table.add_column(sa.Column("may", sa.JSON))


def downgrade() -> None:
    with op.batch_alter_table("token") as table:
        table.drop_column("may")
    op.drop_table("qualification")
