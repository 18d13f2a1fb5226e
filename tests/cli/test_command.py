"""The frame of the command: exit codes, one-line errors, interruption, closed pipes."""

import importlib
import os
import subprocess
import sys

import pytest

import fastnorm
from fastnorm import cli


def test_the_commands_are_there():
    for name in cli.COMMANDS:
        module = importlib.import_module(f"fastnorm.cli.{name}")
        assert callable(module.add_arguments) and callable(module.run)


def test_help_lists_the_commands_and_imports_none():
    script = (
        "import sys, fastnorm.cli\n"
        "try: fastnorm.cli.main(['--help'])\n"
        "finally: print([n for n in fastnorm.cli.COMMANDS if f'fastnorm.cli.{n}' in sys.modules], 'PIL' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert shown.returncode == 0
    assert all(f"\n    {name} " in shown.stdout for name in cli.COMMANDS)
    assert shown.stdout.endswith("[] False\n")


def test_version(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command("--version")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"fastnorm {fastnorm.__version__}\n"


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "COMMAND"),
        (["paint"], "'paint'"),
        (["stylize"], "INPUT"),
        (["stylize", "a.png", "--style", "7"], "-o"),
        (["stylize", "a.png", "--style", "7", "-o", "b.png", "--colour"], "--colour"),
    ],
)
def test_a_wrong_command_line_is_told_on_one_line(command, arguments, said):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("fastnorm: ") and err.count("\n") == 1
    assert said in err and "--help" in err


def test_a_name_with_a_line_break_stays_on_one_line(stylize, tmp_path):
    code, _, err = stylize(tmp_path / "two\nlines.png", "--style", 7, "-o", tmp_path / "out.png")
    assert code == 2
    assert err.count("\n") == 1 and "two lines.png" in err


@pytest.mark.parametrize("moment", ["stylising", "writing"])
def test_ctrl_c_leaves_nothing_behind(stylize, negative, photo, tree, tmp_path, monkeypatch, moment):
    def interrupt(*_):
        raise KeyboardInterrupt

    picture = photo()
    before = tree()
    if moment == "stylising":
        monkeypatch.setattr(negative, "stylize", interrupt)
    else:
        monkeypatch.setattr(os, "replace", interrupt)
    code, out, err = stylize(picture, "--style", 7, "-o", tmp_path / "out.png")
    assert (code, out, err) == (130, "", "fastnorm: interrupted\n")
    assert tree() == before


def test_a_closed_pipe_ends_it_quietly(python, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # With it, argparse itself passes over the broken pipe.
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*python, "stylize", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")
