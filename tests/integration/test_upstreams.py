"""Upstreams through proxies and private CAs, slow, gone, rate-limiting; several of them at once."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
import stamina

from kgate_core.errors import InvalidInput, TrustError, UpstreamError
from kgate_core.kernel import KernelRef
from kgate_mirror_server.app import Mirror
from kgate_mirror_server.examples import default_cache
from kgate_mirror_server.examples.build import build_gelu_and_mul
from kgate_mirror_server.hubsim import HubSimulator, Status
from kgate_mirror_server.ingest.sync import new_source
from kgate_mirror_server.settings.site import Pin, load_config
from kgate_mirror_server.upstream.requests import Retryable, _pause, _retry_after
from kgate_signer.predicates import UpstreamVerdict
from tests.ingestkit import Site, make_site
from tests.proxykit import Proxy, Swallower, TlsFront, private_ca
from tests.repos import copy_repo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kgate_mirror_server.ingest.sync import SyncResult

REPO = "kernels-community/gelu-and-mul"
PIN = f"repo: {REPO}, version: 1"


@pytest.fixture(scope="module")
def plain() -> Path:
    return build_gelu_and_mul(default_cache(os.environ), native=False, cuda=False)


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _fast_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with stamina.set_testing(True, attempts=3, cap=True):  # no waits between attempts
        yield


def site_for(folder: Path, url: str, **options: object) -> Site:
    """Found a site whose upstream has these options, and pin the kernel."""
    site = make_site(folder, url)
    site.pin(PIN)
    fields = "".join(f", {name}: {value}" for name, value in options.items())
    replace(site, f"upstream: {url}", f"upstream: {{url: '{url}'{fields}}}")
    return site


def replace(site: Site, old: str, new: str) -> None:
    text = site.config_path.read_text(encoding="utf-8")
    assert old in text
    site.config_path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_kernel_comes_in_through_a_proxy(hub: HubSimulator, plain: Path, tmp_path: Path) -> None:
    hub.publish(REPO, plain)
    with Proxy() as proxy:
        site = site_for(tmp_path / "site", hub.url, proxy=proxy.url)
        assert site.sync().approved == 1
        assert {line.split(" ")[1].startswith(hub.url) for line in proxy.taken} == {True}


def test_hosts_under_no_proxy_are_asked_directly(
    hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, plain)
    with Swallower() as proxy:
        site = site_for(tmp_path / "site", hub.url, proxy=proxy.url, no_proxy="[127.0.0.1]")
        assert site.sync().approved == 1
        assert proxy.taken == []


def test_a_hub_with_a_private_ca_is_believed_by_its_ca_file_alone(
    hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, plain)
    certificate, key = private_ca(tmp_path)
    port = int(hub.url.rpartition(":")[2])
    with TlsFront(backend=port, certificate=certificate, key=key) as front, Proxy() as proxy:
        url = f"https://127.0.0.1:{front.port}"
        site = site_for(tmp_path / "without", url)
        with pytest.raises(UpstreamError, match=r"CERTIFICATE_VERIFY_FAILED|certificate"):
            site.sync()
        site = site_for(tmp_path / "with", url, ca_file=certificate, proxy=proxy.url)
        assert site.sync().approved == 1
        assert {line.split(" ")[0] for line in proxy.taken} == {"CONNECT"}
    site = site_for(tmp_path / "broken", url, ca_file=key)
    with pytest.raises(TrustError, match="cannot be used"):
        site.sync()


def test_a_proxy_that_swallows_everything_is_given_up_in_bounded_time(
    hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, plain)
    with Swallower() as proxy:
        site = site_for(tmp_path / "site", hub.url, proxy=proxy.url, timeout=0.3)
        start = time.monotonic()
        with pytest.raises(UpstreamError, match="did not answer in"):
            site.lock()
        assert time.monotonic() - start < 10
        assert len(proxy.taken) == 3


def test_a_rate_limit_is_waited_for_as_long_as_the_hub_asks(
    hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, plain)
    site = site_for(tmp_path / "site", hub.url)
    hub.inject(Status(429, retry_after=7), times=1)
    assert site.sync().approved == 1
    assert _pause(Retryable("HTTP 429", 7.0)) == pytest.approx(7.0)
    assert _pause(Retryable("HTTP 503")) is True
    assert _pause(ValueError()) is False
    assert _retry_after("7") == pytest.approx(7.0)
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == pytest.approx(0.0)
    assert _retry_after("soon") is None


def test_a_rate_limit_longer_than_anybody_waits_is_an_answer(
    hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, plain)
    site = site_for(tmp_path / "site", hub.url)
    hub.inject(Status(429, retry_after=3600))
    with pytest.raises(UpstreamError, match="to come back in 3600 s"):
        site.lock()
    assert hub.count() == 1


def test_the_token_of_a_variable_goes_to_its_upstream(
    hub: HubSimulator, plain: Path, tmp_path: Path
) -> None:
    hub.publish(REPO, plain)
    site = site_for(tmp_path / "site", hub.url, token_env="HUB_TOKEN")
    config = load_config(site.config_path)
    with pytest.raises(TrustError, match="HUB_TOKEN is not set"):
        _ = Mirror(config).upstream
    upstream = Mirror(config, environment={"HUB_TOKEN": "hf_secret\n"}).upstream
    upstream.versions(KernelRef.parse(REPO))
    assert {request.token for request in hub.requests} == {"hf_secret"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("deny: ['kernels-community/*']", "matches 'kernels-community/\\*' under deny"),
        ("allow: ['acme/*']", "matches nothing under allow"),
        ("token_file: t, token_env: T", "not both"),
        ("proxy: 'socks5://x'", "a proxy is http"),
    ],
)
def test_an_upstream_gives_only_what_its_lists_let_in(
    tmp_path: Path, options: str, said: str
) -> None:
    site = make_site(tmp_path / "site", "https://hub.test")
    site.pin(PIN)
    replace(site, "upstream: https://hub.test", f"upstream: {{url: 'https://hub.test', {options}}}")
    with pytest.raises(InvalidInput, match=said):
        load_config(site.config_path)


def routed(tmp_path: Path, first: str, second: str) -> Site:
    """Found a site with two upstreams."""
    site = make_site(tmp_path / "site", first)
    with site.config_path.open("a", encoding="utf-8") as file:
        file.write(f"upstreams:\n  own: {{url: '{second}', publishers: []}}\n")
    return site


def test_pins_come_from_the_upstream_that_they_name(plain: Path, tmp_path: Path) -> None:
    with HubSimulator() as public, HubSimulator() as own:
        public.publish(REPO, plain)
        own.publish("acme/gelu", plain)
        site = routed(tmp_path, public.url, own.url)
        site.pin(PIN, "repo: acme/gelu, version: 1, upstream: own")
        assert trust(site) == 0
        result = site.sync()
        assert origins(site, result) == {REPO: public.url, "acme/gelu": own.url}
        assert not public.count("*acme*")
        assert not own.count("*kernels-community*")
        site.pin("repo: acme/gelu, version: 1, upstream: nobody")
        with pytest.raises(InvalidInput, match=r"no upstream 'nobody' .*there is own"):
            load_config(site.config_path)


def trust(site: Site) -> int:
    from kgate_cli.main import main

    return main(["trust", "update", "--config", str(site.config_path)])


def origins(site: Site, result: SyncResult) -> dict[str, str]:
    assert not result.failures
    with site.mirror() as mirror:
        return {str(item.repo): item.origin for item in mirror.catalog.publications()}


def test_whose_signatures_count_is_said_for_each_upstream(plain: Path, tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", "./public")
    own = "org: acme, repository: 'https://git.test/acme', workflows: ['https://git.test/w@main']"
    with site.config_path.open("a", encoding="utf-8") as file:
        file.write(f"upstreams:\n  own: {{url: ./own, publishers: [{{{own}}}]}}\n")
    for place, org in (("public", "acme"), ("own", "acme"), ("own", "kernels-community")):
        repo = copy_repo(plain, site.folder / place / org / "gelu-and-mul")
        for variant in (repo / "build").iterdir():
            (variant / "metadata.json.sigstore").write_text("{}", encoding="utf-8")
    verdicts = {}
    for upstream, org in ((None, "acme"), ("own", "acme"), ("own", "kernels-community")):
        pin = Pin(repo=f"{org}/gelu-and-mul", version=1, upstream=upstream)
        with site.mirror() as mirror:
            source = new_source(mirror, lambda _count: None).of(pin)
            (described,) = source.describe(pin, source.commit(pin)).values()
            verdicts[upstream, org] = mirror.check_publisher(pin, described.manifest).verdict
    assert verdicts == {
        (None, "acme"): UpstreamVerdict.NOT_CHECKED,  # nobody said whose count there
        ("own", "acme"): UpstreamVerdict.REJECTED,  # somebody did, and this is no signature
        ("own", "kernels-community"): UpstreamVerdict.NOT_CHECKED,  # not even those built in
    }
