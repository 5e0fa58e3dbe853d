from __future__ import annotations

from dataclasses import replace

import pytest

from kgate_core.errors import InvalidInput
from kgate_core.kernel import (
    WHOLE,
    Framework,
    KernelId,
    KernelRef,
    RepoType,
    Revision,
    Variant,
    check_origin,
    folder_of,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KERNEL = KernelId(
    "https://huggingface.co",
    RepoType.KERNEL,
    KernelRef("kernels-community", "relu"),
    Revision(COMMIT),
    "torch213-cxx11-cu130-x86_64-linux",
)
PURL = (
    f"pkg:huggingface/kernels-community/relu@{COMMIT}"
    "?repository_url=https%3A%2F%2Fhuggingface.co&type=kernel"
    "#build/torch213-cxx11-cu130-x86_64-linux"
)


@pytest.mark.parametrize("text", ["a/b", "kernels-community/relu", "A.b_c-1/x" + "y" * 94 + "z"])
def test_repository_names_are_read(text: str) -> None:
    assert str(KernelRef.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "relu", "a/b/c", "/b", "a/", "a /b", "a/../b", "a..b/c", "a/b--c", "-a/b", "a/b-", ".a/b",
        "a/b.", "_a/b", "a/b\n", "a/" + "b" * 97, "a%2f/b", "à/b", "\u0430/b", "a\\b/c",
        "a/b@v1", "", None,
    ],
)  # fmt: skip
def test_other_repository_names_are_refused(text: object) -> None:
    with pytest.raises(InvalidInput, match="not a repository name") as caught:
        KernelRef.parse(text)  # type: ignore[arg-type]  # hostile on purpose
    assert caught.value.hint


def test_a_repository_name_is_text() -> None:
    with pytest.raises(InvalidInput):
        KernelRef("a", 1)  # type: ignore[arg-type]  # hostile on purpose


def test_a_revision_is_a_commit_and_never_a_pin() -> None:
    assert str(Revision(COMMIT)) == COMMIT
    assert Revision(COMMIT).short == "0123456789ab"
    for text in ("main", "v1", COMMIT[:-1], COMMIT.upper(), COMMIT + "\n", f" {COMMIT[1:]}", None):
        with pytest.raises(InvalidInput, match="not a commit"):
            Revision(text)  # type: ignore[arg-type]  # hostile on purpose


@pytest.mark.parametrize(
    ("framework_text", "framework", "version", "abi"),
    [
        ("torch213-cxx11", Framework.TORCH, (2, 13), True),
        ("torch26-cxx98", Framework.TORCH, (2, 6), False),
        ("torch210", Framework.TORCH, (2, 10), None),
        ("torch-stable-abi211", Framework.TORCH_STABLE_ABI, (2, 11), None),
        ("tvm-ffi01", Framework.TVM_FFI, (0, 1), None),
    ],
)
@pytest.mark.parametrize(
    ("backend_text", "backend", "backend_version"),
    [
        ("cu130", "cuda", (13, 0)),
        ("cu118", "cuda", (11, 8)),
        ("rocm64", "rocm", (6, 4)),
        ("xpu20252", "xpu", (2025, 2)),
        ("cann85", "cann", (8, 5)),
        ("cpu", "cpu", None),
        ("metal", "metal", None),
        ("neuron", "neuron", None),
        ("tpu", "tpu", None),
    ],
)
def test_variants_for_one_machine_are_read(
    framework_text: str,
    framework: Framework,
    version: tuple[int, int],
    abi: bool | None,  # noqa: FBT001  # a column of the table
    backend_text: str,
    backend: str,
    backend_version: tuple[int, int] | None,
) -> None:
    text = f"{framework_text}-{backend_text}-x86_64-linux"
    found = Variant.parse(text)
    assert found == Variant(
        text, framework, version, abi, backend, backend_version, "x86_64", "linux"
    )
    assert str(found) == text
    assert not found.noarch


@pytest.mark.parametrize(
    "backend",
    ["cpu", "cuda", "rocm", "xpu", "npu", "cann", "metal", "neuron", "tpu", "universal"],
)
def test_variants_without_a_machine_are_read(backend: str) -> None:
    found = Variant.parse(f"torch-{backend}")
    assert found.noarch
    assert (found.backend, found.framework_version, found.os) == (backend, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "", "torch", "torch-", "torch-x86", "torch-cpu-x86_64-linux", "torch-stable-abi",
        "torch-stable-abi2-cu130-x86_64-linux", "torch213", "torch213-cu130-x86_64",
        "torch213-cxx17-cu130-x86_64-linux", "torch213-cxx11-cu1-x86_64-linux",
        "torch213-cxx11-cuda130-x86_64-linux", "torch213-cxx11-cu130-x86_64-linux-musl",
        "torch213-cxx11-cu130-X86-linux", "torch213-cxx11-cu130-x86_64-",
        "tvm-ffi-cu130-x86_64-linux", "jax213-cu130-x86_64-linux",
        "torch213-cxx11-cu130-../etc-linux", "torch213-cxx11-cu130-x86_64-linux\n",
        "torch\uff1213-cxx11-cu130-x86_64-linux", "torch213-cxx11-cu13\u0660-x86_64-linux",
        "torch" + "1" * 130 + "-cu130-x86_64-linux", None, 7,
    ],
)  # fmt: skip
def test_other_variants_are_refused(text: object) -> None:
    with pytest.raises(InvalidInput, match="not a build variant"):
        Variant.parse(text)  # type: ignore[arg-type]  # hostile on purpose


def test_the_package_url_of_a_kernel_says_everything_and_is_read_back() -> None:
    assert KERNEL.purl == PURL
    assert KernelId.parse_purl(PURL) == KERNEL
    model = replace(KERNEL, repo_type=RepoType.MODEL)
    folder = replace(KERNEL, origin="dir:built")
    assert KernelId.parse_purl(model.purl) == model
    assert KernelId.parse_purl(folder.purl) == folder


@pytest.mark.parametrize(
    "text",
    [
        PURL.replace("huggingface/", "hf/"),
        PURL.replace(COMMIT, "main"),
        PURL.replace("%3A", "%3a"),
        PURL.replace("type=kernel", "type=dataset"),
        PURL.replace("&type=kernel", ""),
        PURL.replace("repository_url=https%3A%2F%2Fhuggingface.co&type=kernel", "type=kernel"),
        PURL.replace("https%3A", "ftp%3A"),
        PURL.replace("kernels-community", "kernels%2Dcommunity"),
        PURL.replace("#build/", "#build/../"),
        PURL + "/x",
        PURL + "\n",
        "",
    ],
)
def test_every_other_spelling_of_a_package_url_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        KernelId.parse_purl(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co", "http://127.0.0.1:8800", "https://mirror.test/l/production",
        "https://[::1]:8443", "dir:built", "dir:my.kernels_1",
    ],
)  # fmt: skip
def test_origins_are_read(text: str) -> None:
    assert check_origin(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "huggingface.co", "ftp://host", "https://", "https://host/", "https://host?x=1",
        "https://host#x", "https://user@host", "https://u:p@host", " https://host",
        "https://host ", "https://ho\nst", "https://ho\tst", "https://ho st", "https://hóst",
        "https://[::1", "https://host:x", "https://host:99999", "https://host:0", "dir:",
        "dir:/etc", "dir:../x", "dir://x", "dir:a?b=c", "dir:a#b", "DIR:a", "https:///path",
    ],
)  # fmt: skip
def test_other_origins_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not an upstream origin"):
        check_origin(text)
    with pytest.raises(InvalidInput):
        replace(KERNEL, origin=text)


def test_a_model_is_the_whole_repository_and_a_kernel_never_is() -> None:
    model = replace(KERNEL, repo_type=RepoType.MODEL, variant=WHOLE)
    assert model.purl == PURL.partition("#")[0].replace("type=kernel", "type=model")
    assert KernelId.parse_purl(model.purl) == model
    assert (folder_of(WHOLE), folder_of("torch-cpu")) == ("", "build/torch-cpu/")
    for text in (PURL.partition("#")[0], f"{model.purl}#", f"{model.purl}#build/"):
        with pytest.raises(InvalidInput):
            KernelId.parse_purl(text)
    with pytest.raises(InvalidInput, match="not a build variant"):
        replace(KERNEL, variant=WHOLE)
