"""The frame of the command: exit codes, one-line errors, interruption, closed pipes."""

import importlib
import os
import signal
import subprocess
import sys
from functools import partial

import pytest

import fastnorm
from fastnorm import _start, cli


def test_the_commands_are_there():
    for name in cli.COMMANDS:
        module = importlib.import_module(f"fastnorm.cli.{name}")
        assert callable(module.add_arguments) and callable(module.run)


def test_help_lists_the_commands_and_imports_none():
    script = (
        "import sys, fastnorm.cli\n"
        "try: fastnorm.cli.main(['--help'])\n"
        "finally: print([n for n in fastnorm.cli.COMMANDS if f'fastnorm.cli.{n}' in sys.modules], *(\n"
        "    n in sys.modules for n in ('PIL', 'torch._dynamo', 'sympy', 'triton', 'onnx', 'matplotlib')))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert shown.returncode == 0
    assert all(f"\n    {name} " in shown.stdout for name in cli.COMMANDS)
    assert shown.stdout.endswith("[]" + 6 * " False" + "\n")


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


def test_sigterm_leaves_nothing_behind(stylize, negative, photo, tree, tmp_path, monkeypatch):
    def terminate(*_):
        assert [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
        signal.raise_signal(signal.SIGTERM)

    picture = photo()
    files = tree()
    monkeypatch.setattr(os, "replace", terminate)
    before = signal.signal(signal.SIGTERM, _start._end)  # As it is when the command begins.
    try:
        assert stylize(picture, "--style", 7, "-o", tmp_path / "out.png") == (143, "", "fastnorm: terminated\n")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert tree() == files


def test_a_closed_pipe_ends_it_quietly(python, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # With it, argparse itself passes over the broken pipe.
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*python, "stylize", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_device_is_told_on_one_line(python):
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*python, "info"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (2, "fastnorm: cannot write the output: No space left on device\n")


def test_a_closed_output_is_told_on_one_line(command, monkeypatch, capsys):
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stdout", None)
        assert cli.main(["info"]) == 2
    assert capsys.readouterr().err == "fastnorm: stdout is closed, so that there is nowhere to print to\n"


@pytest.fixture
def interrupted(tmp_path):
    """interrupted(*line, by=) runs Python where Ctrl-C, or that signal, comes when torch is imported."""
    package = os.path.dirname(os.path.dirname(fastnorm.__file__))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), package])}

    def run(*line, by=signal.SIGINT):
        (tmp_path / "torch.py").write_text(f"import os, signal\nos.kill(os.getpid(), {int(by)})\n")
        # What runs in the background may have been started deaf to Ctrl-C.
        hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        settings = dict(env=environment, cwd=tmp_path, capture_output=True, text=True, preexec_fn=hears)
        ended = subprocess.run([sys.executable, *line], **settings)
        return ended.returncode, ended.stdout, ended.stderr

    return run


@pytest.mark.parametrize("line", [["-m", "fastnorm", "info"], ["bin/fastnorm", "info"]])
def test_a_signal_while_torch_is_imported(interrupted, tmp_path, line):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "fastnorm").write_text("import sys\nfrom fastnorm.cli import main\nsys.exit(main())\n")
    assert interrupted(*line) == (130, "", "fastnorm: interrupted\n")
    assert interrupted(*line, by=signal.SIGTERM) == (143, "", "fastnorm: terminated\n")


def test_a_signal_in_another_program_is_its_own(interrupted):
    program = "try:\n    import fastnorm\nexcept KeyboardInterrupt:\n    print('mine')\n"
    assert interrupted("-c", program) == (0, "mine\n", "")
    assert interrupted("-c", program, by=signal.SIGTERM) == (-signal.SIGTERM, "", "")
