"""Tests of what the catalog keeps besides publications, run against every database it lives in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, insert, make_url, select, text

from kgate_core.errors import IntegrityError, InvalidInput
from kgate_core.kernel import KernelId, RepoType
from kgate_mirror_server.catalog import schema
from kgate_mirror_server.catalog.audit import AuditLog, Head, check_chain
from kgate_mirror_server.catalog.keeping import Place, SqlKeeping
from kgate_mirror_server.catalog.sql import SqlCatalog
from kgate_mirror_server.ports import EvidenceKind, IntakeState
from tests.unit.mirror.catalogcases import (
    NOW,
    ONE,
    ORIGIN,
    REPO,
    TWO,
    a_denial,
    a_publication,
    digest_of,
    run_all,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

KERNEL: Final = KernelId(ORIGIN, RepoType.KERNEL, REPO, ONE, "torch-cpu")
LANE: Final = "experimental"
# Migrates as any command does, but stops for ever in the middle of the newest step.
HANGING: Final = """
import sys, time
from alembic import op
import kgate_mirror_server.catalog.sql as sql
real = op.create_table
def create_table(name, *rest, **more):
    made = real(name, *rest, **more)
    if name == "hold":
        print("halfway", flush=True)
        time.sleep(60)
    return made
op.create_table = create_table
sql.SqlCatalog(sys.argv[1])
"""


def who() -> Mapping[str, str]:
    return {"user": "ada", "host": "here"}


def a_log(catalog: SqlCatalog) -> AuditLog:
    return AuditLog(catalog.engine, who, lambda: NOW)


def audited(url: str) -> tuple[SqlCatalog, AuditLog]:
    """Open a catalog that notes its changes in the log."""
    opened = SqlCatalog(url)
    log = a_log(opened)
    opened.close()
    catalog = SqlCatalog(url, log.note)
    return catalog, a_log(catalog)


def at_revision(raw: str, wanted: str) -> None:
    """Make the tables of an earlier version of kgate."""
    config = Config()
    config.set_main_option("script_location", "kgate_mirror_server.catalog:migrations")
    script = ScriptDirectory.from_config(config)
    if (parsed := make_url(raw)).get_backend_name() == "sqlite":
        Path(str(parsed.database)).parent.mkdir(parents=True)
    engine = create_engine(raw)
    with (
        engine.begin() as connection,
        EnvironmentContext(
            config, script, fn=lambda revision, _: script._upgrade_revs(wanted, revision)
        ) as environment,
    ):
        environment.configure(connection=connection, transactional_ddl=False)
        environment.run_migrations()
    engine.dispose()


def fill_first(raw: str) -> None:
    """Put the rows into tables of the first version that it would have written."""
    evidence: Any = {"manifest": str(digest_of("m")), "scan": str(digest_of("s"))}
    decided = {**evidence, "decision": str(digest_of("yes"))}
    denied = {**evidence, "decision": str(digest_of("no"))}
    rows = {"a": {}, "b": evidence, "c": decided, "d": denied}
    engine = create_engine(raw)
    with engine.begin() as connection:
        for kernel, found in rows.items():
            connection.execute(
                text("INSERT INTO intake VALUES (:kernel, :lane, :manifest, :evidence)"),
                {
                    "kernel": f"pkg:{kernel}",
                    "lane": LANE,
                    "manifest": str(digest_of("m")),
                    "evidence": json.dumps(found),
                },
            )
        connection.execute(
            insert(schema.denial).values(
                origin=ORIGIN, repo_type="kernel", repo=str(REPO), upstream=str(ONE), version=1,
                lane=LANE, variant="torch-cuda", manifest=str(digest_of("m")), reasons=[],
                denied_at="2026-11-21T12:00:00Z", evidence=denied,
            )
        )  # fmt: skip
        connection.execute(
            insert(schema.publication).values(
                id=1, origin=ORIGIN, repo_type="kernel", repo=str(REPO), served=str(ONE),
                upstream=str(ONE), lane=LANE, published_at="2026-11-21T12:00:00Z",
                depends=["a/b@c"],
            )
        )  # fmt: skip
        connection.execute(
            insert(schema.branch).values(
                repo_type="kernel", repo=str(REPO), lane=LANE, version=1, publication_id=1
            )
        )
        item = a_publication().variants[0]
        connection.execute(
            insert(schema.published_variant).values(
                id=1, publication_id=1, variant=item.variant, manifest=str(item.manifest),
                bundles=[str(digest) for digest in item.bundles],
                evidence={str(kind): str(digest) for kind, digest in item.evidence.items()},
            )
        )  # fmt: skip
        for file in item.files:
            connection.execute(
                insert(schema.served_file).values(
                    variant_id=1, path=file.path, size=file.size, digest=str(file.digest),
                    oid=file.oid, lfs=file.lfs,
                )
            )  # fmt: skip
    engine.dispose()


class KeepingCases:
    """Subclasses give the fixtures `url` and `raw`, a database that is empty for each test."""

    @pytest.mark.parametrize("revision", ["0001", "0002"])
    def test_tables_of_an_earlier_version_are_brought_forward_with_all_that_is_in_them(
        self, url: str, raw: str, revision: str
    ) -> None:
        at_revision(raw, revision)
        fill_first(raw)
        catalog = SqlCatalog(url)
        assert catalog.publications() == (a_publication(),)
        assert len(catalog.denials()) == 1
        states = {item.kernel: item.state for item in SqlKeeping(catalog.engine).arriving()}
        assert states == {
            "pkg:a": IntakeState.QUARANTINE,
            "pkg:b": IntakeState.SCANNED,
            "pkg:c": IntakeState.DECIDED,
            "pkg:d": IntakeState.DENIED,
        }
        assert a_log(catalog).head() == Head()

    def test_t34_a_migration_killed_in_the_middle_is_done_whole_by_the_next_start(
        self, url: str, raw: str
    ) -> None:
        at_revision(raw, "0001")
        fill_first(raw)
        killed = subprocess.Popen(
            [sys.executable, "-c", HANGING, url], stdout=subprocess.PIPE, text=True
        )
        assert killed.stdout is not None
        assert killed.stdout.readline() == "halfway\n"
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed.stdout.close()
        catalog = SqlCatalog(url)
        assert catalog.publications() == (a_publication(),)
        assert len(SqlKeeping(catalog.engine).arriving()) == 4
        assert SqlKeeping(catalog.engine).holds() == ()

    def test_the_intake_says_how_far_a_variant_has_come(self, url: str) -> None:
        catalog = SqlCatalog(url)
        keeping = SqlKeeping(catalog.engine)
        evidence = {EvidenceKind.SCAN: digest_of("scan")}
        for state in IntakeState:
            catalog.keep_evidence(KERNEL, LANE, digest_of("m"), evidence, state, NOW)
            (found,) = keeping.arriving()
            assert (found.state, found.manifest, found.evidence) == (
                state,
                digest_of("m"),
                evidence,
            )
            assert found.changed_at == NOW

    def test_what_changed_meanwhile_is_not_forgotten(self, url: str) -> None:
        catalog = SqlCatalog(url)
        keeping = SqlKeeping(catalog.engine)
        state = IntakeState.QUARANTINE
        catalog.keep_evidence(KERNEL, LANE, digest_of("m"), {}, state, NOW)
        old = keeping.arriving()
        catalog.keep_evidence(KERNEL, LANE, digest_of("m"), {}, state, NOW + timedelta(hours=1))
        keeping.forget(old)
        assert len(keeping.arriving()) == 1
        keeping.forget(keeping.arriving())
        assert keeping.arriving() == ()

    def test_a_retired_publication_is_gone_with_its_version_and_its_use(self, url: str) -> None:
        catalog = SqlCatalog(url)
        keeping = SqlKeeping(catalog.engine)
        other = a_publication(served=TWO, version=2)
        for item in (a_publication(), other):
            catalog.publish(item)
            keeping.use([Place.of(item)], NOW.date())
        before = catalog.generation()
        assert catalog.retire(a_publication())
        assert catalog.publications() == (other,)
        assert catalog.generation() == before + 1
        assert list(keeping.last_used()) == [Place.of(other)]
        assert not catalog.retire(a_publication())
        assert catalog.generation() == before + 1

    def test_holds_stand_until_they_are_released(self, url: str) -> None:
        keeping = SqlKeeping(SqlCatalog(url).engine)
        item = a_publication()
        keeping.hold([item, replace(item, version=2)], "audit 7", "ada", now=NOW)
        keeping.hold([item], "audit 8", "bob", now=NOW)
        (held,) = keeping.holds()
        assert (held.place, held.reason, held.held_by) == (Place.of(item), "audit 8", "bob")
        assert keeping.release([item, item]) == (Place.of(item),)
        assert keeping.release([item]) == ()
        assert keeping.holds() == ()

    @pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
    def test_a_hold_needs_a_reason(self, url: str, reason: str) -> None:
        with pytest.raises(InvalidInput, match="reason"):
            SqlKeeping(SqlCatalog(url).engine).hold([a_publication()], reason, "ada", now=NOW)

    def test_the_last_day_of_use_only_moves_forward(self, url: str) -> None:
        keeping = SqlKeeping(SqlCatalog(url).engine)
        place = Place.of(a_publication())
        for day in (date(2026, 11, 2), date(2026, 11, 3), date(2026, 11, 1)):
            keeping.use([place], day)
        assert keeping.last_used() == {place: date(2026, 11, 3)}

    def test_each_change_of_the_catalog_is_in_the_audit_log(self, url: str) -> None:
        catalog, log = audited(url)
        keeping = SqlKeeping(catalog.engine, log.note)
        catalog.publish(a_publication())
        catalog.publish(a_publication())  # no change, no entry
        catalog.deny(a_denial())
        keeping.hold([a_publication()], "audit 7", "ada", now=NOW)
        keeping.release([a_publication()])
        catalog.retire(a_publication())
        entries = check_chain(log.entries(), [log.head()])
        assert [item.action for item in entries] == [
            "publish", "deny", "hold", "release", "retire",
        ]  # fmt: skip
        assert [item.sequence for item in entries] == [1, 2, 3, 4, 5]
        assert entries[0].who == who()
        assert entries[0].what["served"] == str(ONE)

    def test_a_change_that_fails_leaves_no_entry(self, url: str) -> None:
        catalog, log = audited(url)
        catalog.publish(a_publication())
        with pytest.raises(Exception, match="another upstream commit"):
            catalog.publish(a_publication(upstream=TWO))
        assert log.head().sequence == 1

    @pytest.mark.parametrize(
        ("attack", "said"),
        [
            ("UPDATE audit SET entry = replace(entry, 'ada', 'eve') WHERE sequence = 2", "2.*edit"),
            ("DELETE FROM audit WHERE sequence = 2", "2.*missing"),
            ("DELETE FROM audit WHERE sequence = 1", "1.*missing"),
            ("DELETE FROM audit WHERE sequence = 3", "ends at entry 2, it had 3"),
            ("DELETE FROM audit", "ends at entry 0"),
            ("UPDATE audit SET digest = 'x' WHERE sequence = 2", "2.*edited"),
        ],
    )
    def test_an_entry_that_was_edited_or_deleted_is_found(
        self, url: str, raw: str, attack: str, said: str
    ) -> None:
        catalog = SqlCatalog(url)
        log = a_log(catalog)
        for number in range(3):
            log.add("promote", {"number": number})
        head = log.head()
        assert len(check_chain(log.entries(), [head])) == 3
        engine = create_engine(raw)
        with engine.begin() as connection:
            connection.execute(text(attack))
        engine.dispose()
        with pytest.raises(IntegrityError, match=said):
            check_chain(log.entries(), [head])

    def test_a_log_that_was_written_anew_differs_from_its_anchor(self, url: str, raw: str) -> None:
        log = a_log(SqlCatalog(url))
        log.add("revoke", {"reason": "CVE"})
        head = log.head()
        engine = create_engine(raw)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM audit"))
        engine.dispose()
        log.add("ls", {})
        assert len(check_chain(log.entries())) == 1
        with pytest.raises(IntegrityError, match="not the one that was there before"):
            check_chain(log.entries(), [head])

    def test_many_writers_make_one_chain(self, url: str) -> None:
        logs = [a_log(SqlCatalog(url)) for _ in range(4)]

        def write(number: int) -> None:
            for step in range(5):
                logs[number].add("token-create", {"by": number, "step": step})

        run_all(write, 4)
        assert len(check_chain(logs[0].entries())) == 20

    def test_entries_are_text_that_people_can_read(self, url: str) -> None:
        catalog = SqlCatalog(url)
        a_log(catalog).add("revoke", {"reason": "é"})
        with catalog.engine.begin() as connection:
            entry = connection.execute(select(schema.audit.c.entry)).scalar_one()
        assert json.loads(entry)["what"] == {"reason": "é"}
