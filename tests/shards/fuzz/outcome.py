"""Runs of many cases, counted: what `result.json` holds."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.shards.fuzz.cases import Case, all_cases, digest_of, write_corpora
from tests.shards.fuzz.recordings import HERE, RECORDINGS
from tests.shards.fuzz.seeds import CORPORA
from tests.shards.fuzz.workers import MEMORY, SECONDS, Result, run_cases

RESULT = Path(__file__).with_name("result.json")
FAULTS = ("crash", "hang", "memory", "wrong")
PACKAGES = ("h5py", "numpy", "pyarrow", "scipy", "soundfile", "wfdb")


def run(step: int, processes: int, progress: bool = False) -> dict[str, Any]:
    """Run every `step`-th case and count what came of them."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        undamaged, room = Path(name, "undamaged"), Path(name, "room")
        room.mkdir()
        write_corpora(undamaged, (*CORPORA, *(RECORDINGS if HERE.is_dir() else ())))
        cases = all_cases(undamaged)
        results = []
        for result in run_cases([number for number in cases if number % step == 0], undamaged, room, processes):
            results.append(result)
            if progress and (result.fault or len(results) % 500 == 0):
                print(
                    f"{len(results)}: {cases[result.number]} {result.fault or ''} {' '.join(result.problems)[-300:]}",
                    file=sys.stderr,
                )
    return _counted(cases, sorted(results, key=lambda result: result.number), time.perf_counter() - started)


def _counted(cases: dict[int, Case], results: list[Result], seconds: float) -> dict[str, Any]:
    ran = [cases[result.number] for result in results]
    peak = max(results, key=lambda result: result.peak_bytes)
    slowest = max(results, key=lambda result: result.seconds)
    return {
        "cases": len(results),
        "cases_of_recordings": sum(case.corpus.name.startswith("recordings-") for case in ran),
        "digest": digest_of(cases),
        "faults": {fault: sum(result.fault == fault for result in results) for fault in FAULTS},
        "kinds": dict(sorted(Counter(case.kind for case in ran).items())),
        "sources": dict(sorted(Counter(case.corpus.name for case in ran).items())),
        "damage": dict(sorted(Counter(f"{case.kind}: {case.damage.__name__}" for case in ran).items())),
        "cases_with_records_only": sum(not result.rejected and not result.fault for result in results),
        "cases_with_rejections": sum(bool(result.rejected) and not result.fault for result in results),
        "records": sum(result.records for result in results),
        "rejections": sum(result.rejected for result in results),
        "largest_memory_of_a_case_mib": round(peak.peak_bytes / 2**20),
        "largest_memory_case": str(cases[peak.number]),
        "slowest_case_s": round(slowest.seconds, 2),
        "slowest_case": str(cases[slowest.number]),
        "limits": {"seconds": SECONDS, "memory_mib": MEMORY // 2**20},
        "seconds": round(seconds),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "failures": [
            f"{cases[result.number]}: {result.fault}: {' | '.join(result.problems)}" for result in results if result.fault
        ],
    }


def write_result(outcome: dict[str, Any]) -> None:
    """Write what is committed."""
    RESULT.write_text(json.dumps(outcome, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
