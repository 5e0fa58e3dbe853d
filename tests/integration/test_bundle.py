from __future__ import annotations

import json
import resource
import shutil
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import (
    Conflict,
    IntegrityError,
    InvalidInput,
    KgateError,
    NotFound,
    TrustError,
)
from kgate_mirror_server.bundle.contents import check_attestations
from kgate_mirror_server.bundle.document import BUNDLE, BundleDocument
from kgate_mirror_server.bundle.exporting import Wish, plan_bundle, write_again
from kgate_mirror_server.bundle.inspecting import inspect_bundle
from kgate_mirror_server.bundle.receipts import check_receipt
from kgate_mirror_server.bundle.receiving import PartState
from kgate_mirror_server.bundle.revoking import Revocations
from kgate_mirror_server.bundle.sealed import Sealed
from kgate_mirror_server.bundle.senders import pin_receiver, senders
from kgate_mirror_server.ingest.sync import refresh_trust
from kgate_mirror_server.serve.trustfolder import TrustFolder
from kgate_mirror_server.store.disk import DiskStore
from kgate_mirror_server.trust.files import read_pinned, read_trust, write_trust
from kgate_mirror_server.trust.withheld import read_withheld
from kgate_signer.keys import FileKey
from kgate_signer.trustchanges import revoke_digest
from kgate_signer.trustwriter import Offline, refresh_timestamp
from tests.bundlekit import LARGE, PART, World, flip, parts, silent
from tests.services import find_program
from tests.sitekit import CONNECTED, ISLAND, REPO, Site, time_now

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.template(tmp_path_factory.mktemp("sites"))


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    return template.copy(tmp_path)


def revoke(site: Site, digest: Digest) -> None:
    mirror = site.mirror()
    folder = mirror.config.path(mirror.config.trust)
    offline = Offline(read_pinned(folder), (mirror.key(mirror.config.keys.root),))
    trust = revoke_digest(read_trust(folder), digest, "CVE-2026-31337", offline, now=time_now())
    timestamp = mirror.key(mirror.config.keys.timestamp)
    write_trust(folder, refresh_timestamp(trust, timestamp, now=time_now()))
    mirror.close()


def test_what_the_connected_site_published_the_island_publishes_under_its_own_keys(
    world: World,
) -> None:
    exported = world.export()
    done = world.bring()
    assert done.result.approved == 1
    assert done.received.new_bytes > LARGE
    assert world.island.manifests() == world.connected.manifests()
    ours, theirs = world.connected.publications()[0], world.island.publications()[0]
    assert (ours.served, ours.origin, ours.version) == (theirs.served, theirs.origin, 1)
    # The decision that is served was signed anew: no signature of the sender is published.
    assert not set(ours.variants[0].bundles) & set(theirs.variants[0].bundles)
    mirror = world.island.mirror()
    trusted = mirror.trusted(time_now())
    assert trusted.site == ISLAND
    assert check_attestations(mirror, theirs, theirs.variants[0], trusted, time_now()) is None
    assert done.receipt is not None
    assert done.receipt.bundle == exported.digest


def test_sizes_are_exact_before_anything_is_written_and_strict_after(world: World) -> None:
    mirror = world.connected.mirror()
    folder = world.connected.folder

    def files() -> dict[Path, int]:
        found = (path for path in folder.rglob("*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in found if "kgate.db" not in path.name}

    before = files()
    wish = Wish(PART, lambda _item: True)
    dry = plan_bundle(mirror, wish, time_now(), dry=True)
    assert files() == before
    world.export()
    written = [path.stat().st_size for path in parts(world.disc)]
    assert list(dry.part_sizes) == written
    assert max(written) <= PART
    assert len(written) == 6


def test_parts_come_in_any_order_one_disc_at_a_time(world: World, tmp_path: Path) -> None:
    world.export()
    drive = tmp_path / "drive"
    for path in reversed(parts(world.disc)):
        shutil.rmtree(drive, ignore_errors=True)
        drive.mkdir()
        shutil.copy(path, drive)
        assert not world.island.manifests(), "published before everything was there"
        done = world.bring(drive)
    assert done.result.approved == 1
    assert world.island.manifests() == world.connected.manifests()
    staged = DiskStore(world.island.folder / "kgate-data" / "incoming")
    assert list(staged.digests()) == []


def test_the_same_bundle_again_changes_nothing(world: World) -> None:
    world.export()
    world.bring()
    mirror = world.island.mirror()
    generation = mirror.catalog.generation()
    again = world.bring()
    assert again.received.new_bytes == 0
    assert [kernel.fresh for kernel in again.result.kernels] == [False]
    assert mirror.catalog.generation() == generation


def test_an_interrupted_import_goes_on_where_it_was(world: World) -> None:
    world.export()
    mirror = world.island.mirror()
    seen = 0

    def stop(count: int) -> None:
        nonlocal seen
        seen += count
        if seen > LARGE // 2:
            raise KeyboardInterrupt

    from kgate_mirror_server.bundle.importing import import_bundle

    with pytest.raises(KeyboardInterrupt):
        import_bundle(mirror, [world.disc], time_now(), progress=stop, tell=silent)
    assert not world.island.publications()
    done = world.bring()
    assert done.result.approved == 1
    assert list((world.island.folder / "kgate-data" / "tmp").iterdir()) == []


def test_one_bad_part_is_named_the_others_are_taken_and_replacing_it_is_enough(
    world: World, tmp_path: Path
) -> None:
    world.export()
    bad = parts(world.disc)[2]
    good = tmp_path / "good.tar"
    shutil.copy(bad, good)
    flip(bad, bad.stat().st_size // 2)
    done = world.bring()
    states = {part.number: part.state for part in done.received.parts}
    assert [number for number, state in states.items() if state is PartState.DAMAGED] == [3]
    assert done.receipt is None
    assert not world.island.publications()
    drive = tmp_path / "drive"
    drive.mkdir()
    shutil.copy(good, drive)
    assert world.bring(drive).result.approved == 1


def test_the_sender_can_write_one_part_again_byte_for_byte(world: World, tmp_path: Path) -> None:
    world.export()
    sealed = next(world.disc.glob("*.json")).read_bytes()
    mirror = world.connected.mirror()
    (tmp_path / "again").mkdir()
    (path,) = write_again(mirror, sealed, [2], tmp_path / "again", silent)
    assert path.read_bytes() == parts(world.disc)[1].read_bytes()
    with pytest.raises(NotFound, match="parts 1 to 6"):
        list(write_again(mirror, sealed, [7], tmp_path / "again", silent))
    with pytest.raises(Conflict, match=CONNECTED):
        list(write_again(world.island.mirror(), sealed, [1], tmp_path / "again", silent))


def test_a_differential_since_the_receipt_brings_the_change_only(
    world: World, tmp_path: Path
) -> None:
    world.export()
    receipt = world.bring().receipt
    world.connected.add_file("note.txt", b"one more file\n")
    world.connected.sync()
    disc = tmp_path / "second"
    exported = world.export(disc, receipt=receipt)
    written = sum(path.stat().st_size for path in parts(disc))
    assert written < 150_000 < LARGE
    assert exported.plan.document.base is not None
    done = world.bring(disc)
    # The replaced one travels by name, so that pods that pinned its commit keep it.
    assert (done.result.approved, done.missing) == (2, ())
    assert world.island.manifests() == world.connected.manifests()


def test_a_differential_on_what_never_arrived_publishes_nothing_and_says_so(
    world: World, tmp_path: Path
) -> None:
    first = world.export()
    world.connected.add_file("note.txt", b"one more file\n")
    world.connected.sync()
    disc = tmp_path / "second"
    world.export(disc, receipt=first.record)
    done = world.bring(disc)
    assert done.missing
    assert done.receipt is None
    assert not world.island.publications()
    # The first one is older but was never taken: it still may come first.
    assert world.bring(world.disc).result.approved == 1
    assert world.bring(disc).result.approved == 2
    versions = {item.version: item.upstream for item in world.island.publications()}
    assert versions == {item.version: item.upstream for item in world.connected.publications()}


def test_an_older_bundle_is_refused_after_a_newer_one(world: World, tmp_path: Path) -> None:
    world.export()
    world.export(tmp_path / "newer")
    world.bring(tmp_path / "newer")
    with pytest.raises(Conflict, match="taken in already"):
        world.bring()


def test_an_unknown_sender_is_refused_and_its_root_is_never_taken_from_the_disc(
    world: World,
) -> None:
    world.export()
    shutil.rmtree(world.island.folder / "trust" / "senders")
    with pytest.raises(TrustError, match="not pinned here") as caught:
        world.bring()
    assert "--sender-root" in caught.value.hint
    assert senders(world.island.folder / "trust") == []


def test_a_revocation_crosses_with_any_single_part_before_anything_is_published(
    world: World, tmp_path: Path
) -> None:
    world.export()
    world.bring()
    (manifest,) = world.connected.manifests()
    revoke(world.connected, manifest)
    disc = tmp_path / "second"
    exported = world.export(disc)
    (left_out,) = exported.plan.left_out
    assert left_out.reason.startswith(f"the variant ({manifest}) is revoked since")
    done = world.bring(disc)
    assert done.revocations.revoked == (manifest,)
    assert done.revocations.unsigned == ()
    mirror = world.island.mirror()
    refresh_trust(mirror, time_now())
    said = mirror.trusted(time_now()).revoked_digests[manifest]
    assert said.reason == f"CVE-2026-31337 (revoked by {CONNECTED})"
    assert world.bring(disc).revocations == Revocations()


def test_without_the_root_key_a_revocation_counts_on_the_mirror_and_waits_for_a_signature(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.export()
    world.bring()
    (manifest,) = world.connected.manifests()
    revoke(world.connected, manifest)
    world.export(tmp_path / "second")
    root_key = world.island.folder / "keys" / "root.pem"
    root_key.rename(tmp_path / "root.pem")
    arguments = ("bundle", "import", str(tmp_path / "second"), "--receipt-dir", str(tmp_path))
    assert world.island.kgate(*arguments) == 1
    said = capsys.readouterr().out
    assert "kgate trust update" in said
    assert "pods that have a copy do not know yet" in said
    mirror = world.island.mirror()
    # Nobody gets it from this mirror any more; what is signed says nothing yet.
    assert manifest not in mirror.signed_trust(time_now()).revoked_digests
    assert manifest in mirror.trusted(time_now()).revoked_digests
    assert manifest in TrustFolder(world.island.folder / "trust").load(time_now()).revoked_digests
    item = world.island.publications()[0]
    refused = check_attestations(
        mirror, item, item.variants[0], mirror.trusted(time_now()), time_now()
    )
    assert refused is not None
    assert "is revoked since" in refused
    # Nor does it come back with a bundle in which it is still allowed by name.
    assert world.bring(tmp_path / "second").revocations.unsigned == (manifest,)
    assert world.island.kgate("trust", "update") != 0
    # A person brings the key.
    (tmp_path / "root.pem").rename(root_key)
    assert world.island.kgate("trust", "update") == 0
    assert f"(revoked by {CONNECTED})" in capsys.readouterr().out
    signed = world.island.mirror().signed_trust(time_now()).revoked_digests
    assert signed[manifest].reason == f"CVE-2026-31337 (revoked by {CONNECTED})"
    assert read_withheld(world.island.folder / "trust") == {}
    assert world.island.kgate(*arguments) == 0


@pytest.mark.parametrize("signed", [True, False])
def test_what_the_sender_reinstates_comes_back_with_its_next_bundle(
    world: World, tmp_path: Path, *, signed: bool
) -> None:
    world.export()
    world.bring()
    (manifest,) = world.connected.manifests()
    revoke(world.connected, manifest)
    world.export(tmp_path / "second")
    root_key = world.island.folder / "keys" / "root.pem"
    if not signed:
        root_key.rename(tmp_path / "root.pem")
    world.bring(tmp_path / "second")
    assert world.connected.kgate("reinstate", str(manifest)) == 0
    world.export(tmp_path / "third")
    done = world.bring(tmp_path / "third")
    assert done.revocations.reinstated == (manifest,)
    mirror = world.island.mirror()
    assert manifest not in mirror.trusted(time_now()).revoked_digests
    item = world.island.publications()[0]
    trusted = mirror.trusted(time_now())
    assert check_attestations(mirror, item, item.variants[0], trusted, time_now()) is None
    # The rules of import hold as ever: the disc with the revocation is older than this one.
    with pytest.raises(Conflict, match="taken in already"):
        world.bring(tmp_path / "second")


def test_a_signed_revocation_goes_only_with_the_root_key_and_the_islands_own_never(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.export()
    world.bring()
    (manifest,) = world.connected.manifests()
    revoke(world.connected, manifest)
    world.export(tmp_path / "second")
    world.bring(tmp_path / "second")
    own = Digest.of(b"found bad on the island")
    assert world.island.kgate("revoke", str(own), "--reason", "our own finding") == 0
    world.connected.kgate("reinstate", str(manifest))
    world.export(tmp_path / "third")
    root_key = world.island.folder / "keys" / "root.pem"
    root_key.rename(tmp_path / "root.pem")
    arguments = ("bundle", "import", str(tmp_path / "third"), "--receipt-dir", str(tmp_path))
    assert world.island.kgate(*arguments) == 1
    assert "here they still count" in capsys.readouterr().out
    assert manifest in world.island.mirror().trusted(time_now()).revoked_digests
    (tmp_path / "root.pem").rename(root_key)
    assert world.bring(tmp_path / "third").revocations.reinstated == (manifest,)
    assert set(world.island.mirror().trusted(time_now()).revoked_digests) == {own}


def test_an_edited_list_of_withheld_digests_means_that_nothing_is_believed(world: World) -> None:
    (world.island.folder / "trust" / "withheld.json").write_text("{}")
    with pytest.raises(InvalidInput):
        world.island.mirror().trusted(time_now())
    with pytest.raises(InvalidInput):
        TrustFolder(world.island.folder / "trust").load(time_now())


def test_the_islands_own_policy_denies_what_the_sender_allowed(world: World) -> None:
    world.export()
    policy = world.island.folder / "policy" / "baseline.yaml"
    policy.write_text(policy.read_text() + "licences:\n  allow: [Zlib]\n", encoding="utf-8")
    assert world.island.kgate("trust", "update") == 0
    done = world.bring()
    assert (done.result.approved, done.result.denied) == (0, 1)
    assert not world.island.publications()
    assert world.island.mirror().catalog.denials()


def test_a_policy_that_the_islands_lanes_do_not_count_stops_the_import(world: World) -> None:
    world.export()
    policy = world.island.folder / "policy" / "baseline.yaml"
    policy.write_text(policy.read_text() + "licences:\n  allow: [Zlib]\n", encoding="utf-8")
    with pytest.raises(TrustError, match="does not count"):
        world.bring()
    assert not world.island.publications()


def test_a_damaged_store_is_noticed_while_writing_and_leaves_no_part(world: World) -> None:
    mirror = world.connected.mirror()
    file = next(f for f in world.connected.publications()[0].variants[0].files if f.size == LARGE)
    path = mirror.store.path(file.digest)
    path.chmod(0o644)
    flip(path, LARGE // 2)
    with pytest.raises(IntegrityError, match="is damaged"):
        world.export()
    with pytest.raises(IntegrityError, match="is damaged"):
        world.export(world.disc / "large", part_size=10_000_000)
    assert parts(world.disc) == parts(world.disc / "large") == []


def test_a_folder_that_holds_a_bundle_is_refused(world: World) -> None:
    world.export()
    with pytest.raises(Conflict, match="kgate-bundle-"):
        world.export()


def test_a_disc_that_is_too_small_is_refused_before_a_byte_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import collections

    usage = collections.namedtuple("usage", "total used free")  # noqa: PYI024  # as shutil's own
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10, 9, 1))
    with pytest.raises(KgateError, match="has 1 bytes free"):
        world.export()
    assert list(world.disc.iterdir()) == []


def test_a_disc_that_fills_up_halfway_leaves_no_part_and_says_how_large_it_must_be(
    world: World,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE - 100_000, hard))
    try:
        with pytest.raises(KgateError, match="the disk is full; this part has") as caught:
            world.export(part_size=10_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "--part-size" in caught.value.hint
    assert list(world.disc.iterdir()) == []
    # Room was made: the same folder is taken, and the bundle is whole.
    world.export(part_size=10_000_000)
    assert world.bring().result.approved == 1


def test_a_key_that_the_trust_metadata_does_not_know_signs_no_bundle(world: World) -> None:
    (world.connected.folder / "keys" / "other.pem").write_bytes(FileKey.generate().to_pem(None))
    (world.connected.folder / "keys" / "other.pem").chmod(0o600)
    text = world.connected.config.read_text(encoding="utf-8")
    world.connected.config.write_text(
        text.replace("keys:\n", "keys:\n  bundle: file:keys/other.pem\n"), encoding="utf-8"
    )
    with pytest.raises(TrustError, match="does not know it"):
        world.export()


def test_a_bundle_from_the_future_or_too_old_is_refused(world: World) -> None:
    world.export()
    with pytest.raises(TrustError, match="in the future"):
        world.bring(now=time_now() - timedelta(hours=1))
    with pytest.raises(TrustError, match="days ago"):
        world.bring(now=time_now() + timedelta(days=181))


def test_a_bundle_that_took_weeks_to_arrive_is_taken(world: World) -> None:
    world.export(now=time_now() - timedelta(minutes=4))
    document = _document(world.disc)
    assert document.created < time_now()
    # The timestamp inside is valid for a day; the island's clock is three weeks ahead.
    assert world.bring(now=time_now() + timedelta(days=21)).result.approved == 1


def test_a_receipt_counts_only_under_a_pinned_key_and_for_its_sender(world: World) -> None:
    world.export()
    receipt = world.bring().receipt
    assert receipt is not None
    key = world.island.mirror().key(world.island.mirror().config.keys.admit)
    data = receipt.seal(key)
    mirror = world.connected.mirror()
    with pytest.raises(TrustError, match="not pinned here"):
        check_receipt(data, mirror, time_now())
    pin_receiver(world.connected.folder / "trust", key.public_key().pem.encode())
    assert check_receipt(data, mirror, time_now()) == receipt
    with pytest.raises(TrustError):
        check_receipt(data.replace(b'"sequence": ', b'"sequence": 1'), mirror, time_now())
    with pytest.raises(Conflict, match="about bundles of"):
        check_receipt(data, world.island.mirror(), time_now())


def test_a_receipt_names_digests_and_nothing_else(world: World) -> None:
    world.export()
    receipt = world.bring().receipt
    assert receipt is not None
    said = json.dumps(receipt.to_json())
    assert REPO not in said
    assert "policy" not in said
    assert set(receipt.to_json()) == {
        "schema", "site", "sender", "sequence", "bundle", "written", "publications", "manifests",
    }  # fmt: skip


def test_other_tools_open_what_was_written(world: World, tmp_path: Path) -> None:
    skopeo = find_program("skopeo", "skopeo")
    world.export(part_size=100_000_000)
    (part,) = parts(world.disc)
    target = tmp_path / "layout"
    target.mkdir()
    subprocess.run(["tar", "-xf", str(part), "-C", str(target)], check=True)
    done = subprocess.run(
        [skopeo, "inspect", f"oci:{target}:{REPO}:v1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["Labels"]["org.opencontainers.image.title"] == REPO
    files = {str(file.digest) for file in world.connected.publications()[0].variants[0].files}
    assert files <= set(found["Layers"])


def test_segments_joined_by_hand_are_the_blob(world: World, tmp_path: Path) -> None:
    world.export()
    for part in parts(world.disc):
        subprocess.run(["tar", "-xf", str(part), "-C", str(tmp_path)], check=True)
    (cut,) = (tmp_path / "segments").iterdir()
    data = b"".join(path.read_bytes() for path in sorted(cut.iterdir()))
    assert Digest.of(data).hex == cut.name


def test_inspect_says_what_is_on_a_disc_and_takes_nothing(world: World) -> None:
    world.export()
    parts(world.disc)[3].unlink()
    known = senders(world.island.folder / "trust")
    found = inspect_bundle([world.disc], known, time_now())
    assert found.trouble == ""
    assert [part.number for part in found.parts] == [0, 1, 2, 4, 5]
    assert [str(item.publication.repo) for item in found.publications] == [REPO]
    assert inspect_bundle([world.disc], [], time_now()).trouble
    assert world.island.mirror().store.has(found.document.publications[0]) is False


def test_a_disc_without_parts_says_so(world: World, tmp_path: Path) -> None:
    (tmp_path / "music.tar").write_bytes(b"x" * 2000)
    with pytest.raises(NotFound, match="no part of a bundle") as caught:
        world.bring(tmp_path)
    assert "right disc" in caught.value.hint


def test_a_lane_of_the_islands_own_can_be_chosen(world: World) -> None:
    world.export()
    text = world.island.config.read_text(encoding="utf-8")
    world.island.config.write_text(f"{text}\nlane: canary\n", encoding="utf-8")
    assert world.island.kgate("trust", "update") == 0
    assert world.bring(lane="canary").result.approved == 1
    assert {item.lane for item in world.island.publications()} == {"canary"}


def test_a_lane_that_the_island_does_not_have_is_refused(world: World) -> None:
    world.export()
    with pytest.raises(TrustError, match="no lane 'canary'"):
        world.bring(lane="canary")


def test_a_newer_format_is_refused_with_the_advice_to_upgrade(world: World) -> None:
    world.export()
    for path in parts(world.disc):
        data = path.read_bytes().replace(b"kgate.dev/bundle/v1", b"kgate.dev/bundle/v2", 1)
        path.write_bytes(data)
    with pytest.raises(InvalidInput, match="bundle/v2") as caught:
        world.bring()
    assert "upgrade" in caught.value.hint


def _document(disc: Path) -> BundleDocument:
    sealed = Sealed.parse(next(disc.glob("*.json")).read_bytes(), BUNDLE)
    return BundleDocument.from_json(sealed.document)


def test_an_import_says_beforehand_how_many_bytes_it_will_take(world: World) -> None:
    from kgate_mirror_server.bundle.importing import import_bundle

    world.export(part_size=1_000_000)
    for held in (False, True):
        counted: list[int] = []
        expected: list[int] = []
        mirror = world.island.mirror()
        try:
            done = import_bundle(
                mirror,
                [world.disc],
                time_now(),
                progress=counted.append,
                tell=lambda _text: None,
                expect=expected.append,
            )
        finally:
            mirror.close()
        assert done.received.complete
        assert expected == [sum(counted)]
        assert (expected == [0]) is held
