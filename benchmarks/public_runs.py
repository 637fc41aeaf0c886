"""Add result files of a published benchmark to the project's table of public runs.

    python benchmarks/public_runs.py SOURCE ROOT FILE [FILE ...] [--blocks 2-7]

SOURCE is a key of ``costsim/validation/public_sources.toml``; paths are written relative to ROOT.
Rows go to standard output in the columns of ``costsim/validation/public_runs.csv``.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from costsim.validation.benchmarks.read import read_file
from costsim.validation.benchmarks.run import Run
from costsim.validation.public_runs import COLUMNS, rows_of


def spread(run: Run) -> Run:
    """Return a run with the spread of its single requests' lengths in place of the requests."""
    if run.detail is None:
        return run
    cv = [float(np.nanstd(x) / np.nanmean(x))
          for x in (run.detail.input_tokens, run.detail.output_tokens)]
    return replace(run, isl_cv=cv[0], osl_cv=cv[1], detail=None)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("root", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--blocks", default="", help="of each file, such as 2-7; counted from 1")
    given = parser.parse_args()
    first, _, last = given.blocks.partition("-")
    table = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    for path in given.files:
        runs = read_file(path)
        for i, run in enumerate(runs, 1):
            if given.blocks and not int(first) <= i <= int(last or first):
                continue
            name = str(path.relative_to(given.root)) + (f"#{i}" if len(runs) > 1 else "")
            table.writerow(rows_of(given.source, name, spread(run)))


if __name__ == "__main__":
    main()
