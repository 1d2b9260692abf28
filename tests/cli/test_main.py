"""What the command line says when something goes wrong."""

import warnings

import click
import pytest
from click.testing import CliRunner

from smoothcert.cli.main import Group, one_line


@click.group(cls=Group)
@click.option("--debug", is_flag=True)
def failing(debug):
    pass


@failing.command()
@click.argument("kind")
def fail(kind):
    """Raise an error."""
    warnings.warn("first\n  second", stacklevel=1)
    error = {
        "interrupt": KeyboardInterrupt(),
        "terminate": SystemExit(143),
        "key": KeyError("lost"),
        "value": ValueError("wrong\nvalue"),
        "empty": ValueError(),
        "type": TypeError("wrong type"),
        "memory": MemoryError("no room"),
        "runtime": RuntimeError("no worker"),
        "disk": OSError("no disk"),
        "noted": ValueError("wrong."),
        "other": ArithmeticError("odd"),
    }[kind]
    if kind == "noted":
        error.add_note("While\nit ran.")
    raise error


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("interrupt", 130, "Interrupted. With --store, the same command resumes the run."),
        ("terminate", 143, "Terminated. With --store, the same command resumes the run."),
        ("key", 1, "Error: KeyError: 'lost'"),
        ("value", 1, "Error: wrong value"),
        ("empty", 1, "Error: ValueError:"),
        ("type", 1, "Error: wrong type"),
        ("memory", 1, "Error: no room"),
        ("runtime", 1, "Error: no worker"),
        ("disk", 1, "Error: no disk"),
        ("noted", 1, "Error: wrong. While it ran."),
        ("other", 1, "Error: ArithmeticError: odd"),
    ],
)
def test_errors_are_one_line_and_have_a_status(kind, code, message):
    found = CliRunner().invoke(failing, ["fail", kind])
    assert (found.exit_code, found.stdout) == (code, "")
    assert [line.strip() for line in found.stderr.splitlines()] == ["Warning: first second", message]


def test_debugging_shows_everything():
    with pytest.warns(UserWarning, match="first"):
        found = CliRunner().invoke(failing, ["--debug", "fail", "key"])
    assert isinstance(found.exception, KeyError)
    assert "Error" not in found.stderr
    assert one_line("x" * 1000) == "x" * 1000
    assert one_line("x" * 1001) == "x" * 1000 + "..."
