"""Every kind of fault, several times each, at random moments of real training runs.

    python -m tests.campaign --json campaign.json --markdown campaign.md          # all kinds, 3 times
    python -m tests.campaign --kinds 'store away,keys expired' --repeats 1 --seed 7

A run that was judged is written to the JSON file at once: the same command goes on after an interrupt, or a time limit.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.campaign.faults import FAULTS, Fault
from tests.campaign.promises import Undisturbed, judge, undisturbed
from tests.campaign.scene import Site, site

REPEATS = 3
MOST_ON_RAY = 2
"""Runs of each kind under Ray: they take ten times as long."""


@dataclass(frozen=True)
class Judged:
    """One run."""

    kind: str
    number: int
    seed: int
    kept: bool
    why: str
    """What was not kept."""
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge what is not judged yet, print the table; status 1 where one was not kept, 3 where time was over before."""
    options = parsed(arguments)
    if options.promises:
        print(promises(), end="")
        return 0
    kinds = [FAULTS[name] for name in (options.kinds.split(",") if options.kinds else FAULTS)]
    judged = [one for one in load(options.json) if one.kept or not options.again]
    for kind in [kind for kind in kinds if kind.missing()]:
        print(f"{kind.name}: not here: {kind.missing()}")
        kinds.remove(kind)
    known = {(one.kind, one.number) for one in judged}
    waiting = [
        (kind, number)
        for number in range(options.repeats)
        for kind in kinds
        if (kind.name, number) not in known and (not kind.on_ray or number < MOST_ON_RAY)
    ]
    folder = Path(tempfile.mkdtemp(prefix="ecgchat-campaign-"))
    end = time.monotonic() + options.minutes * 60
    with site(folder) as place:
        expected = undisturbed(place)
        for count, (kind, number) in enumerate(waiting, start=1):
            if time.monotonic() > end:
                break
            judged.append(judge_one(kind, number, options.seed, place, expected))
            save(options.json, judged)
            one = judged[-1]
            why = one.why[:3000] or "kept"
            print(f"{count}/{len(waiting)} {one.kind}, seed {one.seed}: {why}, {one.seconds:.0f} s", flush=True)
    show(judged, options.markdown)
    if not all(one.kept for one in judged):
        print(f"what the runs said and left: {folder}")
        return 1
    shutil.rmtree(folder)
    return 3 if len(known) + len(waiting) > len(judged) else 0


def judge_one(kind: Fault, number: int, campaign_seed: str, place: Site, expected: Undisturbed) -> Judged:
    """Harm one run."""
    seed = random.Random(f"{campaign_seed} {kind.name} {number}").randrange(10**6)
    begun = time.monotonic()
    try:
        judge(kind, place, seed, expected)
        why = ""
    except Exception as error:  # whatever it is, the promise was not kept, and the next one is judged
        why = str(error) if isinstance(error, AssertionError) and str(error) else traceback.format_exc(limit=-3)
    return Judged(kind.name, number, seed, not why, why, round(time.monotonic() - begun, 1))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kinds", default="", help="names, with commas between (default: all)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="runs of each kind")
    parser.add_argument("--seed", default="0", help="of the moments")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="begin no run after so long")
    parser.add_argument("--promises", action="store_true", help="only print the table of docs/operations.md")
    parser.add_argument("--again", action="store_true", help="judge again what was not kept")
    parser.add_argument("--json", type=Path, help="what was judged; read first, where it exists")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    return parser.parse_args(arguments)


def load(file: Path | None) -> list[Judged]:
    """What an interrupted campaign judged."""
    return [Judged(**one) for one in json.loads(file.read_text())] if file and file.exists() else []


def save(file: Path | None, judged: Sequence[Judged]) -> None:
    """Whole or not at all."""
    if file:
        beside = file.with_suffix(".writing")
        beside.write_text(json.dumps([asdict(one) for one in judged], indent=1) + "\n")
        beside.replace(file)


def promises() -> str:
    """The table of docs/operations.md."""
    rows = [(fault.name, fault.does, fault.promise.value, f"`{fault.says}`" if fault.says else "") for fault in FAULTS.values()]
    return markdown_table(("fault", "what happens", "the run", "what is said"), rows)


def table(judged: Sequence[Judged]) -> list[tuple[str, ...]]:
    """For each kind: its name, what happens, what is promised, runs, how many kept it, the median of their seconds."""
    rows = []
    for fault in FAULTS.values():
        runs = [one for one in judged if one.kind == fault.name]
        if runs:
            kept, seconds = sum(one.kept for one in runs), statistics.median(one.seconds for one in runs)
            rows.append((fault.name, fault.does, fault.promise.value, str(len(runs)), str(kept), f"{seconds:.0f}"))
    return rows


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---" for _ in heads], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def show(judged: Sequence[Judged], markdown: Path | None) -> None:
    """Print the table, and write it."""
    heads = ("fault", "what happens", "promise", "runs", "kept", "s")
    rows = table(judged)
    printed = Table(*heads, title=f"{len(judged)} runs, {sum(one.kept for one in judged)} kept what is promised")
    for row in rows:
        printed.add_row(*row)
    Console().print(printed)
    if markdown:
        markdown.write_text(markdown_table(heads, rows))
