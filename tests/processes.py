"""Python code in a process of its own that need not import anything first: it is forked from a server that did.

The server is a fresh interpreter. It knows nothing of the tests, has hash seeds and addresses of its own, and imports
what takes seconds once for all tests of a session. What is about the imports themselves runs in a subprocess.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend.context import set_start_method

ROOT = Path(__file__).parents[1]
PRELOADED = [__name__, "tests.runs.crashes", "smoothcert.training.torch_layers", "statsmodels.stats.proportion"]
PRELOADED += ["pytest", "skorch", "sklearn.ensemble"]


@cache
def prepare() -> Any:
    """Tell the server, which starts with the first process, what to import, and return what starts processes."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def processes() -> Any:
    """Start the server, and return what starts processes, as the module ``multiprocessing`` does."""
    context = prepare()
    forkserver.ensure_running()
    return context


def _main(connection: Any, code: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Run the code as ``python -c`` does, and send what it prints, or how it failed."""
    os.environ |= environment
    tempfile.tempdir = None
    sys.argv = ["-c", *arguments]
    shown, failed = io.StringIO(), None
    with contextlib.redirect_stdout(shown):
        try:
            main = vars(sys.modules["__main__"])
            main |= {"__name__": "__main__", "connection": connection}
            exec(code, main)
        except SystemExit as ended:
            failed = f"exit status {ended.code}" if ended.code else None
        except BaseException:
            failed = traceback.format_exc()
    connection.send((shown.getvalue(), failed))


@contextmanager
def running(code: str, *arguments: Any, **environment: Any) -> Iterator[tuple[Any, Any]]:
    """Run code, and yield the process and our end of a pipe; the code has its end as ``connection``.

    The process is killed at the end if it is still there.
    """
    ours, theirs = multiprocessing.Pipe()
    given = [str(argument) for argument in arguments], {name: str(value) for name, value in environment.items()}
    process = processes().Process(target=_main, args=(theirs, code, *given))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()


def run_python(code: str, *arguments: Any, **environment: Any) -> str:
    """Run code to its end, and return what it prints."""
    with running(code, *arguments, **environment) as (process, connection):
        shown, failed = connection.recv()
        process.join()
    assert failed is None, failed
    assert process.exitcode == 0
    return shown


def start_workers_by(method: str) -> None:
    """Let loky start its workers by a method from now on: "forkserver" is quick, and "loky" starts interpreters."""
    prepare()
    set_start_method(method, force=True)


@contextmanager
def fresh_workers() -> Iterator[None]:
    """Let the workers of loky be interpreters of their own, as they are outside of the tests."""
    get_reusable_executor().shutdown(wait=True)
    start_workers_by("loky")
    try:
        yield
    finally:
        get_reusable_executor().shutdown(wait=True)
        start_workers_by("forkserver")
