"""T31: what an attacker, or a scratch, can do to a bundle on its way.

Each attack is carried out on discs that a real export wrote; what counts is that the bad part is
named, that nothing is published, and that no byte leaves the island's store.
"""

from __future__ import annotations

import errno
import json
import shutil
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kgate_core.digest import Digest
from kgate_core.errors import Conflict, InvalidInput, KgateError, TrustError
from kgate_mirror_server.bundle.carried import Carried, carry
from kgate_mirror_server.bundle.contents import check_attestations
from kgate_mirror_server.bundle.document import BUNDLE
from kgate_mirror_server.bundle.layout import BLOCK, header
from kgate_mirror_server.bundle.receiving import PartState
from kgate_mirror_server.bundle.sealed import Sealed, seal
from kgate_mirror_server.store import disk
from kgate_signer.keys import FileKey
from tests.bundlekit import World, flip, parts

if TYPE_CHECKING:
    from pathlib import Path

    from kgate_mirror_server.bundle.importing import Imported


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.template(tmp_path_factory.mktemp("sites"))


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    made = template.copy(tmp_path)
    made.export()
    return made


def damaged(done: Imported) -> list[int | None]:
    return [part.number for part in done.received.parts if part.state is PartState.DAMAGED]


def nothing_published(world: World) -> bool:
    return world.island.publications() == []


@pytest.mark.parametrize("where", ["header", "content", "padding", "end", "head"])
def test_a_part_with_one_changed_byte_is_named_wherever_the_byte_is(
    world: World, where: str
) -> None:
    part = parts(world.disc)[1]
    size = part.stat().st_size
    with tarfile.open(part) as archive:
        members = archive.getmembers()
    last = members[-1]
    positions = {
        "header": last.offset + 3,
        "content": last.offset_data + last.size // 2,
        "padding": last.offset_data + last.size,
        "end": size - 1,
        "head": next(m.offset_data for m in members if m.name == "trust/targets.json") + 40,
    }
    if where == "padding":
        # The last entry of a full part has none; the first of the first part has.
        part = parts(world.disc)[0]
        with tarfile.open(part) as archive:
            odd = next(m for m in archive.getmembers()[1:] if m.size % BLOCK)
        positions["padding"] = odd.offset_data + odd.size
    flip(part, positions[where])
    done = world.bring()
    assert damaged(done) == [parts(world.disc).index(part) + 1]
    assert nothing_published(world)


def test_a_part_whose_description_was_changed_is_named_and_the_others_count(world: World) -> None:
    flip(parts(world.disc)[4], BLOCK + 900)
    done = world.bring()
    (bad,) = [part for part in done.received.parts if part.state is PartState.DAMAGED]
    assert bad.name == parts(world.disc)[4].name
    assert "bundle.json is damaged" in bad.detail
    assert nothing_published(world)


@pytest.mark.parametrize("cut", [1, 700, 100_000])
def test_a_truncated_part_is_named(world: World, cut: int) -> None:
    part = parts(world.disc)[3]
    with part.open("r+b") as stream:
        stream.truncate(part.stat().st_size - cut)
    assert damaged(world.bring()) == [4]
    assert nothing_published(world)


def test_a_missing_part_is_named(world: World) -> None:
    parts(world.disc)[5].unlink()
    done = world.bring()
    absent = [part.number for part in done.received.parts if part.state is PartState.ABSENT]
    assert absent == [6]
    assert nothing_published(world)


def test_parts_of_two_exports_are_never_mixed(world: World, tmp_path: Path) -> None:
    world.export(tmp_path / "other")
    shutil.copy(parts(tmp_path / "other")[0], world.disc)
    with pytest.raises(InvalidInput, match="parts of different bundles"):
        world.bring()
    assert nothing_published(world)


def test_a_part_of_another_export_in_the_place_of_a_missing_one_is_not_taken_for_it(
    world: World, tmp_path: Path
) -> None:
    world.export(tmp_path / "other")
    parts(world.disc)[1].write_bytes(parts(tmp_path / "other")[1].read_bytes())
    with pytest.raises(InvalidInput, match="parts of different bundles"):
        world.bring()


def test_a_replayed_old_bundle_is_refused(world: World, tmp_path: Path) -> None:
    world.export(tmp_path / "newer")
    world.bring(tmp_path / "newer")
    with pytest.raises(Conflict, match="taken in already"):
        world.bring()


def test_two_different_bundles_under_one_number_are_refused(world: World, tmp_path: Path) -> None:
    # The sender's machine was restored from a backup, or somebody else has its keys.
    backup = tmp_path / "backup"
    shutil.copytree(world.connected.folder, backup)
    world.export(tmp_path / "one")
    world.bring(tmp_path / "one")
    shutil.rmtree(world.connected.folder)
    shutil.copytree(backup, world.connected.folder)
    world.connected.add_file("note.txt", b"something else\n")
    world.connected.sync()
    (world.connected.folder / "trust").joinpath("timestamp.json").write_bytes(
        (backup / "trust" / "timestamp.json").read_bytes()
    )
    world.export(tmp_path / "two")
    with pytest.raises(Conflict, match="two different bundles"):
        world.bring(tmp_path / "two")


def test_a_bundle_signed_by_a_strangers_key_is_refused(world: World) -> None:
    _resign(world.disc, FileKey.generate())
    with pytest.raises(TrustError, match="may not sign"):
        world.bring()
    assert nothing_published(world)


def test_a_changed_description_under_the_old_signature_is_refused(world: World) -> None:
    for path in parts(world.disc):
        data = path.read_bytes()
        said, changed = b'"site": "https://connected', b'"site": "https://c0nnected'
        path.write_bytes(data.replace(said, changed, 1))
    with pytest.raises(TrustError):
        world.bring()
    assert nothing_published(world)


def test_names_in_a_tar_are_never_followed(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    before = {path for path in tmp_path.rglob("*") if "island" not in path.parts}
    for part in parts(world.disc):
        data = bytearray(part.read_bytes())
        with tarfile.open(part) as archive:
            member = archive.getmembers()[-1]
        evil = header(f"../../../..{outside}", member.size)
        data[member.offset : member.offset + BLOCK] = evil
        part.write_bytes(data)
    done = world.bring()
    assert len(damaged(done)) == len(parts(world.disc))
    assert not outside.exists()
    assert {path for path in tmp_path.rglob("*") if "island" not in path.parts} == before
    assert nothing_published(world)


@pytest.mark.parametrize(
    "path", ["build/torch-cpu/../../../x", "/etc/passwd", "build/other/x.py", "build/torch-cpu/"]
)
def test_a_publication_that_names_a_path_outside_its_variant_is_refused(
    world: World, path: str
) -> None:
    mirror = world.connected.mirror()
    document = json.loads(mirror.room.read(_publication(world.disc)))
    document["variants"][0]["files"][0]["path"] = path
    with pytest.raises(InvalidInput):
        Carried.parse(json.dumps(document).encode())


def test_a_sender_whose_admit_key_did_not_sign_the_kernels_is_refused(world: World) -> None:
    # Whoever holds only the key for bundles can carry kernels but not allow them: the VSA of
    # another lane, put into the publication's place, does not cover it.
    mirror = world.connected.mirror()
    (publication,) = mirror.catalog.publications()
    forged = replace(publication, lane="production")
    carried = carry(forged, mirror.room, mirror.store)
    trusted = mirror.trusted(publication.published_at)
    reason = check_attestations(
        mirror, carried.publication, carried.publication.variants[0], trusted,
        publication.published_at,
    )  # fmt: skip
    assert reason is not None


def test_a_disc_that_fills_up_or_disappears_leaves_the_island_able_to_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = disk._write_checked
    calls = 0

    def full(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise disk._error("the blob cannot be stored", OSError(errno.ENOSPC, "No space left"))
        real(*arguments)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(disk, "_write_checked", full)
    with pytest.raises(KgateError, match="No space left"):
        world.bring()
    assert nothing_published(world)
    assert world.bring().result.approved == 1


def _publication(disc: Path) -> Digest:
    sealed = Sealed.parse(next(disc.glob("*.json")).read_bytes(), BUNDLE)
    return Digest.parse(sealed.document["publications"][0])


def _resign(disc: Path, key: FileKey) -> None:
    sealed = Sealed.parse(next(disc.glob("*.json")).read_bytes(), BUNDLE)
    new = seal(sealed.document, BUNDLE, key)
    for path in parts(disc):
        data = bytearray(path.read_bytes())
        data[BLOCK : BLOCK + len(new)] = new
        path.write_bytes(data)
