"""Termination ends a context, and everything else stays as it was."""

import os
import signal
import threading
from contextlib import contextmanager

import pytest

from smoothcert.runs.signals import ends_on_termination


def handler():
    return signal.getsignal(signal.SIGTERM)


def test_termination_raises_and_the_default_comes_back():
    assert handler() is signal.SIG_DFL
    seen = []

    @contextmanager
    def watched():
        with ends_on_termination():
            try:
                yield
            finally:
                seen.append(handler())

    with pytest.raises(SystemExit) as caught, watched():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    assert seen == [signal.SIG_IGN], "a second signal does not interrupt what the first one closes"
    assert handler() is signal.SIG_DFL
    with ends_on_termination():
        assert handler() is not signal.SIG_DFL
    assert handler() is signal.SIG_DFL


def test_a_handler_of_the_callers_own_stays():
    def own(*given):
        raise AssertionError

    signal.signal(signal.SIGTERM, own)
    try:
        with ends_on_termination():
            assert handler() is own
        assert handler() is own
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_other_threads_leave_handlers_alone():
    seen = []

    def work():
        with ends_on_termination():
            seen.append(handler())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
