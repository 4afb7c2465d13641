"""Put a pipeline's numbers, charts, drawn ECGs and conversations into one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.pages import templates
from jobs.report.charts import learning_rate_chart, loss_chart, rate_chart, step_time_chart
from jobs.report.examples import NearestReport, Talk
from jobs.report.measures import MeasuredRow, measured_tables

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What a pipeline left, as the page shows it."""

    summary: dict[str, Any]
    """As in `summary.json`."""
    metrics: dict[str, Lines]
    """`llm` and each stage → the lines of its run, one a step."""
    nearest: Sequence[NearestReport]
    talks: Sequence[Talk]
    command: str
    """What to type to talk with the model."""


@dataclass(frozen=True)
class Section:
    """One thing that was trained."""

    name: str
    title: str
    about: str
    facts: list[tuple[str, str]]
    charts: list[str]
    """SVG."""


TITLES = {
    "llm": "A small LLM",
    "coca": "coca: an encoder that knows which report belongs to which ECG",
    "align": "align: a projector shows ECGs to the LLM",
    "instruct": "instruct: the LLM learns to talk about them",
}
ABOUT = {
    "llm": "It stands in for a pretrained LLM: a plain Llama and its tokenizer, made here from the conversations of training "
    "patients alone, in one process. In what it reads, the answers stand where the ECG would stand, in any order, so that it "
    "learns to look there for what it is asked before it is ever shown an ECG.",
    "coca": "An ECG tower and a text tower meet in one space (contrastive loss), and a decoder writes the report (caption "
    "loss). The chat model sees with this ECG tower.",
    "align": "The ECG tower and the LLM are frozen. A projector turns what the tower makes of an ECG into tokens that stand "
    "among the LLM's words, and is trained on reports.",
    "instruct": "Low-rank adapters of the LLM and the projector are trained on conversations: rhythm, rate, intervals, "
    "findings, comparisons of two ECGs, reports. The ECG tower stays frozen.",
}


def write_page(path: Path, outcome: Outcome) -> None:
    """Write the page; it needs no other file and no network."""
    tables = measured_tables(outcome.summary["eval_chat"])
    template = templates("jobs.report").get_template("page.html.j2")
    page = template.render(
        summary=outcome.summary,
        sections=sections(outcome),
        tables=tables,
        seeing=seeing([row for table in tables for row in table.rows]),
        seconds=outcome.summary["seconds"],
        talks=outcome.talks,
        nearest=outcome.nearest,
        command=outcome.command,
    )
    path.write_text(page, encoding="utf-8")


def sections(outcome: Outcome) -> list[Section]:
    """What was trained, in the order in which each needs the one before."""
    made = []
    for name in ("coca", "llm", "align", "instruct"):
        lines = outcome.metrics[name]
        facts = _llm_facts(outcome.summary["llm"]) if name == "llm" else _facts(outcome.summary["stages"][name], lines)
        made.append(Section(name, TITLES[name], ABOUT[name], facts, _charts(name, lines)))
    return made


def seeing(rows: Sequence[MeasuredRow]) -> tuple[int, int]:
    """How many measures show that the model looks at the ECG, of how many."""
    return sum(row.verdict == "yes" for row in rows), len(rows)


def _charts(name: str, lines: Lines) -> list[str]:
    if name == "llm":
        return [loss_chart(lines, "loss", "loss, nats a token"), learning_rate_chart(lines)]
    if name == "coca":
        return [
            loss_chart(lines, "loss", "loss"),
            step_time_chart(lines),
            loss_chart(lines, "loss_contrastive", "contrastive loss, nats a pair"),
            loss_chart(lines, "loss_caption", "caption loss, nats a token"),
            rate_chart(lines, "samples_per_s", "samples a second"),
        ]
    return [loss_chart(lines, "loss", "loss of what the assistant says, nats a token"), step_time_chart(lines)]


def _facts(stage: dict[str, Any], lines: Lines) -> list[tuple[str, str]]:
    validated = [line["eval/loss"] for line in lines if "eval/loss" in line]
    rates = [
        f"{stage[key]:,.0f} {unit}/s"
        for key, unit in (("samples_per_s", "samples"), ("tokens_per_s", "tokens"))
        if key in stage
    ]
    return [
        ("steps", str(stage["steps"])),
        ("workers", f"{stage['world_size']}, ZeRO-{stage['zero_stage']}"),
        ("rate, median", ", ".join(rates)),
        ("training loss", f"{stage['loss_first']:.2f} → {stage['loss_last']:.2f}"),
        *([("validation loss, best", f"{min(validated):.3f}")] if validated else []),
        ("W&B run", stage["wandb_run"]),
        ("resumed from", f"step {stage['resumed_from']}" if stage["resumed_from"] else "started fresh"),
        ("checkpoint", stage["checkpoint"]),
    ]


def _llm_facts(made: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("parameters", f"{made['parameters'] / 1e6:.1f} million"),
        ("vocabulary", f"{made['vocabulary']} tokens"),
        ("conversations", f"{made['conversations']:,}"),
        ("steps", str(made["steps"])),
        ("training loss", f"{made['loss_first']:.2f} → {made['loss_last']:.2f}"),
        ("took", f"{made['seconds']:.0f} s"),
    ]
