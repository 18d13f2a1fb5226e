"""The table of the command line, with and without rich."""

import io
import sys

import pytest

from fastnorm.cli import table

HEADER = ("operator", "time")
ROWS = [("adain", "1.00 ms"), ("instance_norm", "23.0 us")]


def test_plain_columns_are_aligned(capsys):
    table.show("times", HEADER, ROWS)
    assert capsys.readouterr().out == (
        "times\n"
        "operator          time\n"
        "adain          1.00 ms\n"
        "instance_norm  23.0 us\n"
        "\n"
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    table.show("times", HEADER, ROWS)
    return terminal.getvalue()


def test_a_terminal_without_rich(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert shown_on_a_terminal(monkeypatch).splitlines()[3] == "instance_norm  23.0 us"


def test_rich_draws_on_a_terminal(monkeypatch):
    pytest.importorskip("rich")
    text = shown_on_a_terminal(monkeypatch)
    assert "─" in text and "times" in text
    assert all(cell in text for row in ROWS for cell in row)
