from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from kgate_cli.main import COMMANDS, group, main

if TYPE_CHECKING:
    from pathlib import Path


def commands(
    parent: click.Group = group, name: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(parent)
    found = []
    for word in parent.list_commands(context):
        command = parent.get_command(context, word)
        assert command is not None, word
        if isinstance(command, click.Group):
            found += commands(command, (*name, word))
        else:
            found.append(((*name, word), command))
    return found


ALL = commands()


@pytest.mark.parametrize(("name", "command"), ALL, ids=[" ".join(name) for name, _ in ALL])
def test_every_command_has_help_with_an_example_and_json(
    name: tuple[str, ...], command: click.Command
) -> None:
    text = command.get_help(click.Context(command, info_name=" ".join(name)))
    assert "Example" in text
    assert f"kgate {' '.join(name)}" in text.replace("Usage: ", "", 1)
    assert "--json" in text


def test_the_list_of_commands_imports_none_of_them() -> None:
    program = (
        "import sys\n"
        "from kgate_cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'sqlalchemy', 'lief', 'huggingface_hub', 'cyclonedx', 'starlette', 'sigstore',"
        " 'pydantic', 'rich', 'torch'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smuggle"]) == 2
    assert "No such command 'smuggle'" in capsys.readouterr().err


def test_a_missing_configuration_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", "--config", str(tmp_path / "kgate.yaml")]) == 4
    assert "kgate init" in capsys.readouterr().err


def test_an_error_is_one_json_object_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ls", "--json", "--config", str(tmp_path / "kgate.yaml")]) == 4
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["ok"], said["code"]) == (
        "kgate.dev/error/v1",
        False,
        "invalid-input",
    )


def test_a_bug_is_told_apart_from_an_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(group, "main", broken)
    assert main(["ls"]) == 70
    assert "this is a bug in kgate" in capsys.readouterr().err
