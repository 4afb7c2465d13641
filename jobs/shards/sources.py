"""The corpora that can be built: their names on the command line, and the options that each takes."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from shards.plan import Source
from shards.prepare import Prepared, SignalSteps
from shards.sources.chapman_shaoxing_ningbo import ChapmanShaoxingNingbo
from shards.sources.code_15 import Code15
from shards.sources.code_full import CodeFull
from shards.sources.code_test import CodeTest
from shards.sources.cpsc2018 import Cpsc2018
from shards.sources.mimic_iv_ecg import MimicIvEcg
from shards.sources.muse_xml import MuseXml
from shards.sources.ptb_xl import PtbXl
from shards.sources.sami_trop import SamiTrop
from shards.sources.sph import Sph
from shards.sources.tnmg_json import TnmgJson
from shards.sources.wfdb_folder import WfdbFolder

SOURCES: dict[str, Any] = {
    "ptb-xl": PtbXl,
    "mimic-iv-ecg": MimicIvEcg,
    "chapman-shaoxing-ningbo": ChapmanShaoxingNingbo,
    "sph": Sph,
    "cpsc2018": Cpsc2018,
    "code-15": Code15,
    "code-test": CodeTest,
    "code": CodeFull,
    "sami-trop": SamiTrop,
    "wfdb": WfdbFolder,
    "muse-xml": MuseXml,
    "tnmg-json": TnmgJson,
}
"""Name on the command line → reader of the publisher's layout, whose keyword-only parameters are the options it takes."""

OPTIONS: dict[str, dict[str, Any]] = {
    "english": {"type": Path, "metavar": "FILE.csv", "help": "reports in English, joined by ecg_id"},
    "scale": {"type": float, "metavar": "X", "help": "stored values for one millivolt, where you know it; else it is checked"},
    "leads": {"metavar": "I,II,…", "help": "order of the stored leads, where you know it; it is checked"},
    "table": {"type": Path, "metavar": "FILE.csv", "help": "text and labels of the records"},
    "window_s": {"type": float, "metavar": "S", "help": "cut each record into windows of so many seconds"},
    "name": {"metavar": "NAME", "help": "of the corpus, in keys and in the index (default: the folder's name)"},
}
"""Parameter of a source → how its option is given on the command line."""


def add_sources(build: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """A subcommand for each corpus, with what all builds take and what this source takes."""
    names = build.add_subparsers(required=True, metavar="SOURCE", dest="source")
    for name, source in SOURCES.items():
        about = (inspect.getdoc(inspect.getmodule(source)) or "").split("\n\n")[0]
        first = " ".join(about.split()).split(": ")[0].rstrip(".")
        one = names.add_parser(name, help=first.replace("%", "%%"), description=about, parents=[common])
        one.add_argument("folder", metavar="DIR", type=Path, help="where the corpus lies")
        for option in _options_of(source):
            one.add_argument(f"--{option.replace('_', '-')}", **OPTIONS[option])


def add_signal_steps(common: argparse.ArgumentParser) -> None:
    """Options that change signals or measure them, all off unless given."""
    steps = common.add_argument_group("signal, off unless asked for")
    steps.add_argument("--rate", type=float, metavar="HZ", help="sampling rate: as published where it is, else resampled")
    steps.add_argument("--remove-baseline", action="store_true", help="high-pass filter at 0.8 Hz against baseline wander")
    steps.add_argument("--powerline", type=float, metavar="HZ", help="notch filter against mains hum, such as 50 or 60")
    steps.add_argument("--derive-leads", action="store_true", help="fill missing limb leads from those that determine them")
    steps.add_argument("--measure", action="store_true", help="intervals by delineation where the publisher gives none (slow)")


def prepared_source(arguments: argparse.Namespace) -> Source:
    """The source that a command line asks for.

    Raises:
        RecordError: the corpus's own tables are missing or unreadable, or an option is out of its range.
    """
    source = SOURCES[arguments.source]
    options = {name: getattr(arguments, name) for name in _options_of(source) if getattr(arguments, name) is not None}
    rate = arguments.rate
    if rate in getattr(source, "published_rates_hz", ()):
        options["sampling_rate_hz"], rate = int(rate), None
    steps = SignalSteps(rate, arguments.remove_baseline, arguments.powerline, arguments.derive_leads, arguments.measure)
    made: Source = source(arguments.folder, **options)
    return made if steps == SignalSteps() else Prepared(made, steps)


def _options_of(source: Any) -> list[str]:
    return [name for name in inspect.signature(source).parameters if name in OPTIONS]
