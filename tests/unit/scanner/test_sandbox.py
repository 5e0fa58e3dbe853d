from __future__ import annotations

import struct

import pytest

from kgate_scanner.sandbox import _NEEDED, call_filter

# The syscall numbers of an architecture, as its C headers give them.
OPEN_FILES = {"x86_64": (2, 257, 437), "aarch64": (56, 437)}
SOCKETS = {"x86_64": (41, 42, 49), "aarch64": (198, 203, 200)}
PROCESSES = {"x86_64": (57, 58, 59, 322, 62, 101), "aarch64": (221, 281, 129, 117)}
READ = {"x86_64": 0, "aarch64": 63}
CLONE = {"x86_64": 56, "aarch64": 220}
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50001, 0x50026
THREAD_FLAGS, FORK_FLAGS = 0x3D0F00, 17


def answer(machine: str, number: int, *, arch: int | None = None, argument: int = 0) -> int:
    """Run the filter program as the kernel does (classic BPF)."""
    program = call_filter(machine)
    assert program is not None
    lines = list(struct.iter_unpack("<HBBI", program))
    data = struct.pack("<IIQQ", number, ARCH[machine] if arch is None else arch, 0, argument)
    at = accumulator = 0
    while True:
        code, yes, no, value = lines[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x15:
                at += yes if accumulator == value else no
            case 0x45:
                at += yes if accumulator & value else no
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(code)


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_computing_needs_is_allowed(machine: str) -> None:
    column = 0 if machine == "x86_64" else 1
    numbers = [pair[column] for pair in _NEEDED.values()]
    assert READ[machine] in numbers
    assert {answer(machine, number) for number in numbers if number is not None} == {ALLOW}


def test_files_sockets_and_processes_are_refused(machine: str) -> None:
    refused = (*OPEN_FILES[machine], *SOCKETS[machine], *PROCESSES[machine], 9999)
    assert {answer(machine, number) for number in refused} == {EPERM}


def test_threads_are_allowed_and_forks_are_not(machine: str) -> None:
    # seccomp_data: nr, arch, instruction_pointer, args[0] ...
    assert answer(machine, CLONE[machine], argument=THREAD_FLAGS) == ALLOW
    assert answer(machine, CLONE[machine], argument=FORK_FLAGS) == EPERM
    assert answer(machine, 435) == ENOSYS


def test_another_architectures_numbers_kill(machine: str) -> None:
    assert answer(machine, READ[machine], arch=0x40000003) == KILL
    assert answer(machine, READ[machine] | 0x40000000) == KILL


def test_an_unknown_machine_has_no_filter() -> None:
    assert call_filter("sparc64") is None
