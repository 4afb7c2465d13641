"""Runs as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster import metrics
from cluster.errors import RunError
from cluster.stage import Picture
from cluster.tracking import kept_pictures
from jobs.dashboard.plots import COLOURS, Line, chart
from jobs.dashboard.sections import SECTIONS, Section
from jobs.pages import templates
from jobs.runs import state as run_state
from jobs.runs.state import RunState
from shards.storage import Store


@dataclass(frozen=True)
class Run:
    """What a page shows of one run."""

    number: int
    state: RunState
    lines: list[dict[str, Any]]
    """One for each step that counts."""
    pictures: list[Picture]

    @property
    def colour(self) -> str:
        """Of its lines."""
        return COLOURS[self.number % len(COLOURS)]

    def facts(self) -> dict[str, str]:
        """What stands beside its name."""
        config, state = self.state.config, self.state
        best = min((line["eval/loss"] for line in self.lines if "eval/loss" in line), default=None)
        found = {
            "folder": state.uri,
            "state": state.state,
            "steps": f"{state.done} of {state.steps or '?'}, committed {state.committed[-1] if state.committed else '-'}",
            "workers": str(config.get("world_size", "?")),
            "best validation loss": f"{best:.4f}" if best is not None else "-",
            "data": config.get("data", {}).get("index_sha256", "")[:12],
            "code": config.get("git_revision", ""),
            "Slurm job": config.get("slurm_job_id", ""),
            "Ray submission": config.get("ray_submission_id", ""),
            "MFU": config.get("mfu", ""),
        }
        return {name: text for name, text in found.items() if text}

    def resumed(self) -> list[tuple[int, float]]:
        """Where its attempts resumed, in samples seen."""
        samples = {line["step"]: line["samples"] for line in self.lines}
        steps = [attempt["resumed_from"] for attempt in self.state.attempts]
        return [(self.number, samples[step]) for step in steps if step in samples]


@dataclass(frozen=True)
class Drawn:
    """A section with its charts."""

    name: str
    charts: list[tuple[str, str]]
    """SVG on a linear and on a logarithmic scale; one and the same where a logarithm says nothing."""


def read_run(number: int, place: str) -> Run:
    """A run from its folder or URI.

    Raises:
        RunError: there is no run, or it has not trained a step.
    """
    store = Store(place)
    state = run_state.read_run(store)
    if not store.exists(metrics.FILE):
        raise RunError(f"{store.uri}: no {metrics.FILE} in it yet; it is written with the first steps")
    with tempfile.TemporaryDirectory(prefix="ecgchat-dashboard-") as scratch:
        store.download(metrics.FILE, Path(scratch) / metrics.FILE)
        lines = metrics.read(Path(scratch) / metrics.FILE)
    return Run(number, state, lines, kept_pictures(store))


def write_page(path: Path, runs: list[Run]) -> None:
    """Write the page of some runs, their lines over one another."""
    pages = templates("jobs.dashboard")
    pages.filters["base64"] = lambda png: base64.b64encode(png).decode()
    page = pages.get_template("page.html.j2").render(runs=runs, sections=draw(runs))
    path.write_text(page, encoding="utf-8")


def draw(runs: list[Run]) -> list[Drawn]:
    """All sections that have something to show."""
    known = sorted({name for run in runs for line in run.lines for name in line if "/" in name})
    resumed = [place for run in runs for place in run.resumed()]
    drawn = [Drawn(section.name, _charts(section, known, runs, resumed)) for section in SECTIONS]
    return [section for section in drawn if section.charts]


def _charts(section: Section, known: list[str], runs: list[Run], resumed: list[tuple[int, float]]) -> list[tuple[str, str]]:
    charts: dict[str, tuple[str, str]] = {}
    for panel in section.panels:
        for measure, title in panel.measures(known).items():
            if measure in charts:
                continue
            lines = [line for run in runs if len((line := _line(run, measure)).values)]
            linear = chart(title, lines, "linear", resumed)
            charts[measure] = (linear, chart(title, lines, "log", resumed) if panel.scale == "log" else linear)
    return list(charts.values())


def _line(run: Run, measure: str) -> Line:
    points = [(line["samples"], line[measure]) for line in run.lines if line.get(measure) is not None]
    samples, values = np.array(points, float).reshape(-1, 2).T
    return Line(run.number, samples, values)
