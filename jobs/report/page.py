"""Put a run's numbers, charts and drawn ECGs into one HTML file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from jobs.eval import Embedded
from jobs.report.charts import loss_chart, step_time_chart
from shards.dataset import ShardSet
from shards.draw import draw_ecg

EXAMPLES = 6
DPI = 110


@dataclass(frozen=True)
class Example:
    """A held-out ECG beside what the model thinks of it."""

    key: str
    picture: str
    """Base64 of a PNG."""
    report: str
    nearest: str
    """The report of another record that lies nearest to this ECG."""
    labels: list[str]


def examples(split: Embedded, data: ShardSet) -> list[Example]:
    """Records with different findings, each drawn, with the nearest report of another record."""
    chosen: dict[tuple[str, ...], int] = {}
    for i, record in enumerate(split.records):
        labels = tuple(name for name, value in sorted(record["labels"].items()) if value == 1)
        chosen.setdefault(labels, i)
    similarity = split.ecg @ split.text.T
    made = []
    for labels, i in list(chosen.items())[:EXAMPLES]:
        own = split.records[i].get("report") or ""
        ranked = similarity[i].argsort(descending=True).tolist()
        other = next((j for j in ranked if j != i), i)
        _, ecg, record = data.sample(split.keys[i])
        png = draw_ecg(ecg, record["mv_per_lsb"], record["fs_hz"], title=split.keys[i], dpi=DPI)
        picture = base64.b64encode(png).decode()
        made.append(Example(split.keys[i], picture, own, split.records[other].get("report") or "", list(labels)))
    return made


def write_page(path: Path, summary: dict[str, Any], lines: list[dict[str, Any]], shown: list[Example]) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        summary: as in `summary.json`.
        lines: of the run's metrics, one a step.
        shown: drawn ECGs.
    """
    templates = Environment(loader=PackageLoader("jobs.report", "."), autoescape=select_autoescape(default=True))
    charts = [
        loss_chart(lines, "loss", "loss"),
        loss_chart(lines, "loss_contrastive", "contrastive loss, nats a pair"),
        loss_chart(lines, "loss_caption", "caption loss, nats a token"),
        step_time_chart(lines),
    ]
    page = templates.get_template("page.html.j2").render(summary=summary, charts=charts, examples=shown)
    path.write_text(page, encoding="utf-8")
