"""Every example of docs/policy.md is run: policies are read and tested, errors are those shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from kgate_core.errors import InvalidInput
from kgate_mirror_server.settings.site import load_config
from kgate_policy import builtin_profile, evaluate, load_exceptions, load_policy
from kgate_policy.cel.functions import NAMES
from kgate_policy.exceptions import MAX_DAYS
from kgate_policy.expressions.tenants import WorkerLimits
from kgate_policy.lint import files
from kgate_policy.pages import policy_page
from kgate_policy.samples import sample_evidence
from kgate_policy.unittests import load_cases, run_cases
from tests.policykit import NOW

PAGE = Path(__file__).parents[3] / "docs" / "policy.md"
TEXT = PAGE.read_text()


@dataclass(frozen=True)
class Block:
    """One fenced block: what it is, its text, and where it begins."""

    kind: str
    text: str
    line: int


BLOCKS = [
    Block(match[1], match[2], TEXT.count("\n", 0, match.start()) + 1)
    for match in re.finditer(r"^```(.+)\n((?:.*\n)*?)^```$", TEXT, re.MULTILINE)
]
EXAMPLES = [
    (block, BLOCKS[index + 1] if BLOCKS[index + 1].kind == "text error" else None)
    for index, block in enumerate(BLOCKS)
    if block.kind == "yaml"
]


@pytest.mark.parametrize(
    ("example", "error"), EXAMPLES, ids=[f"line {block.line}" for block, _ in EXAMPLES]
)
def test_an_example_does_what_the_page_says(example: Block, error: Block | None) -> None:
    data = example.text.encode()
    if error is not None:
        with pytest.raises(InvalidInput) as caught:
            load_policy(data)
        assert caught.value.message == error.text.rstrip("\n")
        return
    policy = load_policy(data)
    for result in run_cases(load_cases(data), policy, now=NOW):
        assert not result.complaints, f"{result.case.name}: {result.complaints}"


def test_there_are_recipes_and_each_is_tested() -> None:
    working = [block for block, error in EXAMPLES if error is None]
    assert len(working) >= 9
    assert all("kind: PolicyTest" in block.text for block in working)


def test_the_exception_can_be_read() -> None:
    (block,) = [block for block in BLOCKS if block.kind == "yaml exception"]
    (exception,) = load_exceptions(block.text.encode())
    assert exception.digest == sample_evidence().manifest.digest
    unsigned = sample_evidence(imported={"upstreamSignature": {"status": "missing"}})
    decision = evaluate(unsigned, builtin_profile("production"), now=NOW, exceptions=[exception])
    assert decision.allowed


def test_the_transcript_of_an_explanation_is_the_real_one() -> None:
    assert [block.kind for block in BLOCKS].count("text explain") == 1
    assert policy_page(TEXT) == TEXT


def test_the_sites_of_the_page_can_be_read(tmp_path: Path) -> None:
    configs = []
    for block in BLOCKS:
        if block.kind == "yaml site":
            (tmp_path / "kgate.yaml").write_text(block.text)
            configs.append(load_config(tmp_path / "kgate.yaml"))
    lanes, tenants, fleet, images = configs
    assert lanes.lanes["production"].profile == "production"
    assert lanes.lanes["experimental"].policy == Path("policy/experimental.yaml")
    assert [(item.name, item.repos) for item in tenants.tenants] == [("team-a", ("acme/*",))]
    assert images.targets[0].device_images == Path("images/vllm.json")
    assert [item.gpus for item in fleet.targets] == [("sm_90", "sm_100"), ("gfx942",), ()]
    assert fleet.events.token_file == Path("keys/webhook.token")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("src/app.py", True),
        ("deploy/pod.yaml", True),
        ("model/config.json", True),
        ("Dockerfile.gpu", True),
        ("images/base.Containerfile", True),
        ("package.json", False),
        ("notes.md", False),
    ],
)
def test_the_hook_of_the_page_is_there_and_reads_what_lint_reads(name: str, read: bool) -> None:  # noqa: FBT001  # a parameter
    (block,) = [block for block in BLOCKS if block.kind == "yaml hook"]
    (wanted,) = yaml.safe_load(block.text)["repos"][0]["hooks"]
    (hook,) = yaml.safe_load((PAGE.parents[1] / ".pre-commit-hooks.yaml").read_text())
    assert hook["id"] == wanted["id"]
    assert hook["additional_dependencies"] == [".[cli]"]  # without it the hook is a pod's kgate
    assert (re.search(hook["files"], name) is not None) is read
    assert (files._kind(name) is not None) is read


def test_every_function_is_named() -> None:
    assert [name for name in NAMES if f"`{name}`" not in TEXT] == []


def test_the_limits_are_those_of_the_code() -> None:
    limits = WorkerLimits()
    assert f"{limits.seconds * 1000:.0f} ms, {limits.memory // 1024**2} MiB" in TEXT
    assert f"| an exception | {MAX_DAYS} days |" in TEXT
