"""Run cases from the command line; see the package."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.shards.fuzz.cases import all_cases, set_up, write_corpora
from tests.shards.fuzz.outcome import RESULT, run, write_result
from tests.shards.fuzz.recordings import HERE, RECORDINGS
from tests.shards.fuzz.seeds import CORPORA
from tests.shards.fuzz.workers import run_case


def main() -> int:
    """Status 1 where a case fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.shards.fuzz", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true", help=f"every case; the outcome is written to {RESULT.name}")
    what.add_argument("--case", type=int, help="one case, in this process")
    what.add_argument("--some", type=int, metavar="N", help="every N-th case")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="with --case: leave the damaged corpus there")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.case is not None:
        return _one(arguments.case, arguments.keep)
    outcome = run(arguments.some or 1, arguments.processes, progress=True)
    print(json.dumps({name: value for name, value in outcome.items() if name not in ("damage", "sources")}, indent=1))
    if arguments.all:
        write_result(outcome)
    return int(bool(outcome["failures"]))


def _one(number: int, keep: Path | None) -> int:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        undamaged, room = Path(name, "undamaged"), Path(name, "room")
        room.mkdir()
        write_corpora(undamaged, (*CORPORA, *(RECORDINGS if HERE.is_dir() else ())))
        case = all_cases(undamaged)[number]
        if keep is not None:
            keep.mkdir(parents=True)
            set_up(case, undamaged, keep)
        result = run_case(case, undamaged, room)
    print(case)
    print(
        result.fault or "well",
        f"{result.records} records, {result.rejected} rejected, {result.seconds:.2f} s",
        *result.problems,
        sep="\n",
    )
    return int(result.fault is not None)


if __name__ == "__main__":
    sys.exit(main())
