"""``python -m smoothcert``: the command line."""

from .cli.main import main

main()
