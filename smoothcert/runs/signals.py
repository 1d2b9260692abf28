"""What ends a run early: a signal to stop, and the death of the process that a worker works for."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

#: The number of seconds between a worker's looks at its parent.
LOOK = 1.0


@contextmanager
def ends_on_termination() -> Iterator[None]:
    """Let SIGTERM end the context as Ctrl-C does: what is open is closed, and the exit status is 143.

    A handler of the caller's own stays in place. Outside of the main thread nothing changes, because Python calls
    handlers there.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: Any) -> None:
    # A second signal must not interrupt what the first one closes.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


@cache
def end_with_parent() -> None:
    """End this process soon after its parent has ended, whatever it is doing then. Once per process is enough."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="smoothcert-parent").start()
