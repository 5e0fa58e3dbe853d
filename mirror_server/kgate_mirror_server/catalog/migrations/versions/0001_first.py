"""The first tables.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    meta = op.create_table(
        "meta",
        sa.Column(
            "id", sa.Integer, sa.CheckConstraint("id = 1", name="meta_one_row"), primary_key=True
        ),
        sa.Column("generation", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(meta, [{"id": 1, "generation": 0}])
    op.create_table(
        "publication",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("repo_type", sa.Text, nullable=False),
        sa.Column("repo", sa.Text, nullable=False),
        sa.Column("served", sa.Text, nullable=False),
        sa.Column("upstream", sa.Text, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("published_at", sa.Text, nullable=False),
        sa.Column("depends", sa.JSON, nullable=False),
        sa.UniqueConstraint("repo_type", "repo", "served", "lane", name="publication_once"),
    )
    op.create_table(
        "branch",
        sa.Column("repo_type", sa.Text, primary_key=True),
        sa.Column("repo", sa.Text, primary_key=True),
        sa.Column("lane", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column(
            "publication_id",
            sa.Integer,
            sa.ForeignKey("publication.id", ondelete="CASCADE"),
            nullable=False,
        ),
    )
    op.create_table(
        "published_variant",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column(
            "publication_id",
            sa.Integer,
            sa.ForeignKey("publication.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("variant", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False, index=True),
        sa.Column("bundles", sa.JSON, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.UniqueConstraint("publication_id", "variant", name="published_variant_once"),
    )
    op.create_table(
        "served_file",
        sa.Column(
            "variant_id",
            sa.Integer,
            sa.ForeignKey("published_variant.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False, index=True),
        sa.Column("oid", sa.Text, nullable=False),
        sa.Column("lfs", sa.Boolean, nullable=False),
    )
    op.create_table(
        "denial",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("repo_type", sa.Text, nullable=False),
        sa.Column("repo", sa.Text, nullable=False),
        sa.Column("upstream", sa.Text, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("variant", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("denied_at", sa.Text, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.UniqueConstraint(
            "origin", "repo_type", "repo", "upstream", "lane", "variant", name="denial_once"
        ),
    )
    op.create_table(
        "intake",
        sa.Column("kernel", sa.Text, primary_key=True),
        sa.Column("lane", sa.Text, primary_key=True),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
    )
