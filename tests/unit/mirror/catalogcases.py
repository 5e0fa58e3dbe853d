"""One set of catalog tests, run against every database that the catalog can live in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from kgate_core.digest import Digest
from kgate_core.errors import Conflict
from kgate_core.kernel import KernelId, KernelRef, RepoType, Revision
from kgate_mirror_server.catalog import rows, schema
from kgate_mirror_server.catalog.sql import KeptEvidence, SqlCatalog
from kgate_mirror_server.ports import (
    Denial,
    EvidenceKind,
    IntakeState,
    Publication,
    PublishedVariant,
    ServedFile,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
REPO = KernelRef("acme", "relu")
ONE, TWO, THREE = (Revision(digit * 40) for digit in "123")
ORIGIN = "https://hub.test"


def digest_of(text: str) -> Digest:
    return Digest.of(text.encode())


def a_variant(name: str = "torch-cpu", content: str = "x", **changes: Any) -> PublishedVariant:
    files = tuple(
        ServedFile(f"build/{name}/{path}", 2**40 + 1, digest_of(content + path), "a" * 40, lfs)
        for path, lfs in (("a.so", True), ("b é.py", False))
    )
    item = PublishedVariant(
        name,
        digest_of(f"manifest {name} {content}"),
        files,
        (digest_of("bundle"), digest_of("second")),
        {EvidenceKind.SCAN: digest_of("scan"), EvidenceKind.MANIFEST: digest_of("m")},
    )
    return replace(item, **changes)


def a_publication(**changes: Any) -> Publication:
    publication = Publication(
        ORIGIN, RepoType.KERNEL, REPO, ONE, ONE, 1, "experimental", (a_variant(),), NOW, ("a/b@c",)
    )
    return replace(publication, **changes)


def a_denial(**changes: Any) -> Denial:
    reasons = ({"rule": "no-bytecode", "seen": "a.pyc", "nested": {"n": [1, None]}},)
    denial = Denial(
        ORIGIN, RepoType.KERNEL, REPO, ONE, 1, "experimental", "torch-cuda",
        digest_of("denied"), reasons, NOW, {EvidenceKind.DECISION: digest_of("decision")},
    )  # fmt: skip
    return replace(denial, **changes)


class CatalogCases:
    """Subclasses give the fixture `url`, a database that is empty for each test."""

    @pytest.fixture
    def catalog(self, url: str) -> SqlCatalog:
        return SqlCatalog(url)

    def test_a_new_catalog_is_empty(self, catalog: SqlCatalog) -> None:
        assert catalog.publications() == ()
        assert catalog.denials() == ()
        assert catalog.generation() == 0

    def test_a_publication_comes_back_as_it_was(self, catalog: SqlCatalog) -> None:
        publication = a_publication(variants=(a_variant(), a_variant("torch-cuda")))
        catalog.publish(publication)
        assert catalog.publications() == (publication,)
        assert catalog.generation() == 1

    def test_publishing_the_same_again_changes_nothing(self, catalog: SqlCatalog) -> None:
        catalog.publish(a_publication())
        catalog.publish(a_publication(published_at=NOW + timedelta(days=1)))
        assert catalog.publications() == (a_publication(),)
        assert catalog.generation() == 1

    @pytest.mark.parametrize(
        "changes",
        [
            {"variants": (a_variant(), a_variant("torch-cuda"))},
            {"variants": (a_variant(content="other"),)},
            {"variants": (a_variant("torch-cuda"),)},
            {"upstream": TWO},
            {"origin": "https://other.test"},
            {"origin": "https://other.test", "served": TWO, "version": 2},
        ],
    )
    def test_a_served_revision_never_means_anything_else(
        self, catalog: SqlCatalog, changes: dict[str, Any]
    ) -> None:
        catalog.publish(a_publication())
        with pytest.raises(Conflict):
            catalog.publish(a_publication(**changes))
        assert catalog.publications() == (a_publication(),)
        assert catalog.generation() == 1

    def test_publications_are_read_again_only_after_a_change_by_anybody(
        self, catalog: SqlCatalog, url: str
    ) -> None:
        catalog.publish(a_publication())
        first = catalog.publications()
        assert catalog.publications() is first
        other = SqlCatalog(url)
        other.publish(a_publication(served=TWO, upstream=TWO, version=2))
        other.close()
        assert len(catalog.publications()) == 2
        renewed = a_publication(variants=(a_variant(bundles=(digest_of("renewed"),)),))
        catalog.publish(renewed)
        assert renewed in catalog.publications()

    def test_the_same_revision_may_differ_in_another_lane_and_type(
        self, catalog: SqlCatalog
    ) -> None:
        other = a_publication(lane="production", variants=(a_variant(content="other"),))
        model = a_publication(repo_type=RepoType.MODEL, version=None)
        for publication in (a_publication(), other, model):
            catalog.publish(publication)
        found = catalog.publications()
        assert len(found) == 3
        assert all(publication in found for publication in (a_publication(), other, model))

    def test_new_bundles_for_the_same_bytes_replace_the_old_ones(self, catalog: SqlCatalog) -> None:
        catalog.publish(a_publication())
        renewed = a_variant(bundles=(digest_of("new"),), evidence={})
        catalog.publish(a_publication(variants=(renewed,)))
        assert catalog.publications()[0].variants == (renewed,)
        assert catalog.generation() == 2

    def test_a_version_means_what_was_published_under_it_last(self, catalog: SqlCatalog) -> None:
        catalog.publish(a_publication())
        catalog.publish(a_publication(served=TWO, published_at=NOW + timedelta(hours=1)))
        found = {str(item.served): item.version for item in catalog.publications()}
        assert found == {str(ONE): None, str(TWO): 1}
        catalog.publish(a_publication())
        found = {str(item.served): item.version for item in catalog.publications()}
        assert found == {str(ONE): 1, str(TWO): None}
        assert catalog.generation() == 3

    def test_two_versions_may_mean_one_publication(self, catalog: SqlCatalog) -> None:
        for version in (None, 2, 1):
            catalog.publish(a_publication(version=version))
        assert [item.version for item in catalog.publications()] == [1, 2]

    def test_publications_are_sorted_by_repository_lane_and_time(self, catalog: SqlCatalog) -> None:
        wanted = [
            a_publication(served=ONE, published_at=NOW),
            a_publication(served=TWO, published_at=NOW + timedelta(1), version=2),
            a_publication(lane="production", served=THREE),
            a_publication(repo=KernelRef("beta", "gelu")),
        ]
        for publication in reversed(wanted):
            catalog.publish(publication)
        assert list(catalog.publications()) == wanted

    def test_a_denial_comes_back_and_is_replaced_by_the_next(self, catalog: SqlCatalog) -> None:
        catalog.deny(a_denial())
        assert catalog.denials() == (a_denial(),)
        later = a_denial(denied_at=NOW + timedelta(1), manifest=None, version=None, evidence={})
        catalog.deny(later)
        assert catalog.denials() == (later,)
        assert catalog.generation() == 2

    def test_denials_of_other_variants_revisions_and_lanes_stand_beside_it(
        self, catalog: SqlCatalog
    ) -> None:
        for change in ({}, {"variant": "torch-cpu"}, {"upstream": TWO}, {"lane": "production"}):
            catalog.deny(a_denial(**change))
        assert len(catalog.denials()) == 4

    def test_publishing_a_variant_ends_its_denial(self, catalog: SqlCatalog) -> None:
        catalog.deny(a_denial(variant="torch-cpu"))
        catalog.deny(a_denial())
        catalog.publish(a_publication())
        assert [denial.variant for denial in catalog.denials()] == ["torch-cuda"]

    def test_evidence_is_kept_by_kernel_and_lane(self, catalog: SqlCatalog) -> None:
        kernel = KernelId(ORIGIN, RepoType.KERNEL, REPO, ONE, "torch-cpu")
        evidence = {EvidenceKind.SBOM: digest_of("sbom")}
        assert catalog.evidence(kernel, "experimental") is None
        state = IntakeState.DECIDED
        catalog.keep_evidence(kernel, "experimental", digest_of("m"), {}, state, NOW)
        catalog.keep_evidence(kernel, "experimental", digest_of("n"), evidence, state, NOW)
        assert catalog.evidence(kernel, "experimental") == KeptEvidence(digest_of("n"), evidence)
        assert catalog.evidence(kernel, "production") is None
        assert catalog.generation() == 0  # nobody outside sees it

    def test_what_was_written_is_there_for_the_next_process(self, url: str) -> None:
        first = SqlCatalog(url)
        first.publish(a_publication())
        second = SqlCatalog(url)
        assert second.publications() == first.publications()
        first.publish(a_publication(served=TWO, version=2))
        assert second.generation() == 2

    def test_many_writers_at_once_lose_nothing(self, url: str) -> None:
        catalogs = [SqlCatalog(url) for _ in range(4)]

        def write(number: int) -> None:
            for step in range(5):
                served = Revision(f"{number * 10 + step:040x}")
                catalogs[number].publish(a_publication(served=served, version=None))
                catalogs[number].deny(a_denial(upstream=served))

        run_all(write, 4)
        assert len(catalogs[0].publications()) == 20
        assert catalogs[0].generation() == 40

    def test_two_writers_of_one_publication_make_one(self, url: str) -> None:
        catalogs = [SqlCatalog(url) for _ in range(6)]
        outcomes: list[str] = []

        def write(number: int) -> None:
            try:
                catalogs[number].publish(a_publication())
                outcomes.append("published")
            except Conflict:
                outcomes.append("conflict")

        run_all(write, 6)
        assert len(catalogs[0].publications()) == 1
        assert "published" in outcomes

    def test_opening_at_the_same_time_migrates_once(self, url: str) -> None:
        def open_it(_number: int) -> None:
            assert SqlCatalog(url).generation() == 0

        run_all(open_it, 4)

    def test_a_transaction_that_fails_leaves_nothing(
        self, catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise SQLAlchemyError("the disk is gone")

        monkeypatch.setattr(rows, "advance", fail)
        with pytest.raises(Exception, match="the disk is gone"):
            catalog.publish(a_publication())
        monkeypatch.undo()
        assert catalog.publications() == ()

    def test_a_database_of_a_newer_kgate_is_refused(self, url: str, raw: str) -> None:
        SqlCatalog(url)
        engine = create_engine(raw)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        engine.dispose()
        with pytest.raises(Conflict, match="another version of kgate"):
            SqlCatalog(url)

    def test_a_row_that_somebody_broke_hides_itself_only(
        self, catalog: SqlCatalog, raw: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        catalog.publish(a_publication())
        catalog.publish(a_publication(repo=KernelRef("beta", "gelu")))
        catalog.deny(a_denial())
        catalog.deny(a_denial(lane="production"))
        engine = create_engine(raw)
        with engine.begin() as connection:
            connection.execute(text("UPDATE publication SET served = 'HEAD' WHERE repo LIKE 'a%'"))
            connection.execute(text("UPDATE denial SET evidence = '[1]' WHERE lane = 'production'"))
        engine.dispose()
        assert [str(item.repo) for item in catalog.publications()] == ["beta/gelu"]
        assert len(catalog.denials()) == 1
        assert "catalog.row-malformed" in caplog.text

    def test_the_migrations_make_the_tables_that_the_code_uses(self, url: str, raw: str) -> None:
        SqlCatalog(url)
        engine = create_engine(raw)
        found = inspect(engine)
        names = set(found.get_table_names()) - {"alembic_version"}
        assert names == set(schema.metadata.tables)
        for name, table in schema.metadata.tables.items():
            columns = {(item["name"], bool(item["nullable"])) for item in found.get_columns(name)}
            assert columns == {(column.name, bool(column.nullable)) for column in table.columns}
            indexed = {tuple(index["column_names"]) for index in found.get_indexes(name)}
            wanted = {tuple(column.name for column in index.columns) for index in table.indexes}
            assert wanted <= indexed, name
        engine.dispose()


def run_all(work: Callable[[int], None], count: int) -> None:
    """Run `work` in threads at once; the first exception of one is raised here."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))
