"""``python -m smoothcert``: the command line."""

from .cli import main

main()
