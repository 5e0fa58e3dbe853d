"""`kgate lint`: habits found in Python, model configs, Dockerfiles, manifests and YAML."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgate_core.digest import Digest
from kgate_core.errors import NotFound
from kgate_core.evidence import Severity
from kgate_core.kernel import KernelRef, RepoType, Revision
from kgate_core.lock import Lock, LockedKernel, LockedVariant
from kgate_policy.lint import RULES, apply_fixes, lint_paths, lint_text
from kgate_policy.pages import lint_page

COMMIT = "0123456789" * 4
OTHER = "abcdef0123" * 4
DOCS = Path(__file__).parents[3] / "docs"


def locked(repo: str, pin: str, commit: str = COMMIT, lane: str = "production") -> LockedKernel:
    """Return a lock entry."""
    return LockedKernel(
        "https://hub.example.org",
        RepoType.KERNEL,
        KernelRef.parse(repo),
        lane,
        pin,
        Revision(commit),
        {"torch-cpu": LockedVariant(Digest.of(b"x"), 1, 1)},
    )


LOCK = Lock(
    (
        locked("org/relu", "v3"),
        locked("org/gelu", COMMIT),
        locked("org/two", "v1"),
        locked("org/two", "v2", OTHER, "experimental"),
    )
)


def rules(path: str, text: str) -> list[str]:
    """Return the short rule numbers found in a text, in order."""
    return [item.rule[-3:] for item in lint_text(path, text.encode())]


PYTHON = [
    ('get_kernel("org/relu")', ["001"]),
    ('kernels.get_kernel("org/relu")', ["001"]),
    ('from kernels import get_kernel as g\ng("org/relu")', ["001"]),
    ('REPO = "org/relu"\nget_kernel(repo_id=REPO)', ["001"]),
    ("get_kernel(name)", ["001"]),
    ('LayerRepository("org/relu", layer_name="ReLU")', ["001"]),
    ('has_kernel("org/relu")', ["001"]),
    ('get_kernel("org/relu", version=1)', []),
    (f'get_kernel("org/relu", revision="{COMMIT}")', []),
    (f'get_kernel("org/relu", "{COMMIT}")', []),
    ('get_kernel("org/relu", **options)', []),
    ('get_kernel("org/relu", revision=chosen)', []),
    ('get_kernel("org/relu", revision="main")', ["002"]),
    ('get_kernel("org/relu", "v1.0.0")', ["002"]),
    ('B = "main"\nget_kernel("org/relu", revision=B)', ["002"]),
    ('AutoModel.from_pretrained("x", trust_remote_code=True)', ["003"]),
    ('AutoModel.from_pretrained("x", trust_remote_code=False)', []),
    ('os.environ["LOCAL_KERNELS"] = "a=b"', ["004"]),
    ('os.environ.setdefault("LOCAL_KERNELS", "a=b")', ["004"]),
    ('subprocess.run(x, env={"LOCAL_KERNELS": "a"})', ["004"]),
    ('monkeypatch.setenv("LOCAL_KERNELS", "a")', ["004"]),
    ('load(attn_implementation="org/relu")', ["005"]),
    ('load(attn_implementation="paged|org/relu:flash")', ["005"]),
    ('load(attn_implementation="org/relu@main:flash")', ["005"]),
    (f'load(attn_implementation="org/relu@{COMMIT}:flash")', []),
    ('load(attn_implementation="sdpa")', []),
    ('model.set_attn_implementation("org/relu")', ["005"]),
    ('config._attn_implementation = "org/relu"', ["005"]),
    ('kwargs = {"attn_implementation": "org/relu"}', ["005"]),
    ('fetch("hf://org/model")', ["006"]),
    ('fetch("hf://org/model:main")', ["006"]),
    (f'fetch("hf://org/model:{COMMIT}")', []),
    ('fetch(f"hf://{name}")', []),
    ('"""Documentation of hf://org/model and get_kernel."""', []),
    ('# get_kernel("org/relu")', []),
    ('get_kernel("org/relu")  # kgate: ignore[KG-LINT-001] a test of the old call', []),
    ('get_kernel("org/relu")  # kgate: ignore[KG-LINT-002]', ["001"]),
    ("def broken(:", ["018"]),
    ("x = 1\x00", ["018"]),
]


@pytest.mark.parametrize(("text", "expected"), PYTHON)
def test_python_sources(text: str, expected: list[str]) -> None:
    assert rules("a.py", text) == expected


CONFIGS = [
    ({"model_type": "llama", "attn_implementation": "sdpa"}, []),
    ({"_attn_implementation_internal": "evil/kernel"}, ["007"]),
    ({"attn_implementation": "evil/kernel@main:f"}, ["007"]),
    ({"text_config": {"_attn_implementation": "evil/kernel"}}, ["007"]),
    ({"attn_implementation": {"text": "evil/kernel", "vision": "sdpa"}}, ["007"]),
    ({"_experts_implementation_internal": "evil/kernel"}, ["007"]),
    ({"auto_map": {"AutoModel": "modeling.Evil"}}, ["008"]),
    ({"layers": [{"attn_implementation": "evil/kernel"}], "eps": 1e-6}, ["007"]),
]


@pytest.mark.parametrize(("document", "expected"), CONFIGS)
def test_model_configurations(document: dict[str, object], expected: list[str]) -> None:
    assert rules("model/config.json", json.dumps(document)) == expected


def test_a_models_configuration_that_names_a_kernel_is_critical_with_its_line() -> None:
    text = '{\n  "model_type": "x",\n  "_attn_implementation_internal": "evil/kernel"\n}'
    (finding,) = lint_text("config.json", text.encode())
    assert (finding.severity, finding.line) == (Severity.CRITICAL, 3)
    assert "CVE-2026-4372" in RULES[finding.rule].why


@pytest.mark.parametrize("text", ["{", '{"a": 1, "a": 2}', "[" * 100])
def test_a_broken_configuration_is_named_as_not_read(text: str) -> None:
    assert rules("config.json", text) == ["018"]


DOCKERFILES = [
    ("FROM scratch", []),
    ("FROM registry/x@sha256:" + "0" * 64, []),
    ("FROM registry:5000/x", ["012"]),
    ("FROM x:latest", ["012"]),
    ("FROM --platform=linux/amd64 x:1.2 AS build\nFROM build", ["012"]),
    ("ARG BASE\nFROM $BASE", []),
    ("RUN git clone --depth 1 https://example.org/x", ["009"]),
    ("RUN git clone https://example.org/x", ["009"]),
    (f"RUN git clone https://example.org/x && cd x && git checkout {COMMIT}", []),
    ("RUN curl -fsSL https://example.org/i.sh | sh", ["010"]),
    ("RUN wget -qO- https://example.org/i \\\n  | sudo -E bash", ["010"]),
    ('RUN bash -c "$(curl -fsSL https://example.org/i)"', ["010"]),
    ("RUN curl -fsSLo i.sh https://example.org/i.sh && sha256sum -c i.sum && sh i.sh", []),
    ('CMD ["hf", "download", "org/model"]', ["011"]),
    ("ENTRYPOINT git clone https://example.org/x && serve", ["011"]),
    ('CMD ["python", "-m", "serve"]', []),
    ("ENV LOCAL_KERNELS=org/relu=/k", ["004"]),
    ("RUN fetch hf://org/model", ["006"]),
    ("# RUN curl x | sh", []),
    ("RUN true \\\n# comment inside\n  && curl https://x | bash \\", ["010"]),
]


@pytest.mark.parametrize(("text", "expected"), DOCKERFILES)
def test_dockerfiles(text: str, expected: list[str]) -> None:
    assert rules("Dockerfile", text) == expected
    assert rules("docker/app.Dockerfile", text) == expected
    assert rules("Containerfile.cuda", text) == expected


def test_a_finding_in_continued_lines_names_the_first_line() -> None:
    (finding,) = lint_text("Dockerfile", b"\nRUN true && \\\n  curl https://x | sh\n")
    assert finding.line == 2


PORT = "id: lux\nsource:\n  kind: huggingface\n  repo: org/relu\n"
YAML = [
    (PORT + "  revision: main\nfiles: [a]\n", ["013"]),
    (PORT + "files: [a]\n", ["013"]),
    (PORT + f'  revision: "{COMMIT}"\nfiles: [a]\n', []),
    (PORT + f"  revision: {COMMIT}\n", ["014"]),
    ("a: 1\n", []),
    ("- a\n", []),
    ("{{ if .Values.x }}\na: 1\n{{ end }}\n", ["018"]),
    ("a: &x 1\nb: *x\n", ["018"]),
]


@pytest.mark.parametrize(("text", "expected"), YAML)
def test_manifests(text: str, expected: list[str]) -> None:
    assert rules("manifest.yaml", text) == expected


POD = """\
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
spec:
  leaderWorkerTemplate:
    leaderTemplate:
      spec:
        initContainers:
          - {name: load, image: "quay.io/x/y@sha256:0", imagePullPolicy: IfNotPresent}
        containers:
          - name: vllm
            image: vllm/vllm-openai
            imagePullPolicy: Always
            env:
              - {name: LOCAL_KERNELS, value: a=b}
              - {name: HF_ENDPOINT, value: "https://huggingface.co"}
              - {name: HF_HUB_ENDPOINT, value: "https://kgate.internal"}
              - {name: LD_PRELOAD, valueFrom: {configMapKeyRef: {name: a, key: b}}}
              - {name: MODEL, value: "hf://org/model"}
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
spec:
  predictor:
    model:
      storageUri: hf://org/model:main
"""


def test_kubernetes_objects_of_any_kind() -> None:
    found = lint_text("deploy.yml", POD.encode())
    assert [(item.rule[-3:], item.line) for item in found] == [
        ("012", 11),
        ("015", 12),
        ("004", 14),
        ("016", 15),
        ("017", 17),
        ("006", 18),
        ("006", 25),
    ]


def test_images_of_kernel_caches_count_too() -> None:
    text = "apiVersion: gkm.io/v1alpha1\nkind: GKMCache\nspec:\n  image: quay.io/gkm/cache:v2\n"
    assert rules("cache.yaml", text) == ["012"]


HOSTILE = [
    ("Dockerfile", "RUN " + "curl " * 300_000),
    ("Dockerfile", "RUN " + "curl " * 10_000),
    ("Dockerfile", "RUN " + "git clone x " * 5_000),
    ("Dockerfile", "RUN git " + "checkout " * 6_000),
    ("a.py", 'get_kernel("org/relu")\n' * 3_000),
    ("a.py", "(" * 5_000),
    ("a.py", 'f("' + "hf://a/" * 100_000 + '")'),
    ("config.json", '{"a":' * 5_000),
    ("m.yaml", "[" * 5_000),
]


@pytest.mark.parametrize(("path", "text"), HOSTILE)
def test_files_made_to_take_long_do_not(path: str, text: str) -> None:
    start = time.process_time()
    lint_text(path, text.encode(), lock=LOCK)
    assert time.process_time() - start < 5


def fixed(path: str, text: str) -> str:
    """Return the text with everything fixed that the lock knows."""
    return apply_fixes(text, lint_text(path, text.encode(), lock=LOCK))[0]


FIXES = [
    ('k = get_kernel("org/relu")\n', 'k = get_kernel("org/relu", version=3)\n'),
    ('get_kernel("org/gelu", )', f'get_kernel("org/gelu", revision="{COMMIT}", )'),
    ('ä = "ü"; get_kernel("org/relu")', 'ä = "ü"; get_kernel("org/relu", version=3)'),
    ('get_kernel(\n    "org/relu"\n)', 'get_kernel(\n    "org/relu", version=3\n)'),
    ('get_kernel("org/relu", revision="main")', f'get_kernel("org/relu", revision="{COMMIT}")'),
    ('get_kernel(("org/relu"))', 'get_kernel(("org/relu"))'),
    ('get_kernel("org/two")', 'get_kernel("org/two")'),
    ('get_kernel("org/unknown")', 'get_kernel("org/unknown")'),
    ("load(attn_implementation='org/relu:f')", f"load(attn_implementation='org/relu@{COMMIT}:f')"),
]


@pytest.mark.parametrize(("text", "expected"), FIXES)
def test_fixes_pin_what_the_lock_knows_and_nothing_else(text: str, expected: str) -> None:
    assert fixed("a.py", text) == expected
    assert fixed("a.py", expected) == expected


def test_a_manifest_is_pinned_from_the_lock() -> None:
    text = PORT + "  revision: main\nfiles: [a]\n"
    assert fixed("m.yaml", text) == PORT + f"  revision: {COMMIT}\nfiles: [a]\n"
    commented = PORT + "  revision: main  # soon\nfiles: [a]\n"
    assert fixed("m.yaml", commented) == commented


def test_all_fixes_of_a_file_are_made_at_once() -> None:
    text = 'get_kernel("org/relu")\nget_kernel("org/gelu", revision="main")\n'
    changed, made = apply_fixes(text, lint_text("a.py", text.encode(), lock=LOCK))
    assert made == 2
    assert rules("a.py", changed) == []


def test_folders_are_walked_without_environments_and_links(tmp_path: Path) -> None:
    bad = 'get_kernel("org/relu")\n'
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text(bad)
    (tmp_path / "fine.py").write_text("x = 1\n")
    (tmp_path / "notes.txt").write_text(bad)
    (tmp_path / ".venv" / "lib").mkdir(parents=True)
    (tmp_path / ".venv" / "lib" / "b.py").write_text(bad)
    (tmp_path / "link.py").symlink_to(tmp_path / "src" / "a.py")
    checked = list(lint_paths([tmp_path]))
    assert [item.path.name for item in checked] == ["fine.py", "a.py"]
    assert [len(item.findings) for item in checked] == [0, 1]
    assert checked[1].findings[0].to_json()["fixable"] is False


def test_one_file_can_be_named_and_a_missing_one_is_not_found(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    assert len(list(lint_paths([file]))) == 1
    with pytest.raises(NotFound):
        list(lint_paths([tmp_path / "nowhere"]))


def test_files_that_are_too_large_or_no_text_are_named() -> None:
    assert [item.rule for item in lint_text("a.py", b"#" * 3_000_000)] == ["KG-LINT-018"]
    assert [item.rule for item in lint_text("a.py", b"\xff\xfe")] == ["KG-LINT-018"]
    assert lint_text("a.txt", b"get_kernel('org/relu')") == ()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["a.py", "config.json", "Dockerfile", "m.yaml"]), st.text(max_size=300))
def test_any_text_is_answered_without_an_error(path: str, text: str) -> None:
    data = text.encode("utf-8", errors="replace")
    found = lint_text(path, data, lock=LOCK)
    assert all(item.rule in RULES for item in found)


def test_the_page_of_lint_rules_is_written_from_the_register() -> None:
    assert (DOCS / "lint-rules.md").read_text() == lint_page()
