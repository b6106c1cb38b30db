"""Fill in the tables of ``docs/performance.md`` from the files in ``benchmarks/results``.

    python benchmarks/performance_page.py            # rewrite what stands between the markers
    python benchmarks/performance_page.py --check    # only say whether it is up to date

Every number of a table comes from a file. A table whose results are missing is named and left as it is; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pages import replaced
from performance_tables import TABLES

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Returns the exit status: 0 if the page has all tables (now)."""
    parser = argparse.ArgumentParser(description="Put the benchmarks' results into docs/performance.md.")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if a table is out of date")
    asked = parser.parse_args()
    text = fresh = asked.page.read_text()
    missing = 0
    for name, make in TABLES.items():
        try:
            fresh = replaced(fresh, f"<!-- {name} -->", f"<!-- /{name} -->", make(asked.results))
        except FileNotFoundError as error:
            missing += 1
            print(f"{name}: there is no {error.filename}: run the benchmark that makes it (benchmarks/all.py)", file=sys.stderr)
        except ValueError as error:
            print(f"{asked.page}: {error}", file=sys.stderr)
            return 1
    if asked.check and fresh != text:
        print(f"{asked.page}: a table is out of date; run benchmarks/performance_page.py", file=sys.stderr)
        return 1
    asked.page.write_text(fresh)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
