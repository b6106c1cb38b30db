"""``python -m zellige.cli``: the same as the ``zellige`` command."""

from zellige.cli import main

main()
