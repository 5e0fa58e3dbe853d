"""States of what is on the way, the audit log, holds, and when a publication was last used.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_LONG_AGO = "1970-01-01T00:00:00Z"


def upgrade() -> None:
    op.add_column("intake", sa.Column("state", sa.Text, nullable=False, server_default="decided"))
    op.add_column(
        "intake", sa.Column("changed_at", sa.Text, nullable=False, server_default=_LONG_AGO)
    )
    _state_what_came_before()
    op.create_table(
        "audit",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
    )
    op.create_table(
        "hold",
        sa.Column("repo_type", sa.Text, primary_key=True),
        sa.Column("repo", sa.Text, primary_key=True),
        sa.Column("served", sa.Text, primary_key=True),
        sa.Column("lane", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("held_by", sa.Text, nullable=False),
        sa.Column("held_at", sa.Text, nullable=False),
    )
    op.create_table(
        "last_used",
        sa.Column("repo_type", sa.Text, primary_key=True),
        sa.Column("repo", sa.Text, primary_key=True),
        sa.Column("served", sa.Text, primary_key=True),
        sa.Column("lane", sa.Text, primary_key=True),
        sa.Column("day", sa.Text, nullable=False),
    )


def _state_what_came_before() -> None:
    """Say of each row of the first schema how far it had come: its evidence tells."""
    connection = op.get_bind()
    intake = sa.table(
        "intake",
        sa.column("kernel", sa.Text),
        sa.column("lane", sa.Text),
        sa.column("evidence", sa.JSON),
        sa.column("state", sa.Text),
    )
    denial = sa.table("denial", sa.column("lane", sa.Text), sa.column("evidence", sa.JSON))
    denied = {
        (row.lane, json.dumps(row.evidence, sort_keys=True))
        for row in connection.execute(sa.select(denial.c.lane, denial.c.evidence))
        if row.evidence
    }
    for row in connection.execute(sa.select(intake)).all():
        if "decision" not in row.evidence:
            state = "scanned" if "scan" in row.evidence else "quarantine"
        elif (row.lane, json.dumps(row.evidence, sort_keys=True)) in denied:
            state = "denied"
        else:
            continue
        connection.execute(
            sa.update(intake)
            .where(intake.c.kernel == row.kernel, intake.c.lane == row.lane)
            .values(state=state)
        )
