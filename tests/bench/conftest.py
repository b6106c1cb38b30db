"""The scripts of ``benchmarks/`` import one another as Python finds them when they are run: by their names alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
