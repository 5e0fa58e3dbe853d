from __future__ import annotations

from pathlib import Path

import pytest

from kgate_client.config import DEFAULT_LANE, PodConfig
from kgate_core.trust import Mode


def test_an_empty_environment_asks_for_nothing() -> None:
    assert PodConfig.from_env({}) == PodConfig()


def test_every_variable_of_the_pod_is_read() -> None:
    config = PodConfig.from_env(
        {
            "KGATE_TRUST_ROOT": "/etc/kgate/root.json",
            "KGATE_CACHE": "/var/kgate",
            "KGATE_LOCK": "/app/kgate.lock",
            "KGATE_LANE": "production",
            "KGATE_MODE": "Strict",
            "KGATE_DISABLE": "yes",
            "KGATE_REPORT": "/var/log/kgate.jsonl",
            "KGATE_WARN": "0",
            "KGATE_CANARY": "blue",
            "HF_ENDPOINT": "https://mirror.test/",
            "HF_TOKEN": "secret",
            "HF_HUB_OFFLINE": "1",
            "SSL_CERT_FILE": "/etc/ca.pem",
            "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64",
        }
    )

    assert config == PodConfig(
        trust_root=Path("/etc/kgate/root.json"),
        cache=Path("/var/kgate"),
        lock=Path("/app/kgate.lock"),
        lane="production",
        mode=Mode.STRICT,
        disable=True,
        report=Path("/var/log/kgate.jsonl"),
        warn=False,
        canary="blue",
        endpoint="https://mirror.test",
        token="secret",
        offline=True,
        ca_bundle=Path("/etc/ca.pem"),
        library_path="/usr/local/nvidia/lib64",
    )
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("environ", "cache", "token"),
    [
        (
            {"HOME": "/home/u"},
            "/home/u/.cache/huggingface/kgate",
            "/home/u/.cache/huggingface/token",
        ),
        ({"HF_HOME": "~/hf", "HOME": "/home/u"}, "/home/u/hf/kgate", "/home/u/hf/token"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/kgate", "/x/huggingface/token"),
        ({"HF_HOME": "/hf", "HF_TOKEN_PATH": "/run/token"}, "/hf/kgate", "/run/token"),
        ({"KGATE_CACHE": "/k"}, "/k", None),
    ],
)
def test_the_cache_lies_where_huggingface_hub_keeps_its_own(
    environ: dict[str, str], cache: str, token: str | None
) -> None:
    config = PodConfig.from_env(environ)

    assert config.cache == Path(cache)
    assert config.token_path == (None if token is None else Path(token))


@pytest.mark.parametrize(
    ("endpoint", "lane"),
    [
        ("https://mirror.test/l/production", "production"),
        ("https://mirror.test/hub/l/gold/", "gold"),
        ("https://mirror.test/l", DEFAULT_LANE),
        ("https://mirror.test", DEFAULT_LANE),
    ],
)
def test_the_lane_comes_from_the_endpoint_unless_it_is_named(endpoint: str, lane: str) -> None:
    assert PodConfig.from_env({"HF_ENDPOINT": endpoint}).lane == lane
    assert PodConfig.from_env({"HF_ENDPOINT": endpoint, "KGATE_LANE": "own"}).lane == "own"


def test_a_mode_that_is_none_is_taken_as_enforce_and_named() -> None:
    config = PodConfig.from_env({"KGATE_MODE": "off"})

    assert config.mode is Mode.ENFORCE
    assert config.problems == (
        "KGATE_MODE='off' is not one of observe, warn, enforce, strict: taken as enforce",
    )
