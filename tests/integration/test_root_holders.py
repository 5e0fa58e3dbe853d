"""A root that several people hold: 2 of 3 sign each change, each on a machine of their own."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import (  # type: ignore[attr-defined]  # re-exports without __all__
    FetcherInterface,
    Updater,
    UpdaterConfig,
)

from kgate_cli.main import main
from kgate_core.errors import TrustError
from kgate_core.trust import TrustedRoot, load
from kgate_mirror_server.trust.files import read_trust
from kgate_mirror_server.trust.withheld import read_withheld
from kgate_signer.cosigning import Pending
from kgate_signer.keys import FileKey
from tests.sitekit import CONNECTED, REPO, Site, built_kernels, time_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_signer.trustwriter import TrustSet


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def site(tmp_path: Path, cache: Path) -> Site:
    """A site whose root ann (here), bob and cid (elsewhere) hold; two of them must agree."""
    made = Site.found(tmp_path / "site", CONNECTED, kernels=built_kernels(cache), holders=(3, 2))
    made.sync()
    for number, name in ((2, "bob"), (3, "cid")):
        home = tmp_path / name
        home.mkdir()
        (made.folder / "keys" / f"root-{number}.pem").rename(home / "mine.pem")
        shutil.copy(made.root, home / "root.json")  # pinned on the day of founding
    return made


def home(site: Site, name: str) -> Path:
    return site.folder.parent / name


def waiting(site: Site) -> Path:
    (path,) = (site.folder / "trust" / "pending").glob("*.json")
    return path


def sign(site: Site, name: str, change: Path) -> int:
    """Carry the change to somebody's machine, let them sign it there, and carry it back."""
    there = home(site, name)
    carried = shutil.copy(change, there / change.name)
    key, root = f"file:{there / 'mine.pem'}", str(there / "root.json")
    code = main(["trust", "sign", str(carried), "--key", key, "--root", root, "--yes"])
    shutil.copy(carried, change)
    return code


def seen_by_pod(site: Site, pinned: bytes) -> TrustedRoot:
    return load(pinned, read_trust(site.root.parent).since(1), now=time_now())


class Served(FetcherInterface):
    """Hands a site's documents to python-tuf's client."""

    def __init__(self, trust: TrustSet) -> None:
        self.files = trust.files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rsplit("/", 1)[-1]
        if name not in self.files:
            raise DownloadHTTPError(f"{name} is not here", 404)
        yield self.files[name]


def seen_by_python_tuf(site: Site, pinned: bytes, folder: Path) -> dict[str, Any]:
    """Refresh python-tuf's own client from the pinned root; returns its root."""
    folder.mkdir(exist_ok=True)
    peer = Updater(
        str(folder),
        "https://served.test/",
        fetcher=Served(read_trust(site.root.parent)),
        config=UpdaterConfig(prefix_targets_with_hash=False),
        bootstrap=pinned,
    )
    peer.refresh()
    found: dict[str, Any] = json.loads((folder / "root.json").read_bytes())["signed"]
    return found


def test_one_holder_alone_changes_nothing_and_two_do(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned = site.root.read_bytes()
    before = read_trust(site.root.parent)
    assert site.kgate("keys", "generate", "approve", "--no-passphrase") == 4
    said = capsys.readouterr().err
    assert "nothing has changed yet: targets.json has 1 of the 2 signatures" in said
    assert read_trust(site.root.parent) == before
    change = waiting(site)
    assert site.kgate("trust", "publish", str(change)) == 4
    assert sign(site, "bob", change) == 0
    shown = capsys.readouterr()
    assert "is known for approve" in shown.err
    assert "Signed, and enough." in shown.out
    assert site.kgate("trust", "publish", str(change)) == 0
    assert "Published." in capsys.readouterr().out
    assert not change.exists()
    pem = (site.folder / "keys" / "approve.pem").read_bytes()
    made = FileKey.from_pem(pem, None).public_key().keyid
    assert made in {key.public.keyid for key in seen_by_pod(site, pinned).keys.values()}


def test_the_root_rolls_with_two_of_three_and_pods_follow(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned = site.root.read_bytes()
    seen_by_python_tuf(site, pinned, tmp_path / "tuf")
    before = seen_by_pod(site, pinned).versions
    old = FileKey.from_pem((site.folder / "keys" / "root.pem").read_bytes(), None).public_key()
    assert site.kgate("keys", "rotate", "root") == 4
    assert "root.json has 1 of the 2 signatures" in capsys.readouterr().err
    assert site.kgate("trust", "refresh") == 0  # the timestamp goes on meanwhile
    change = waiting(site)
    assert sign(site, "cid", change) == 0
    assert f"the key {old.keyid[:16]}… speaks for root no more" in capsys.readouterr().err
    assert site.kgate("trust", "publish", str(change)) == 0
    now = seen_by_pod(site, pinned).versions
    assert now.root == before.root + 1
    now.check_not_older(before)
    # The new key has the name that kgate.yaml knows, and the old one lies beside it.
    new = FileKey.from_pem((site.folder / "keys" / "root.pem").read_bytes(), None).public_key()
    assert new.keyid != old.keyid
    assert (site.folder / "keys" / f"root.{old.keyid[:8]}.pem").exists()
    root = seen_by_python_tuf(site, pinned, tmp_path / "tuf")
    assert root["roles"]["root"]["threshold"] == 2
    assert new.keyid in root["roles"]["root"]["keyids"]
    # And a second roll from there, begun by the new key and signed by the other holder.
    assert site.kgate("keys", "rotate", "root") == 4
    change = waiting(site)
    assert sign(site, "bob", change) == 0
    assert site.kgate("trust", "publish", str(change)) == 0
    assert seen_by_pod(site, pinned).versions.root == before.root + 2
    assert seen_by_python_tuf(site, pinned, tmp_path / "tuf")["version"] == before.root + 2
    assert site.sync().denied == 0


def test_a_holder_who_lost_the_key_is_replaced_by_the_two_others(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned = site.root.read_bytes()
    lost = FileKey.from_pem((home(site, "cid") / "mine.pem").read_bytes(), None).public_key()
    dora = home(site, "dora")
    dora.mkdir()
    key = str(dora / "mine.pem")
    assert main(["keys", "generate", "root", "--out", key, "--no-passphrase"]) == 0
    public = str(dora / "mine.pub.pem")
    assert site.kgate("keys", "add", "root", public, "--replace", lost.keyid[:16]) == 4
    change = waiting(site)
    capsys.readouterr()
    assert sign(site, "cid", change) == 0  # the old root still counts cid: it may agree as well
    assert sign(site, "bob", change) == 0
    assert site.kgate("trust", "publish", str(change)) == 0
    seen_by_pod(site, pinned)
    # From now on dora counts and cid does not.
    assert site.kgate("trust", "renew") == 4
    change = waiting(site)
    assert sign(site, "cid", change) == 4
    shutil.copy(home(site, "bob") / "root.json", dora / "root.json")
    assert site.kgate("trust", "publish", str(change)) == 4
    assert sign(site, "dora", change) == 0
    assert site.kgate("trust", "publish", str(change)) == 0


def test_a_revocation_counts_for_the_mirror_before_the_second_holder_has_signed(
    site: Site,
) -> None:
    pinned = site.root.read_bytes()
    (manifest,) = site.manifests()
    assert site.kgate("revoke", REPO, "--reason", "CVE-2026-31337") == 4
    assert set(read_withheld(site.root.parent)) == {manifest}
    assert seen_by_pod(site, pinned).revoked_digests == {}
    change = waiting(site)
    assert sign(site, "bob", change) == 0
    assert site.kgate("trust", "publish", str(change)) == 0
    assert seen_by_pod(site, pinned).revoked_digests[manifest].reason == "CVE-2026-31337"
    assert read_withheld(site.root.parent) == {}


def test_nobody_signs_what_was_slipped_into_the_file_or_is_of_another_site(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("trust", "renew") == 4
    change = waiting(site)
    good = change.read_bytes()
    # Somebody edits the documents that the change starts from: the pinned root does not sign them.
    document = json.loads(good)
    document["base"]["targets.json"] = document["base"]["targets.json"].replace(
        '"enforce"', '"observe"'
    )
    change.write_text(json.dumps(document), encoding="utf-8")
    capsys.readouterr()
    assert sign(site, "bob", change) == 4
    assert "targets.json version 1 has 0 valid signatures" in capsys.readouterr().err
    # Somebody edits what is to be signed: the person reads it, and the first signature is void.
    document = json.loads(good)
    document["drafted"]["targets.json"] = document["drafted"]["targets.json"].replace(
        '"enforce"', '"observe"'
    )
    change.write_text(json.dumps(document), encoding="utf-8")
    assert sign(site, "bob", change) == 0
    assert "lane experimental: mode is observe" in capsys.readouterr().err
    assert site.kgate("trust", "publish", str(change)) == 4
    # A key of nobody, twice the same key, a root of another site.
    change.write_bytes(good)
    stranger = FileKey.generate()
    with pytest.raises(TrustError, match="signs no trust metadata"):
        Pending.from_json(good).signed_by((stranger,))
    assert sign(site, "bob", change) == 0
    assert sign(site, "bob", change) == 1
    assert "has signed this change already" in capsys.readouterr().err
    other = Site.found(tmp_path / "other", CONNECTED)
    shutil.copy(other.root, home(site, "cid") / "root.json")
    assert sign(site, "cid", change) == 4
    assert "is not the pinned one" in capsys.readouterr().err


def test_a_change_that_was_overtaken_is_not_published(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.kgate("keys", "generate", "approve", "--no-passphrase") == 4
    first = waiting(site).rename(site.folder / "first.json")
    assert site.kgate("keys", "generate", "bundle", "--no-passphrase") == 4
    second = waiting(site)
    for change in (first, second):
        assert sign(site, "bob", change) == 0
    assert site.kgate("trust", "publish", str(first)) == 0
    capsys.readouterr()
    assert site.kgate("trust", "publish", str(second)) == 1
    assert "have changed since this was prepared" in capsys.readouterr().err


def test_a_site_with_one_holder_becomes_one_with_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site.found(tmp_path / "site", CONNECTED)
    pinned = site.root.read_bytes()
    bob = home(site, "bob")
    bob.mkdir()
    shutil.copy(site.root, bob / "root.json")
    key = str(bob / "mine.pem")
    assert main(["keys", "generate", "root", "--out", key, "--no-passphrase"]) == 0
    public = str(bob / "mine.pub.pem")
    assert site.kgate("keys", "add", "root", public, "--threshold", "3") == 4
    assert "3 of 2 holders can never agree" in capsys.readouterr().err
    assert site.kgate("keys", "add", "root", public, "--threshold", "2") == 4
    change = waiting(site)
    assert sign(site, "bob", change) == 0
    assert "root needs 2 signatures instead of 1" in capsys.readouterr().err
    assert site.kgate("trust", "publish", str(change)) == 0
    assert seen_by_pod(site, pinned).versions.root == 2
    assert site.kgate("trust", "renew") == 4


def test_a_waiting_rotation_of_a_signing_key_takes_the_known_name_once_published(
    site: Site,
) -> None:
    path = site.folder / "keys" / "admit.pem"
    old = FileKey.from_pem(path.read_bytes(), None).public_key().keyid
    assert site.kgate("keys", "rotate", "admit", "--overlap", "7") == 4
    assert FileKey.from_pem(path.read_bytes(), None).public_key().keyid == old
    change = waiting(site)
    assert sign(site, "bob", change) == 0
    assert site.kgate("trust", "publish", str(change)) == 0
    assert FileKey.from_pem(path.read_bytes(), None).public_key().keyid != old
    site.add_file("more.py", b"MORE = 1\n")
    assert site.sync().approved == 1


@pytest.mark.parametrize("holders", [(1, 2), (10, 1)])
def test_holders_who_can_never_agree_found_no_site(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], holders: tuple[int, int]
) -> None:
    count, threshold = (str(number) for number in holders)
    holding = ("--root-keys", count, "--root-threshold", threshold)
    code = main(["init", str(tmp_path / "site"), "--no-passphrase", *holding])
    assert code in {2, 4}
    assert capsys.readouterr().err
    assert not (tmp_path / "site" / "kgate.yaml").exists()
