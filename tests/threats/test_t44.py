"""T44: a library replaced through RUNPATH, `$ORIGIN/..` or a name that nobody ships.

What a library needs lies in the variant or on the platform list, and its search paths stay inside
the variant; the policy refuses everything else. (What is already loaded in a pod is the shim's.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kgate_policy import builtin_profile, evaluate
from tests.policykit import NOW, good_evidence
from tests.scankit import CLEAN, CPU, build_library, manifest_of, scan_bytes

if TYPE_CHECKING:
    from pathlib import Path

ATTACKS = {
    "an absolute path": (("-Wl,-rpath,/tmp/evil",), "is not relative to the library"),
    "the parent": (("-Wl,-rpath,$ORIGIN/..",), "leads out of the variant"),
    "the current directory": (("-Wl,-rpath,$ORIGIN:",), "is empty"),
    "a part that the loader fills in": (("-Wl,-rpath,$ORIGIN/$LIB",), "is filled in"),
    "the old form": (("-Wl,--disable-new-dtags,-rpath,/tmp/evil",), "is not relative"),
    "a loader hook": (("-Wl,--depaudit,libevil.so",), "has the loader tags DEPAUDIT"),
}


def denied(files: dict[str, bytes]) -> list[str]:
    report = scan_bytes(files, CPU)
    evidence = replace(good_evidence(), manifest=manifest_of(files), scan=report)
    decision = evaluate(evidence, builtin_profile("production"), now=NOW)
    return [denial.seen for denial in decision.denials if denial.rule == "closed-library-set"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_search_path_that_leaves_the_variant_is_refused(attack: str) -> None:
    flags, said = ATTACKS[attack]
    (seen,) = denied({"_relu.so": build_library(CLEAN, *flags)})
    assert said in seen


def test_a_library_that_nobody_ships_is_refused_and_one_in_the_variant_is_not(
    tmp_path: Path,
) -> None:
    helper = build_library("int helper(void) { return 1; }", "-Wl,-soname,libhelper.so.1")
    (tmp_path / "libhelper.so").write_bytes(helper)
    user = build_library(
        "int helper(void); int f(void) { return helper(); }",
        f"-L{tmp_path}",
        "-lhelper",
        "-Wl,-rpath,$ORIGIN/lib",
    )
    (seen,) = denied({"_relu.so": user})
    assert "needs libhelper.so.1" in seen
    assert denied({"_relu.so": user, "lib/libhelper.so.1": helper}) == []


def test_a_kernel_that_takes_the_place_of_the_platform_is_refused() -> None:
    source = "int connect(int s, void *a, int n) { return 0; }"
    (seen,) = denied({"_relu.so": build_library(source)})
    assert "exports connect" in seen


def test_a_needed_library_that_only_resembles_the_platform_is_refused() -> None:
    # The dynamic string table says libc.so.6; a look-alike of the same length takes its place.
    data = build_library('int puts(const char *); int f(void) { return puts(""); }')
    changed = data.replace(b"\0libc.so.6\0", b"\0libC.so.6\0", 1)
    assert changed != data
    (seen,) = denied({"_relu.so": changed})
    assert "needs libC.so.6" in seen
