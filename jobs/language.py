"""What the stages that train on conversations share: their data, their batches, their loss on what the assistant says."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cluster.engine import compute_type
from cluster.launch.config import LaunchConfig
from cluster.loop import TrainConfig
from cluster.stage import Picture, StepData, Term
from cluster.world import World
from ecgchat.conversation import TokenisedConversation, collate, load_chat_tokenizer, tokenise
from ecgchat.models.ecg_chat import IGNORE, ChatBatch
from ecgchat.models.ecg_reader import EcgReaderConfig
from ecgchat.models.ecg_tower import EcgTowerConfig
from ecgchat.models.signal import counts_to_millivolts
from jobs.config import ConfigError, RunConfig
from jobs.folders import local_source, reading, source_digest
from shards.conversations.loader import ConversationBatch, ConversationLoader, ConversationSample
from shards.dataset import ShardSet
from shards.draw import draw_ecg
from shards.loader import LoaderConfig
from shards.order import OrderConfig
from shards.record import INVALID, LEADS

Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]

EMPTY = TokenisedConversation([], [], [], 0)
"""Stands where a rank has no conversation."""

EXAMPLES = 4


@dataclass(frozen=True)
class ConversationDataConfig:
    """What to train on."""

    shards: str
    """URI of a data set that `ecgchat shards conversations` wrote."""
    train_split: str = "train"
    validation_split: str = "val"
    context_length: int = 2048
    """Tokens of a conversation, those of its ECGs among them; what is longer is cut at the end."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)


class LanguageJob(Protocol):
    """Settings that both stages have."""

    @property
    def run(self) -> RunConfig: ...  # noqa: D102
    @property
    def data(self) -> ConversationDataConfig: ...  # noqa: D102
    @property
    def pad_token(self) -> str | None: ...  # noqa: D102
    @property
    def attention(self) -> Attention: ...  # noqa: D102
    @property
    def train(self) -> TrainConfig: ...  # noqa: D102
    @property
    def launch(self) -> LaunchConfig: ...  # noqa: D102
    @property
    def share_text(self) -> bool | None: ...  # noqa: D102


class LanguageStage(ABC):
    """A stage on conversations. It keeps the protocol of `cluster.stage.Stage`.

    Args:
        job: the settings.
        llm: folder, URI or hub id of the LLM.
        encoder: folder, URI or hub id that the ECG tower comes from.
    """

    name: str

    def __init__(self, job: LanguageJob, llm: str, encoder: str) -> None:
        self.settings = job
        self.global_batch = job.data.loader.order.global_batch
        self.dataset = ShardSet.open(job.data.shards)
        self.dataset.require_kind("conversation", self.name)
        self.llm_folder = local_source(llm)
        self.encoder_folder = local_source(encoder)
        with reading(llm, "LLM"):
            self.tokenizer = load_chat_tokenizer(self.llm_folder, job.pad_token)
            from transformers import AutoConfig

            self.llm_config = AutoConfig.from_pretrained(self.llm_folder).get_text_config()
        self.dtype = compute_type(job.train.engine.precision)
        self._check_context()
        self.dataset.require_rate(self.ecg.sampling_rate_hz, self.name)
        self.training = self.dataset.select(job.data.train_split)
        self.validation = self.dataset.select(job.data.validation_split)
        self._batches = self._loader(self.training, job.data.loader, 0, 1).batches

    @property
    @abstractmethod
    def reader_config(self) -> EcgReaderConfig:
        """What the reader of this stage is made of."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The model, the same on every rank."""

    @cached_property
    def ecg(self) -> EcgTowerConfig:
        """Which ECGs the tower reads."""
        return EcgTowerConfig(**self.reader_config.ecg)

    def load_llm(self) -> Any:
        """The LLM with its pretrained weights, frozen."""
        from transformers import AutoModelForCausalLM

        llm = AutoModelForCausalLM.from_pretrained(
            self.llm_folder, dtype=self.dtype, attn_implementation=attention_backend(self.settings.attention)
        )
        return llm.requires_grad_(False)

    def frozen(self) -> dict[str, str]:
        """The LLM's and the ECG tower's weights, by the digest of their folders."""
        return {"llm": source_digest(self.llm_folder), "encoder": source_digest(self.encoder_folder)}

    def steps_per_epoch(self) -> int:
        """Full batches of the training split."""
        return self._batches

    def training_data(self, world: World, state: dict[str, Any] | None) -> Generator[StepData, None, None]:
        """Batches without end, in the order of `shards.order`."""
        loader = self._loader(self.training, self.settings.data.loader, world.rank, world.size)
        if state is not None:
            loader.start = loader.order.restore(state)
        for batch in loader:
            yield self._step_data(batch, loader.order.state(batch.position), world)

    def validation_data(self, world: World) -> Iterator[StepData]:
        """The validation split once, in the order of its shards, the last batch padded."""
        order = OrderConfig(global_batch=min(self.global_batch, self.validation.index.num_rows), shuffle=False, drop_tail=False)
        loader = self._loader(self.validation, LoaderConfig(order), world.rank, world.size)
        for _, batch in zip(range(loader.batches), loader, strict=False):
            yield self._step_data(batch, {}, world)

    def counts(self, micro_batch: ChatBatch) -> dict[str, Tensor]:
        """Tokens that the assistant says."""
        return {"answer": (micro_batch.labels[:, 1:] != IGNORE).sum()}

    def terms(self, model: nn.Module, micro_batch: ChatBatch, world: World) -> dict[str, Term]:
        """Next-token loss of what the assistant says."""
        return {"answer": Term(model(micro_batch))}

    def describe(self) -> dict[str, Any]:
        """The data and the model, for the run's record."""
        return {
            "data": {
                "source": self.dataset.manifest["source"],
                "index_sha256": self.dataset.digest,
                "simulated": self.dataset.simulated,
                "counts": self.dataset.manifest["counts"],
                "records_trained_on": self.training.index.num_rows,
                "shards": len(self.dataset.manifest["shards"]),
            },
            "model": {
                "reader": self.reader_config.to_dict(),
                "llm": self.llm_config.to_dict(),
                "attention": attention_backend(self.settings.attention),
            },
        }

    def pictures(self) -> list[Picture]:
        """A few ECGs with their conversations, where they may leave the machine."""
        share = self.settings.share_text
        if not (self.dataset.simulated if share is None else share):
            return []
        count = min(EXAMPLES, self.training.index.num_rows)
        config = LoaderConfig(OrderConfig(global_batch=count, lanes=1, block=count, shuffle=False), ahead=1)
        batch = next(iter(self._loader(self.training, config, 0, 1)))
        return [
            Picture(sample.key, draw_ecg(sample.ecgs[0], sample.mv_per_lsb[0], sample.record["fs_hz"], dpi=100), said(sample))
            for sample in batch.samples
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

    def _loader(self, data: ShardSet, config: LoaderConfig, rank: int, world_size: int) -> ConversationLoader:
        return ConversationLoader(data, config, rank, world_size)

    def _step_data(self, batch: ConversationBatch, state: dict[str, Any], world: World) -> StepData:
        parts = self.settings.train.engine.gradient_accumulation
        each = -(-len(batch.samples) // parts)
        samples = [*batch.samples, *[None] * (parts * each - len(batch.samples))]
        micro_batches = [self._micro_batch(samples[part * each : (part + 1) * each], world) for part in range(parts)]
        tokens = sum(int(micro_batch.attention_mask.sum()) for micro_batch in micro_batches)
        on_device = [ChatBatch(*(tensor.to(world.device, non_blocking=True) for tensor in batch)) for batch in micro_batches]
        return StepData(on_device, state, batch.wait_s, [key for key in batch.keys if key], tokens)

    def _micro_batch(self, samples: Sequence[ConversationSample | None], world: World) -> ChatBatch:
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
