"""The catalog's tables, for SQLite and PostgreSQL alike.

A row is a claim, never a proof: who serves a variant checks its signed bundles first. Changing a
table means a new file under `migrations/versions/`; a test compares both.
Times are text in RFC 3339 (UTC), digests are text `sha256:<hex>`, lists and maps are JSON.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata: Final = MetaData()

meta: Final = Table(
    "meta",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="meta_one_row"), primary_key=True),
    Column("generation", BigInteger, nullable=False),
)
"""One row; `generation` grows in every transaction that changes what clients or people see."""

publication: Final = Table(
    "publication",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("origin", Text, nullable=False),
    Column("repo_type", Text, nullable=False),
    Column("repo", Text, nullable=False),
    Column("served", Text, nullable=False),
    Column("upstream", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("published_at", Text, nullable=False),
    Column("depends", JSON, nullable=False),
    UniqueConstraint("repo_type", "repo", "served", "lane", name="publication_once"),
)

branch: Final = Table(
    "branch",
    metadata,
    Column("repo_type", Text, primary_key=True),
    Column("repo", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column(
        "publication_id", Integer, ForeignKey("publication.id", ondelete="CASCADE"), nullable=False
    ),
)
"""Which publication `vN` means now; earlier ones stay reachable by their commit."""

published_variant: Final = Table(
    "published_variant",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column(
        "publication_id", Integer, ForeignKey("publication.id", ondelete="CASCADE"), nullable=False
    ),
    Column("variant", Text, nullable=False),
    Column("manifest", Text, nullable=False, index=True),
    Column("bundles", JSON, nullable=False),
    Column("evidence", JSON, nullable=False),
    UniqueConstraint("publication_id", "variant", name="published_variant_once"),
)

served_file: Final = Table(
    "served_file",
    metadata,
    Column(
        "variant_id",
        Integer,
        ForeignKey("published_variant.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("path", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("digest", Text, nullable=False, index=True),
    Column("oid", Text, nullable=False),
    Column("lfs", Boolean, nullable=False),
)

denial: Final = Table(
    "denial",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("origin", Text, nullable=False),
    Column("repo_type", Text, nullable=False),
    Column("repo", Text, nullable=False),
    Column("upstream", Text, nullable=False),
    Column("version", Integer),
    Column("lane", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("manifest", Text),
    Column("reasons", JSON, nullable=False),
    Column("denied_at", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    UniqueConstraint(
        "origin", "repo_type", "repo", "upstream", "lane", "variant", name="denial_once"
    ),
)

intake: Final = Table(
    "intake",
    metadata,
    Column("kernel", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("manifest", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("state", Text, nullable=False, server_default="decided"),
    Column("changed_at", Text, nullable=False, server_default="1970-01-01T00:00:00Z"),
)
"""Variants on the way and their evidence, by the package URL under which they will be served.

States: quarantine (bytes are coming in), scanned, decided, denied. A publication needs no row here.
"""

token: Final = Table(
    "token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("repos", JSON, nullable=False),
    Column("lanes", JSON, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("revoked_at", Text),
    Column("may", JSON),
)
"""Client tokens; only the sha256 of a token is kept."""

audit: Final = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("entry", Text, nullable=False),
    Column("digest", Text, nullable=False),
)
"""Who changed what and when: canonical JSON that names the entry before it; see `audit`."""

hold: Final = Table(
    "hold",
    metadata,
    Column("repo_type", Text, primary_key=True),
    Column("repo", Text, primary_key=True),
    Column("served", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("held_by", Text, nullable=False),
    Column("held_at", Text, nullable=False),
)
"""Publications that nothing may remove until a person lets go of them."""

last_used: Final = Table(
    "last_used",
    metadata,
    Column("repo_type", Text, primary_key=True),
    Column("repo", Text, primary_key=True),
    Column("served", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("day", Text, nullable=False),
)
"""The last day (UTC) on which a client asked for a publication's files."""

standing: Final = Table(
    "standing",
    metadata,
    Column("pin", Text, primary_key=True),
    Column("rests_on", Text, nullable=False),
    Column("outcome", JSON, nullable=False),
)
"""How each pin came out, with a digest of all that it rests on; may be emptied at any time."""

qualification: Final = Table(
    "qualification",
    metadata,
    Column("id", Text, primary_key=True),
    Column("manifest", Text, nullable=False),
    Column("submitter", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("received_at", Text, nullable=False),
)
"""Results that were submitted, as canonical JSON, by the digest of their bytes."""
