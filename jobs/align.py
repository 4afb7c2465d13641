"""Teach a projector to show ECGs to a frozen LLM: ECG-Chat's first stage.

python -m jobs.align --config jobs/configs/align/demo.yaml --encoder URI --llm URI --data.shards URI --run.folder URI
torchrun --nproc-per-node 2 -m jobs.align --config …
ray job submit --address http://HEAD:8265 --working-dir . -- python -m jobs.align --config …
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoConfig

from cluster.loop import OnReport
from ecgchat.chat_export import READER, take_weights, write_chat
from ecgchat.models.coca import CocaConfig, CocaModel
from ecgchat.models.ecg_chat import EcgChatModel
from ecgchat.models.ecg_reader import EcgReader, EcgReaderConfig, ProjectorConfig
from jobs.folders import local_source, reading
from jobs.language import LanguageJob, LanguageStage
from jobs.launch import run_worker, start


@dataclass(frozen=True, kw_only=True)
class AlignJob(LanguageJob):
    """Train the projector from ECG tokens into a frozen LLM."""

    encoder: str
    """Folder, URI or hub id of an exported ECG-CoCa."""
    llm: str
    """Folder, URI or hub id of a causal LLM."""
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)


class AlignStage(LanguageStage):
    """The stage that the worker loop runs."""

    name = "align"

    def __init__(self, job: AlignJob) -> None:
        self.job = job
        super().__init__(job, job.llm, job.encoder)

    @cached_property
    def reader_config(self) -> EcgReaderConfig:
        """The encoder's tower, and a projector of the LLM's width."""
        with reading(self.job.encoder, "exported ECG-CoCa"):
            coca = AutoConfig.from_pretrained(self.encoder_folder)
            if not isinstance(coca, CocaConfig):
                raise ValueError(f"it holds a model of type {coca.model_type!r}")
        return EcgReaderConfig(coca.ecg, coca.latent_width, asdict(self.job.projector), self.llm_config.hidden_size)

    def make_model(self) -> EcgChatModel:
        """Frozen tower, new projector, frozen LLM."""
        with reading(self.job.encoder, "exported ECG-CoCa"):
            coca = CocaModel.from_pretrained(self.encoder_folder)
        reader = EcgReader.on_top_of(coca, self.job.projector, self.llm_config.hidden_size).to(self.dtype)
        with reading(self.job.llm, "LLM"):
            return EcgChatModel(reader, self.load_llm())


def write_export(settings: dict[str, Any], record: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> None:
    """Write the reader with its trained projector, and the LLM that it was made for.

    Args:
        settings: of the run.
        record: the run's `config.json`.
        weights: of what was trained, by their names in the model.
        folder: to make.
    """
    coca = CocaModel.from_pretrained(local_source(settings["encoder"]))
    reader = EcgReader.on_top_of(coca, ProjectorConfig(**settings["projector"]), record["model"]["reader"]["llm_width"])
    take_weights(reader, weights, READER)
    write_chat(folder, reader, local_source(settings["llm"]), settings["pad_token"])


def worker(settings: dict[str, Any], on_report: OnReport) -> dict[str, Any]:
    """One rank of the job, in a process group that a launcher made."""
    return run_worker(AlignJob, AlignStage, settings, on_report)


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the settings, then train, or only say what would be done."""
    from jobs.dry_run import describe_language

    start(AlignJob, AlignStage, describe_language, "jobs.align:worker", "ecgchat train align", arguments)


if __name__ == "__main__":
    from jobs.errors import one_sentence

    sys.exit(one_sentence(main))
