"""The whole way on one machine, as it goes on a cluster: `make demo`, or `make demo DATA=path/to/ptb-xl`.

    python -m jobs.demo --out runs/demo [--data DIR] [--store s3://bucket/prefix]

A corpus becomes shards of ECGs and of conversations on an S3 server; a small LLM is made from the conversations; three jobs
are submitted to one Ray cluster, each with two DeepSpeed workers that stream the shards, the later ones from the export of
the one before; encoder and chat model are evaluated on held-out patients. `summary.json` and `report.html` say what came out,
and the chat model lies in `chat`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from rich.console import Console

from cluster import metrics
from cluster.errors import RunError
from cluster.launch.ray_jobs import RayOptions, submit
from cluster.local import object_store, ray_head
from cluster.markers import Marker
from ecgchat.small_llm import SmallLlmConfig
from jobs import shards as shard_tools
from jobs.errors import one_sentence
from jobs.eval import EvalJob, coca_card_rows, embed, measure, show
from jobs.eval_chat import chat_card_rows, evaluate_chat, show_chat
from jobs.export import ExportJob, add_results, export
from jobs.llm import LlmJob, make_llm
from jobs.report.examples import NearestReport, Talk, nearest_reports, talks
from jobs.report.page import Outcome, write_page
from jobs.report.summary import data_facts, newest_checkpoint, stage_facts
from jobs.tokenizer import TokenizerJob, make_tokenizer
from shards.dataset import ShardSet
from shards.storage import Store

PROJECT = Path(__file__).parents[1]
SIMULATED_RECORDS = 4000
SEED = 1

Stage = Literal["coca", "align", "instruct"]
STAGES: tuple[Stage, ...] = ("coca", "align", "instruct")

ENOUGH_FOR_CONFIG = 640
"""Training records from which on `demo.yaml` is taken: the encoder's has ten steps an epoch then. Below, `demo-small.yaml`."""

SMALL_LLM = SmallLlmConfig(vocabulary=800, steps=60)
"""For fewer records than that: so few words are soon known by heart."""

ASKED = 300
"""Held-out samples that the chat model is asked about, each a dozen questions, and each of them twice."""
QUESTIONS_AT_ONCE = 64

WORKERS = 2

MADE = ("store", "llm", "chat", *STAGES)
"""Folders of an earlier demo that are removed at the start."""
WRITTEN = ("summary.json", "report.html", "ray.log", "s3.log", *(f"{stage}.log" for stage in STAGES))
"""And files."""

console = Console()


@dataclass(frozen=True)
class Options:
    """What the demo was asked for."""

    out: Path
    data: Path | None
    store: str | None
    overrides: list[str]
    """Settings of the job that trains `coca`."""


@dataclass(frozen=True)
class Pipeline:
    """What the steps of one demo share."""

    options: Options
    base: str
    """URI that all of it lies below."""
    corpus: Path
    name: str
    """Joins the stages' W&B runs."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Step → how long it took."""

    def uri(self, name: str) -> str:
        """Of something below the base."""
        return f"{self.base}/{name}"

    def run(self, stage: Stage) -> str:
        """URI of a stage's run folder."""
        return self.uri(f"runs/{stage}")

    def export(self, stage: Stage) -> str:
        """URI of a stage's export."""
        return self.uri(f"exports/{stage}")

    def out(self, name: str) -> Path:
        """Local place of something."""
        return self.options.out / name

    @contextlib.contextmanager
    def step(self, heading: str) -> Iterator[None]:
        """Say what is done, and keep how long it took."""
        console.print(f"\n[bold]── {heading}[/bold]", highlight=False)
        started = time.monotonic()
        yield
        self.seconds[heading] = round(time.monotonic() - started, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its status."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo", description="The whole way, end to end, on this machine.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything (default %(default)s)")
    parser.add_argument("--data", type=Path, help="PTB-XL folder; without it, ECGs are simulated")
    parser.add_argument("--store", help="s3://… of your own, with its keys in the environment; without it, one is started here")
    parser.add_argument("overrides", nargs="*", help="after --, settings of the job that trains coca, such as --train.steps 50")
    namespace = parser.parse_args(arguments)
    return run(Options(namespace.out.absolute(), namespace.data, namespace.store, namespace.overrides))


def run(options: Options) -> int:
    """All steps in order; what they start is stopped whatever happens."""
    started = time.monotonic()
    if options.data is not None and not options.data.is_dir():
        raise RunError(f"DATA={options.data}: no such folder; name one in PTB-XL's layout, or leave it out to simulate")
    options.out.mkdir(parents=True, exist_ok=True)
    for old in (*MADE, *WRITTEN):
        _remove(options.out / old)
    name = f"demo-{time.strftime('%Y%m%dT%H%M%S')}"
    with _store(options, name) as base:
        pipeline = Pipeline(options, base, options.data or options.out / "simulated", name)
        small = _make_data(pipeline)
        llm = _make_llm(pipeline, small)
        with _ray(pipeline) as address:
            encoder, nearest = _evaluate_encoder(pipeline, _train(pipeline, address, "coca", small))
            _train(pipeline, address, "align", small)
            chat_marker = _train(pipeline, address, "instruct", small)
        chat, spoken = _evaluate_chat(pipeline, chat_marker)
        data = data_facts(ShardSet.open(pipeline.uri("shards")))
        stages = {stage: stage_facts(pipeline.out(stage), newest_checkpoint(Store(pipeline.run(stage)))) for stage in STAGES}
    seconds = {"whole": round(time.monotonic() - started, 1), "steps": pipeline.seconds}
    summary = {"data": data, "stages": stages, "llm": llm, "eval": encoder, "eval_chat": chat, "seconds": seconds}
    _report(pipeline, summary, nearest, spoken)
    return 0


def _make_data(pipeline: Pipeline) -> bool:
    """Shards, conversations about them, and the text tower's tokenizer; whether there is little to train on."""
    if pipeline.options.data is None:
        with pipeline.step(f"simulating {SIMULATED_RECORDS} ECGs in PTB-XL's layout"):
            words = ["--records", str(SIMULATED_RECORDS), "--seed", str(SEED)]
            shard_tools.main(["simulate", "--out", str(pipeline.corpus), *words])
    shards = pipeline.uri("shards")
    with pipeline.step("building shards"):
        shard_tools.main(["build", "ptb-xl", str(pipeline.corpus), "--out", shards, "--records-per-shard", "128"])
    with pipeline.step("making conversations about them"):
        for task, name in (("report", "reports"), ("dialogue", "dialogues")):
            words = ["--out", pipeline.uri(name), "--task", task, "--records-per-shard", "128"]
            shard_tools.main(["conversations", shards, *words])
    with pipeline.step("making a tokenizer for the text tower"):
        size = make_tokenizer(TokenizerJob(shards, pipeline.uri("tokenizer"), vocabulary=2000))
        console.print(f"{size} tokens in {pipeline.uri('tokenizer')}")
    return ShardSet.open(shards).select("train").index.num_rows < ENOUGH_FOR_CONFIG


def _make_llm(pipeline: Pipeline, small: bool) -> dict[str, Any]:
    """A small LLM from the conversations, and how long it took."""
    heading = "making a small LLM from the conversations"
    with pipeline.step(heading):
        conversations = ",".join(pipeline.uri(name) for name in ("reports", "dialogues"))
        made = make_llm(LlmJob(conversations, pipeline.uri("llm"), SMALL_LLM if small else SmallLlmConfig()))
        Store(pipeline.uri("llm")).download(metrics.FILE, pipeline.out("llm") / metrics.FILE)
        console.print(
            f"{made['parameters'] / 1e6:.1f} M parameters, {made['vocabulary']} tokens, from {made['conversations']} "
            f"conversations; loss {made['loss_first']:.2f} → {made['loss_last']:.2f} nats a token"
        )
    return {**made, "seconds": pipeline.seconds[heading]}


@contextlib.contextmanager
def _ray(pipeline: Pipeline) -> Iterator[str]:
    """Address of a Ray cluster on loopback; whoever submits to it is let in."""
    with contextlib.ExitStack() as stack:
        with pipeline.step("starting a Ray head on loopback, with dashboard and token"):
            head = stack.enter_context(ray_head.serve(pipeline.out("ray.log"), {}, cpus=WORKERS))
            stack.enter_context(_environment(head.environment))
        yield head.address


def _settings(pipeline: Pipeline, stage: Stage) -> list[str]:
    """Where a stage's data lies and what it starts from."""
    uri = pipeline.uri
    return {
        "coca": [f"--data.shards={uri('shards')}", f"--data.tokenizer={uri('tokenizer')}", *pipeline.options.overrides],
        "align": [f"--data.shards={uri('reports')}", f"--encoder={pipeline.export('coca')}", f"--llm={uri('llm')}"],
        "instruct": [f"--data.shards={uri('dialogues')}", f"--align={pipeline.export('align')}"],
    }[stage]


def _train(pipeline: Pipeline, address: str, stage: Stage, small: bool) -> Marker:
    """Submit a stage's job and follow it; fetch what people look at, and export its best checkpoint."""
    config = f"jobs/configs/{stage}/{'demo-small' if small else 'demo'}.yaml"
    common = [f"--run.folder={pipeline.run(stage)}", f"--train.tracking.group={pipeline.name}"]
    command = shlex.join(["python", "-m", f"jobs.{stage}", "--config", config, *common, *_settings(pipeline, stage)])
    log_file = pipeline.out(f"{stage}.log")
    with pipeline.step(f"training {stage} on Ray"), log_file.open("w") as log:
        console.print(f"ray job submit --address {address} --working-dir . -- {command}", highlight=False, soft_wrap=True)
        if submit(command, RayOptions(address, PROJECT), stage, write=lambda text: _write(text, log)):
            raise RunError(f"the job that trains {stage} failed; its output is above and in {log_file}")
    with pipeline.step(f"exporting {stage}"):
        _fetch(Store(pipeline.run(stage)), pipeline.out(stage))
        marker = export(ExportJob(pipeline.run(stage), pipeline.export(stage)))
        console.print(f"{marker.name} in {pipeline.export(stage)}", highlight=False)
    return marker


def _evaluate_encoder(pipeline: Pipeline, marker: Marker) -> tuple[dict[str, dict[str, Any]], list[NearestReport]]:
    with pipeline.step("evaluating the encoder on held-out patients"):
        split = embed(EvalJob(pipeline.export("coca"), pipeline.uri("shards")))
        results = measure(split)
        show(results, console)
        add_results(ExportJob(pipeline.run("coca"), pipeline.export("coca")), marker, coca_card_rows(results))
        return results, nearest_reports(split, ShardSet.open(pipeline.uri("shards")))


def _evaluate_chat(pipeline: Pipeline, marker: Marker) -> tuple[dict[str, dict[str, Any]], list[Talk]]:
    """Ask the chat model about held-out patients, and keep a copy of it that outlives the store."""
    with pipeline.step("asking the chat model about held-out patients"):
        job = ExportJob(pipeline.run("instruct"), pipeline.export("instruct"))
        results = evaluate_chat(job.out, pipeline.uri("dialogues"), "test", ASKED, QUESTIONS_AT_ONCE)
        show_chat(results.rows, console)
        add_results(job, marker, chat_card_rows(results.rows))
        _fetch(Store(job.out), pipeline.out("chat"))
        return results.rows, talks(results.answered)


def _report(pipeline: Pipeline, summary: dict[str, Any], nearest: list[NearestReport], spoken: list[Talk]) -> None:
    """Write what came out, and say where."""
    pipeline.out("summary.json").write_text(json.dumps(summary, indent=1))
    lines = {name: metrics.read(pipeline.out(name) / metrics.FILE) for name in ("llm", *STAGES)}
    command = _chat_command(pipeline, spoken)
    write_page(pipeline.out("report.html"), Outcome(summary, lines, nearest, spoken, command))
    losses = "; ".join(
        f"{stage} {facts['loss_first']:.2f} → {facts['loss_last']:.2f}" for stage, facts in summary["stages"].items()
    )
    console.print(f"\n[bold]{summary['seconds']['whole']:.0f} s[/bold]: loss of {losses}", highlight=False)
    console.print(f"look at {_near(pipeline.out('report.html'))} and {_near(pipeline.out('summary.json'))}", soft_wrap=True)
    console.print(f"talk with it: {command}", highlight=False, soft_wrap=True)


def _chat_command(pipeline: Pipeline, spoken: Sequence[Talk]) -> str:
    """What to type to talk about a held-out recording; about ECGs in general where none was asked about."""
    ecg = ["--ecg", _near(pipeline.corpus / spoken[0].source_path)] if spoken else []
    return shlex.join(["ecgchat", "chat", _near(pipeline.out("chat")), *ecg])


def _near(path: Path) -> str:
    """A path as it is typed here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@contextlib.contextmanager
def _store(options: Options, name: str) -> Iterator[str]:
    """Base URI for all that the demo writes: below the user's store, or on a server of its own."""
    if options.store:
        yield f"{options.store.rstrip('/')}/{name}"
        return
    with object_store.serve(options.out / "store", log=options.out / "s3.log") as server, _environment(server.environment):
        console.print(f"S3 server on {server.environment['AWS_ENDPOINT_URL']} (rclone serve s3)")
        yield f"{server.uri}/demo"


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _write(text: str, log: TextIO) -> None:
    log.write(text)
    sys.stdout.write(text)
    sys.stdout.flush()


def _fetch(source: Store, folder: Path) -> None:
    """Bring a run's or an export's folder here, without checkpoints."""
    for name in source.list():
        if not name.startswith("checkpoints/"):
            source.download(name, folder / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(one_sentence(main))
