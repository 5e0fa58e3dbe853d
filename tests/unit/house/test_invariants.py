from __future__ import annotations

import ast
import builtins
import json
import subprocess
import sys
from typing import Final

from tests.unit.house.source import PARTS, ROOT, calls, every_module, imports, modules, name, tree

MAX_LINES: Final = 350
LONGER_FOR_A_REASON: Final[dict[str, str]] = {}
VAGUE: Final = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "base"}

IMPURE: Final = {
    "asyncio", "http", "logging", "multiprocessing", "os", "pathlib", "random", "secrets",
    "shutil", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip
HEAVY: Final = {
    "alembic", "click", "cyclonedx", "fastapi", "granian", "huggingface_hub", "kernels", "lief",
    "lz4", "msgpack", "numpy", "oras", "pydantic", "pydantic_settings", "requests", "rich",
    "securesystemslib", "sigstore", "sqlalchemy", "starlette", "structlog", "torch",
    "transformers", "tuf", "yaml", "zstandard",
}  # fmt: skip
BELOW: Final[dict[str, set[str]]] = {
    "core": set(),
    "client": {"core"},
    "scanner": {"core"},
    "signer": {"core"},
    "policy": {"core"},
    "mirror_server": {"core", "scanner", "signer", "policy"},
    "cli": set(PARTS) - {"cli"},
}
MAX_PORT_METHODS: Final = 5


def roots(full_names: set[str]) -> set[str]:
    return {full.split(".")[0] for full in full_names}


def test_core_is_pure_no_network_no_database_no_clock_unless_passed_in() -> None:
    wrong: list[str] = []
    for path in modules("core"):
        used = imports(path)
        beyond = roots(used) - sys.stdlib_module_names - {"cryptography", "kgate_core"}
        wrong += [f"{name(path)}: {item}" for item in (used | roots(used)) & IMPURE | beyond]
        wrong += [
            f"{name(path)}:{line}: {called}"
            for called, line in calls(path)
            if called in {"open", "print", "input"} or called.endswith((".now", ".utcnow"))
        ]
    assert wrong == []


def test_parts_point_one_way_and_siblings_never_import_each_other() -> None:
    package_of = {package: part for part, package in PARTS.items()}
    wrong = [
        f"{name(path)}: {root}"
        for part in PARTS
        for path in modules(part)
        for root in roots(imports(path))
        if root in package_of and package_of[root] not in BELOW[part] | {part}
    ]
    assert wrong == []


def test_only_the_mirror_and_two_small_clients_know_the_network() -> None:
    network = {"http.client", "urllib.request", "httpx", "httpx2", "huggingface_hub", "requests"}
    talking = {
        name(path)
        for part in set(PARTS) - {"mirror_server", "cli"}
        for path in modules(part)
        if imports(path) & network
    }
    assert talking == {
        "client/kgate_client/channel.py",
        "client/kgate_client/post.py",  # the pod asks its mirror
        "signer/kgate_signer/timestamps.py",  # the signer asks a timestamp authority
    }


def test_starting_the_shim_needs_the_standard_library_only() -> None:
    # -I -S: without site-packages whatever is not standard cannot be imported at all.
    program = (
        f"import sys; sys.path[:0] = {pod_path()}; before = set(sys.modules);"
        " import kgate_client.autoload; print(*(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "kgate_client.autoload" in result.stdout.split()


def test_the_pods_code_imports_nothing_heavier_than_cryptography() -> None:
    names = [
        ".".join(path.relative_to(ROOT / part).with_suffix("").parts)
        for part in ("core", "client")
        for path in modules(part)
        if path.stem not in {"__init__", "__main__"}
    ]
    program = (
        f"import sys; sys.path[:0] = {pod_path()}; import json, {', '.join(names)};"
        " print(json.dumps(sorted(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", program],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    loaded = roots(set(json.loads(result.stdout)))
    assert "cryptography" in loaded
    assert loaded & HEAVY == set()


def pod_path() -> list[str]:
    return [str(ROOT / part) for part in ("core", "client")]


def test_a_file_is_short_enough_to_be_one_thing_or_says_why_not() -> None:
    lengths = {name(path): len(path.read_text("utf-8").splitlines()) for path in every_module()}
    long = {path for path, lines in lengths.items() if lines > MAX_LINES}
    assert long - set(LONGER_FOR_A_REASON) == set()
    assert set(LONGER_FOR_A_REASON) - long == set(), "these became short: take them off the list"


def test_modules_are_named_for_what_they_hold() -> None:
    assert [name(path) for path in every_module() if path.stem in VAGUE] == []


def test_every_module_says_what_it_does() -> None:
    assert [name(path) for path in every_module() if not ast.get_docstring(tree(path))] == []


def test_libraries_never_print_and_never_end_the_process() -> None:
    wrong = [
        f"{name(path)}:{line}: {called}"
        for part in ("core", "scanner", "signer", "policy", "mirror_server")
        for path in modules(part)
        for called, line in calls(path)
        if called in {"print", "sys.exit", "exit", "quit"} and path.stem != "__main__"
    ]
    assert wrong == []


def test_libraries_on_the_server_never_read_the_environment() -> None:
    wrong = [
        f"{name(path)}:{node.lineno}"
        for part in ("core", "scanner", "signer", "policy", "mirror_server")
        for path in modules(part)
        if path.stem != "app"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
    ]
    assert wrong == []


def test_a_port_has_at_most_five_methods() -> None:
    wide = {
        f"{name(path)}: {node.name}": len(methods)
        for path in every_module()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and "Protocol" in {ast.unparse(b) for b in node.bases}
        if not node.name.startswith("_")  # those describe what somebody else built
        if (methods := [item for item in node.body if isinstance(item, ast.FunctionDef)])
        if len(methods) > MAX_PORT_METHODS
    }
    assert wide == {}


def test_every_public_error_belongs_to_the_one_family() -> None:
    # KgateError is the root; KgateBlocked must be what clients of `kernels` fall back on.
    # The others never leave the few modules between which they carry a no.
    allowed = {"KgateError", "KgateBlocked", "KgateRefusal", "KgateStopped"}
    allowed |= {"Mismatch", "Refusal", "SeamMoved", "TooLargeError"}
    builtin = {item.__name__ for item in vars(builtins).values() if is_exception(item)}
    strangers = [
        f"{name(path)}: {node.name}"
        for path in every_module()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & builtin
        if not node.name.startswith("_") and node.name not in allowed
    ]
    assert strangers == []


def is_exception(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, BaseException)
