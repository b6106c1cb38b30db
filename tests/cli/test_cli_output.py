"""Standard output that takes nothing, or not everything: one line on standard error and exit status 1, or silence; no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "zellige.cli"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("verb", ["--version", "doctor"])
def test_a_full_device(verb: str) -> None:
    """Where click prints, and where a verb does."""
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*COMMAND, verb], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "zellige: standard output can't be written: No space left on device\n"


def test_a_reader_that_leaves() -> None:
    """As ``head`` does."""
    with subprocess.Popen([*COMMAND, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ended:
        assert ended.stdout is not None and ended.stderr is not None
        ended.stdout.close()
        assert ended.stderr.read() == ""


def test_no_output_at_all() -> None:
    ended = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *COMMAND, "doctor"], stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
