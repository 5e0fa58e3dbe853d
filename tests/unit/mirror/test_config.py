from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kgate_core.errors import InvalidInput
from kgate_mirror_server.settings.site import Config, load_config

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "5b1c0f2e9a7d4c3b8e6f1a2d3c4b5a69788f9e0d"
HEAD = "apiVersion: kgate.dev/v1\nupstream: https://hub.test\n"


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "kgate.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def refused(tmp_path: Path, text: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, text)
    return caught.value


def test_a_small_file_gets_sensible_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, HEAD)
    assert config.kernels == ()
    assert config.upstream.identity == "https://hub.test"
    assert (config.lane, config.serve.host, config.on_moved) == (
        "experimental",
        "127.0.0.1",
        "report",
    )
    assert config.path("keys") == tmp_path / "keys"


def test_pins_name_a_version_or_a_commit(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        f"{HEAD}kernels:\n  - {{repo: acme/relu, version: 1}}\n"
        f"  - {{repo: acme/gelu, revision: {COMMIT}, lane: production}}\n",
    )
    assert [str(pin) for pin in config.kernels] == ["acme/relu@v1", f"acme/gelu@{COMMIT}"]
    assert [config.lane_of(pin) for pin in config.kernels] == ["experimental", "production"]


def test_a_branch_where_a_commit_is_needed_is_refused_with_its_line(tmp_path: Path) -> None:
    error = refused(tmp_path, f"{HEAD}kernels:\n  - repo: acme/relu\n    revision: main\n")
    assert "kgate.yaml, line 5, kernels.0.revision" in error.message
    assert "40 lower-case hex digits" in error.message


@pytest.mark.parametrize(
    "pin", ["repo: acme/relu", f"repo: a/b\n    version: 1\n    revision: {COMMIT}"]
)
def test_a_pin_needs_exactly_one_of_version_and_revision(tmp_path: Path, pin: str) -> None:
    error = refused(tmp_path, f"{HEAD}kernels:\n  - {pin}\n")
    assert "line 4" in error.message
    assert "branches and tags move" in error.message


def test_an_unknown_field_names_the_nearest_known_one(tmp_path: Path) -> None:
    error = refused(tmp_path, f"{HEAD}kernels:\n  - repo: acme/relu\n    versoin: 1\n")
    assert "line 5, kernels.0.versoin: this field is not known" in error.message
    assert error.hint == "did you mean 'version'?"


def test_an_unknown_field_that_is_near_nothing_lists_the_known_ones(tmp_path: Path) -> None:
    error = refused(tmp_path, f"{HEAD}zzz: 1\n")
    assert "line 3, zzz" in error.message
    assert "kernels" in error.hint
    assert "folder" not in error.hint


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    assert "upstream: this field is missing" in refused(tmp_path, HEAD.splitlines()[0]).message


def test_broken_yaml_names_line_and_column(tmp_path: Path) -> None:
    assert "kgate.yaml, line 3, column" in refused(tmp_path, "a: 1\nb: [1,\n").message


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, f"{HEAD}upstream: https://other.test\n")
    assert error.message == "kgate.yaml, line 3: 'upstream' stands twice"


def test_the_same_pin_twice_in_a_lane_is_refused(tmp_path: Path) -> None:
    pins = "  - {repo: acme/relu, version: 1}\n" * 2
    assert "pinned twice" in refused(tmp_path, f"{HEAD}kernels:\n{pins}").message


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_config(tmp_path / "kgate.yaml")
    assert "kgate init" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "origin"),
    [("./built", "dir:built"), ("https://hub.test/", "https://hub.test"), ("/srv/k", "dir:k")],
)
def test_an_upstream_is_an_address_or_a_folder(tmp_path: Path, url: str, origin: str) -> None:
    config = read(tmp_path, f"apiVersion: kgate.dev/v1\nupstream: {url}\n")
    assert config.upstream.identity == origin


@pytest.mark.parametrize("url", ["ftp://hub.test", "s3://bucket"])
def test_another_kind_of_upstream_is_refused(tmp_path: Path, url: str) -> None:
    error = refused(tmp_path, f"apiVersion: kgate.dev/v1\nupstream: {url}\n")
    assert "line 2" in error.message


def test_serving_and_models_are_configured_and_reach_the_server(tmp_path: Path) -> None:
    from kgate_mirror_server.app import Mirror

    config = read(
        tmp_path,
        f"{HEAD}serve: {{tokens: true, anonymous: [{{repos: ['acme/*']}}], send_file: xaccel,"
        " shim_required: [production], tls: {certificate: c.pem, key: k.pem}}\n"
        "models: {delegate: https://hub.internal/, token_file: t}\n",
    )
    settings = Mirror(config).serve_settings(port=9999)
    assert (settings.port, settings.access.tokens) == (9999, True)
    assert settings.access.anonymous[0].repos == ("acme/*",)
    assert settings.marked_lanes == {"production"}
    assert settings.tls is not None
    assert settings.tls.key == tmp_path / "k.pem"
    assert settings.delegate is not None
    assert settings.delegate.url == "https://hub.internal"


def test_anonymous_readers_without_tokens_make_no_sense(tmp_path: Path) -> None:
    error = refused(tmp_path, f"{HEAD}serve: {{anonymous: [{{repos: ['*']}}]}}\n")
    assert "everybody sees everything" in error.message


def test_an_unknown_field_of_the_server_names_the_nearest(tmp_path: Path) -> None:
    assert refused(tmp_path, f"{HEAD}serve: {{prot: 1}}\n").hint == "did you mean 'port'?"


def test_aliases_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, f"{HEAD}kernels: &a []\npolicy: *a\n")
    assert error.message == "kgate.yaml, line 4: the alias *a is not allowed"
