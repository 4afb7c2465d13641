"""What the stages that train on conversations share: their data, their batches, their loss on what the assistant says."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from cluster.engine import compute_type
from cluster.stage import Picture, StepData, Term
from cluster.world import World
from ecgchat.conversation import TokenisedConversation, collate, load_chat_tokenizer, tokenise
from ecgchat.models.ecg_chat import IGNORE, ChatBatch, EcgChatModel
from ecgchat.models.ecg_reader import EcgReaderConfig
from ecgchat.models.ecg_tower import EcgTowerConfig
from ecgchat.models.flops import ChatFlops
from ecgchat.models.signal import counts_to_millivolts
from jobs.config import ConfigError
from jobs.folders import local_source, reading, source_digest
from jobs.launch import TrainingJob
from jobs.shard_stage import ShardDataConfig, ShardStage
from shards.conversations.loader import ConversationBatch, ConversationLoader, ConversationSample
from shards.draw import draw_ecg
from shards.mixture import Mixture
from shards.record import INVALID, LEADS
from shards.stream import LoaderConfig

Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]

EMPTY = TokenisedConversation([], [], [], 0)
"""Stands where a rank has no conversation."""


@dataclass(frozen=True, kw_only=True)
class ConversationDataConfig(ShardDataConfig):
    """What to train on."""

    context_length: int = 2048
    """Tokens of a conversation, those of its ECGs among them; what is longer is cut at the end."""


@dataclass(frozen=True, kw_only=True)
class LanguageJob(TrainingJob):
    """Settings that both stages have."""

    data: ConversationDataConfig
    pad_token: str | None = None
    """Token to pad with, where the LLM's tokenizer has none for it."""
    attention: Attention = "auto"
    """Attention of the LLM; auto takes flash attention where its package and a GPU are there, else SDPA."""


class LanguageStage(ShardStage[ConversationBatch]):
    """A stage on conversations. It keeps the protocol of `cluster.stage.Stage`.

    Args:
        job: the settings.
        llm: folder, URI or hub id of the LLM.
        encoder: folder, URI or hub id that the ECG tower comes from.
    """

    kind = "conversation"
    settings: LanguageJob

    def __init__(self, job: LanguageJob, llm: str, encoder: str) -> None:
        self.settings = job
        self.llm_folder = local_source(llm)
        self.encoder_folder = local_source(encoder)
        with reading(llm, "LLM"):
            self.tokenizer = load_chat_tokenizer(self.llm_folder, job.pad_token)
            self.llm_config = AutoConfig.from_pretrained(self.llm_folder).get_text_config()
        self.dtype = compute_type(job.train.engine.precision)
        self.flops: ChatFlops | None = None
        """Known once the model is built, where its layers can be counted."""
        self._check_context()
        super().__init__(job, job.data, self.ecg.sampling_rate_hz)

    @property
    @abstractmethod
    def reader_config(self) -> EcgReaderConfig:
        """What the reader of this stage is made of."""

    @abstractmethod
    def make_model(self) -> EcgChatModel:
        """The model, the same on every rank."""

    def build_model(self) -> nn.Module:
        """The same, and what a step of it takes."""
        model = self.make_model()
        self.flops = ChatFlops(model, self.llm_config) if ChatFlops.can_count(model.llm) else None
        return model

    @property
    def ecg(self) -> EcgTowerConfig:
        """Which ECGs the tower reads."""
        return self.reader_config.tower

    def load_llm(self) -> Any:
        """The LLM with its pretrained weights, frozen."""
        llm = AutoModelForCausalLM.from_pretrained(
            self.llm_folder, dtype=self.dtype, attn_implementation=attention_backend(self.settings.attention)
        )
        return llm.requires_grad_(False)

    def frozen(self) -> dict[str, str]:
        """The LLM's and the ECG tower's weights, by the digest of their folders."""
        return {"llm": source_digest(self.llm_folder), "encoder": source_digest(self.encoder_folder)}

    def counts(self, micro_batch: ChatBatch) -> dict[str, Tensor]:
        """Tokens that the assistant says."""
        return {"answer": (micro_batch.labels[:, 1:] != IGNORE).sum()}

    def terms(self, model: nn.Module, micro_batch: ChatBatch, world: World) -> dict[str, Term]:
        """Next-token loss of what the assistant says."""
        return {"answer": Term(model(micro_batch))}

    def describe(self) -> dict[str, Any]:
        """The data and the model, for the run's record."""
        return {
            "data": self.data_record(),
            "model": {
                "reader": self.reader_config.to_dict(),
                "llm": self.llm_config.to_dict(),
                "attention": attention_backend(self.settings.attention),
            },
        }

    def pictures(self) -> list[Picture]:
        """A few ECGs with their conversations, where they may leave the machine."""
        if not self.may_share():
            return []
        return [
            Picture(sample.key, draw_ecg(sample.ecgs[0], sample.mv_per_lsb[0], sample.record["fs_hz"], dpi=100), said(sample))
            for sample in self.first_batch().samples
            if sample is not None and sample.ecgs
        ]

    def _check_context(self) -> None:
        ecg, context = self.reader_config.tokens_per_ecg, self.settings.data.context_length
        longest = getattr(self.llm_config, "max_position_embeddings", None)
        if longest is not None and context > longest:
            raise ConfigError(
                f"data.context_length {context}: the LLM {self.llm_folder} reads at most {longest} tokens; "
                "set it to that or less"
            )
        if ecg >= context:
            raise ConfigError(
                f"data.context_length {context}: one ECG takes {ecg} tokens of it, which leaves no room for words; "
                f"set it to more than {ecg}, or use an encoder with longer patches"
            )

    def loader(
        self, data: Mixture, config: LoaderConfig, world: World | None = None, training: bool = False
    ) -> ConversationLoader:
        """Conversations with their ECGs."""
        del training
        return ConversationLoader(data, config, *((world.rank, world.size) if world else (0, 1)))

    def step_data(self, batch: ConversationBatch, state: dict[str, Any], world: World) -> StepData:
        """Micro-batches on this rank's device, as many on every rank."""
        parts = self.settings.train.engine.gradient_accumulation
        each = -(-len(batch.samples) // parts)
        samples = [*batch.samples, *[None] * (parts * each - len(batch.samples))]
        micro_batches = [self._micro_batch(samples[part * each : (part + 1) * each]) for part in range(parts)]
        lengths = torch.cat([micro_batch.attention_mask.sum(1) for micro_batch in micro_batches])
        ecgs = sum(int(micro_batch.ecg_places.sum()) for micro_batch in micro_batches) // self.reader_config.tokens_per_ecg
        return StepData(
            [micro_batch.to(world.device) for micro_batch in micro_batches],
            state,
            batch.wait_s,
            [key for key in batch.keys if key],
            tuple(batch.damaged),
            tokens=int(lengths.sum()),
            flops=self.flops.step(ecgs, lengths) if self.flops else 0.0,
        )

    def _micro_batch(self, samples: Sequence[ConversationSample | None]) -> ChatBatch:
        conversations = [EMPTY if sample is None else self._tokenise(sample) for sample in samples]
        ecgs = [
            (sample.ecgs[number], sample.mv_per_lsb[number])
            for sample, conversation in zip(samples, conversations, strict=True)
            if sample is not None
            for number in range(conversation.ecgs)
        ]
        millivolts = ecgs_to_millivolts(ecgs, self.ecg.samples, self.dtype)
        return collate(conversations, millivolts, int(self.tokenizer.pad_token_id or 0))

    def _tokenise(self, sample: ConversationSample) -> TokenisedConversation:
        return tokenise(
            self.tokenizer,
            sample.record["conversations"],
            self.reader_config.tokens_per_ecg,
            self.settings.data.context_length,
            sample.key,
        )


def ecgs_to_millivolts(
    ecgs: Sequence[tuple[np.ndarray[Any, np.dtype[np.int16]], Sequence[float]]], samples: int, dtype: torch.dtype
) -> Tensor:
    """(max(1, ECGs), 12, samples) in millivolts, each cut or padded to length; one silent ECG where there is none.

    Args:
        ecgs: counts of shape (12, its own length), and millivolts of one count for each lead.
        samples: that the tower reads of each lead.
        dtype: what the model computes in.
    """
    counts = np.full((max(1, len(ecgs)), len(LEADS), samples), INVALID, np.int16)
    scale = np.ones((len(counts), len(LEADS)), np.float32)
    for place, (ecg, mv_per_lsb) in enumerate(ecgs):
        length = min(samples, ecg.shape[1])
        counts[place, :, :length] = ecg[:, :length]
        scale[place] = mv_per_lsb
    return counts_to_millivolts(torch.from_numpy(counts), torch.from_numpy(scale), dtype)


def attention_backend(wanted: Attention) -> str:
    """What transformers calls the attention to use. auto: flash attention where its package and a GPU are there, else SDPA."""
    if wanted != "auto":
        return wanted
    there = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if there else "sdpa"


def said(sample: ConversationSample) -> str:
    """A conversation as people read it."""
    return "\n".join(f"{turn['from']}: {turn['value']}" for turn in sample.record["conversations"])
