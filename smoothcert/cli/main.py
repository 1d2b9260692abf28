"""The command line: errors and exit statuses, and the commands of the two halves, `runs` and `stores`."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import click

from . import runs, stores
from .options import show_log

#: Errors whose message is clear by itself; other errors are shown with the name of their class.
EXPECTED = (ValueError, TypeError, ImportError, OSError, RuntimeError, MemoryError)

#: The largest number of characters of an error.
LONGEST = 1000


class Group(click.Group):
    """Commands that show errors on one line of stderr.

    Exit status: 0 success, 1 error, 2 wrong usage, 3 `verify` found claims that are false, 4 inputs were skipped, 130
    interrupt, 143 termination.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        debug = ctx.params.get("debug")
        try:
            with warnings.catch_warnings():
                if not debug:
                    warnings.showwarning = show_warning  # type: ignore[assignment]
                return super().invoke(ctx)
        except click.UsageError as error:
            where = ctx.command_path if error.ctx is None else error.ctx.command_path
            click.echo(f"Error: {one_line(error.format_message())} See {where} --help.", err=True)
            ctx.exit(error.exit_code)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("Interrupted. With --store, the same command resumes the run.", err=True)
            ctx.exit(130)
        except SystemExit:
            click.echo("Terminated. With --store, the same command resumes the run.", err=True)
            raise
        except Exception as error:
            if debug:
                raise
            name = "" if isinstance(error, EXPECTED) and str(error) else f"{type(error).__name__}: "
            notes = " ".join(getattr(error, "__notes__", []))
            click.echo(f"Error: {name}{one_line(f'{error} {notes}')}", err=True)
            ctx.exit(1)


def one_line(message: Any) -> str:
    """Return a message without line breaks, cut off where it is very long."""
    text = " ".join(str(message).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def show_warning(message: Any, *where: Any) -> None:
    """Show a warning on one line, without its source."""
    click.echo(f"Warning: {one_line(message)}", err=True)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and the log.")
@click.option("--log", type=click.Path(), help="Append the log to this file.")
@click.version_option(package_name="smoothcert")
def cli(debug: bool, log: str | None) -> None:
    """Certified l1 robustness by randomized smoothing.

    Certify the inputs of a file, interrupt and resume the run at any time, and show its results:

    \b
      smoothcert certify model.skops test.npz --store run.sqlite --workers 2
      smoothcert status run.sqlite
      smoothcert curve run.sqlite --png curve.png
      smoothcert recertify run.sqlite --alpha 0.01 --radius lipschitz
      smoothcert export run.sqlite results.csv
      smoothcert verify run.sqlite model.skops test.npz

    MODEL is a file (.skops; .safetensors with --factory; pickles with --allow-pickle) or module:function, a function
    that returns a fitted scikit-learn classifier, a torch network or a fitted SmoothedClassifier. DATA is a .npy, .npz,
    .parquet or .csv file.
    """  # noqa: D301
    if debug:
        show_log(logging.StreamHandler())
    if log is not None:
        show_log(logging.FileHandler(log))


for command in (*runs.COMMANDS, *stores.COMMANDS):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    cli(prog_name="smoothcert")
