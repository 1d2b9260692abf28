"""The log of a command."""

from __future__ import annotations

import logging

import click


class EchoHandler(logging.Handler):
    """Writes records to stderr, line by line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        click.echo(self.format(record), err=True)


def show_log(handler: logging.Handler) -> None:
    """Send the log of this library to a handler until the command ends."""
    logger, context = logging.getLogger("smoothcert"), click.get_current_context(silent=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    if context is not None:
        context.find_root().call_on_close(lambda: logger.removeHandler(handler))
