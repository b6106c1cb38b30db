"""The command line, run in this process."""

from __future__ import annotations

import pytest

from zellige.cli import main


def run(*arguments: object) -> int:
    """Run it; returns its exit status."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    code = stop.value.code
    return 0 if code is None else int(code)
