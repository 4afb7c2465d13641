"""Teach the LLM to hold a conversation about ECGs: ECG-Chat's second stage, low-rank adapters and the projector.

python -m jobs.instruct --config jobs/configs/instruct/demo.yaml --align URI --data.shards URI --run.folder URI
torchrun --nproc-per-node 2 -m jobs.instruct --config …
ray job submit --address http://HEAD:8265 --working-dir . -- python -m jobs.instruct --config …
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from cluster.errors import at_least
from cluster.loop import OnReport
from ecgchat.chat_export import READER, export_config, llm_source, take_weights, write_adapter, write_chat
from ecgchat.models.ecg_chat import EcgChatModel
from ecgchat.models.ecg_reader import EcgReader, EcgReaderConfig
from jobs.config import ConfigError
from jobs.folders import local_source, reading
from jobs.language import LanguageJob, LanguageStage
from jobs.launch import run_worker, start


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters of the LLM's linear layers (Hu et al., LoRA, 2021), through peft."""

    rank: int = 64
    alpha: int = 16
    """Adapters are scaled by alpha / rank. 64 and 16 are ECG-Chat's."""
    dropout: float = 0.0
    """0 keeps a step a function of its batch alone, which resuming and comparing world sizes rest on."""
    targets: str | list[str] = "all-linear"
    """Names of the layers that get one; all-linear: every one but the head."""

    def __post_init__(self) -> None:
        at_least(1, lora__rank=self.rank)
        at_least(0, lora__alpha=self.alpha, lora__dropout=self.dropout)


@dataclass(frozen=True, kw_only=True)
class InstructJob(LanguageJob):
    """Train adapters of the LLM and the projector on conversations."""

    align: str
    """Folder or URI of an export of `align`: the encoder, the projector, and which LLM they were made for."""
    llm: str | None = None
    """Folder, URI or hub id of the causal LLM; null takes the one that the export of `align` names."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    train_projector: bool = True
    """Go on training the projector, as ECG-Chat does."""


class InstructStage(LanguageStage):
    """The stage that the worker loop runs."""

    name = "instruct"

    def __init__(self, job: InstructJob) -> None:
        self.job = job
        super().__init__(job, job.llm or llm_of(job.align), job.align)

    @cached_property
    def reader_config(self) -> EcgReaderConfig:
        """The aligned reader's own."""
        with reading(self.job.align, "export of align"):
            found = export_config(self.encoder_folder)
        if found.adapter:
            raise ConfigError(
                f"{self.job.align}: an export of instruct, whose adapters would be left out; "
                "name the export of align that it was made from"
            )
        return found

    def make_model(self) -> EcgChatModel:
        """Frozen tower, the aligned projector, and the LLM with new adapters."""
        with reading(self.job.align, "export of align"):
            reader = EcgReader.from_pretrained(self.encoder_folder, dtype=self.dtype)
        reader.projector.requires_grad_(self.job.train_projector)
        with reading(self.llm_folder, "LLM"):
            return EcgChatModel(reader, with_adapters(self.load_llm(), self.job.lora))


def llm_of(export: str) -> str:
    """Where the LLM lies that an export was made for: in it, or at a hub.

    Raises:
        ConfigError: the folder is no export of `align` or `instruct`.
    """
    folder = local_source(export)
    with reading(export, "export of align"):
        return llm_source(folder)


def write_export(settings: dict[str, Any], record: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> None:
    """Write the reader, the LLM and its adapters.

    Args:
        settings: of the run.
        record: the run's `config.json`.
        weights: of what was trained, by their names in the model.
        folder: to make.
    """
    reader = EcgReader.from_pretrained(local_source(settings["align"]))
    if settings["train_projector"]:
        take_weights(reader, weights, READER)
    llm = local_source(settings["llm"] or llm_of(settings["align"]))
    write_chat(folder, reader, llm, settings["pad_token"], adapter=True)
    with torch.device("meta"):
        # Adapters alone were trained: of the LLM, names and shapes are needed and no weights.
        named = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(llm))
        adapted = with_adapters(named, LoraSettings(**settings["lora"]))
    write_adapter(folder, adapted, weights)


def with_adapters(llm: Any, lora: LoraSettings) -> Any:
    """The LLM with new adapters, which alone are trainable."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        llm,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            task_type="CAUSAL_LM",
        ),
    )


def worker(settings: dict[str, Any], on_report: OnReport) -> dict[str, Any]:
    """One rank of the job, in a process group that a launcher made."""
    return run_worker(InstructJob, InstructStage, settings, on_report)


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the settings, then train, or only say what would be done."""
    from jobs.dry_run import describe_language

    start(InstructJob, InstructStage, describe_language, "jobs.instruct:worker", "ecgchat train instruct", arguments)


if __name__ == "__main__":
    from jobs.errors import one_sentence

    sys.exit(one_sentence(main))
