"""Train ECG-CoCa: an ECG encoder, a text tower and a caption decoder, on ECG-text shards.

python -m jobs.coca --config jobs/configs/coca/demo.yaml --data.shards s3://bucket/shards --run.folder s3://bucket/runs/demo
torchrun --nproc-per-node 2 -m jobs.coca --config …
ray job submit --address http://HEAD:8265 --working-dir . -- python -m jobs.coca --config …
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cluster.engine import compute_type
from cluster.loop import OnReport
from cluster.stage import Picture, StepData, Term
from cluster.world import World
from ecgchat.losses import caption_loss, contrastive_loss
from ecgchat.models.coca import CocaConfig, CocaModel, CocaModelConfig, bert_config
from ecgchat.models.flops import CocaFlops
from ecgchat.models.signal import prepare_ecgs
from ecgchat.models.text_tower import text_encoder_config
from ecgchat.text import encode, load_tokenizer
from jobs.config import ConfigError
from jobs.folders import local_source, reading
from jobs.launch import TrainingJob, run_worker, start
from jobs.shard_stage import ShardDataConfig, ShardStage
from shards.draw import draw_ecg
from shards.loader import Crop, EcgBatch, EcgLoader, EcgWindow, Form, LoaderConfig
from shards.mixture import Mixture


@dataclass(frozen=True, kw_only=True)
class DataConfig(ShardDataConfig):
    """What to train on."""

    tokenizer: str
    """Folder, URI or hub id of the text tower's tokenizer; `ecgchat tokenizer` makes one from a data set's reports."""
    resample: bool = False
    """Bring ECGs of other sampling rates to the ECG tower's on the device; otherwise such a data set is refused."""
    crop: Crop = "start"
    """Where the window lies in an ECG that is longer than the tower's; validation takes the start."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the two losses. ECG-Chat's are 1 and 2."""

    contrastive: float = 1.0
    caption: float = 2.0


@dataclass(frozen=True, kw_only=True)
class CocaJob(TrainingJob):
    """Train ECG-CoCa."""

    data: DataConfig
    model: CocaModelConfig = field(default_factory=CocaModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    text_tower: str | None = None
    """Folder, URI or hub id of a pretrained BERT-style encoder; null trains one of `model.text`'s size from scratch."""

    def __post_init__(self) -> None:
        accumulation = self.train.engine.gradient_accumulation
        if accumulation > 1:
            raise ConfigError(
                f"train.engine.gradient_accumulation {accumulation}: the contrastive loss compares all pairs of a batch at "
                "once, so a step cannot be split until features are cached; set it to 1 and use more workers or a smaller "
                "data.loader.order.global_batch"
            )


@dataclass(frozen=True)
class CocaBatch:
    """One rank's share of a step, on its device."""

    millivolts: Tensor
    """(n, 12, samples)."""
    tokens: Tensor
    """(n, length)."""
    weight: Tensor
    """(n,) 1 for a pair, 0 for padding."""


class CocaStage(ShardStage[EcgBatch]):
    """The stage that the worker loop runs. It keeps the protocol of `cluster.stage.Stage`."""

    name = "coca"
    kind = "ecg"

    def __init__(self, job: CocaJob) -> None:
        self.job = job
        super().__init__(job, job.data, None if job.data.resample else job.model.ecg.sampling_rate_hz)
        with reading(job.data.tokenizer, "tokenizer"):
            self.tokenizer = load_tokenizer(local_source(job.data.tokenizer))
        self.pad_token_id = int(self.tokenizer.pad_token_id or 0)
        tower = job.text_tower
        self.text_tower = None if tower is None else local_source(tower)
        """Local folder or hub id of the pretrained text tower; fetched once."""
        width = text_encoder_config(self.model_config.text).hidden_size
        if width != job.model.ecg.width:
            raise ConfigError(
                f"model.ecg.width {job.model.ecg.width}: the text tower {tower} is {width} wide, and the caption decoder reads "
                f"both; set model.ecg.width to {width}, or take another text tower"
            )
        self.dtype = compute_type(job.train.engine.precision)
        self.flops: CocaFlops | None = None
        """Known once the model is built."""

    @cached_property
    def model_config(self) -> CocaConfig:
        """All that is needed to build the model again."""
        model = self.job.model
        if self.text_tower is not None:
            from transformers import AutoConfig

            with reading(self.text_tower, "text tower"):
                text = AutoConfig.from_pretrained(self.text_tower).to_dict()
        else:
            text = bert_config(model.text, model.ecg.width, len(self.tokenizer), model.context_length)
        return CocaConfig(ecg=asdict(model.ecg), text=text, decoder=asdict(model.decoder), latent_width=model.latent_width)

    def build_model(self) -> nn.Module:
        """The model, from the seed; the text tower from its folder where one is named."""
        model = CocaModel(self.model_config)
        if self.text_tower is not None:
            model.text.load_pretrained(self.text_tower)
        self.flops = CocaFlops(model)
        return model

    def counts(self, micro_batch: CocaBatch) -> dict[str, Tensor]:
        """Pairs, and tokens to predict."""
        predicted = (micro_batch.tokens[:, 1:] != self.pad_token_id).sum()
        return {"contrastive": micro_batch.weight.sum(), "caption": predicted}

    def terms(self, model: nn.Module, micro_batch: CocaBatch, world: World) -> dict[str, Term]:
        """Contrastive loss over the global batch, and caption loss."""
        output = model(micro_batch.millivolts, micro_batch.tokens)
        contrastive = contrastive_loss(
            output.ecg_latent, output.text_latent, output.logit_scale, micro_batch.weight, world.gather, world.rank
        )
        caption, _ = caption_loss(output.caption_logits, micro_batch.tokens, self.pad_token_id)
        return {
            "contrastive": Term(contrastive, self.job.loss.contrastive),
            "caption": Term(caption, self.job.loss.caption),
        }

    def frozen(self) -> dict[str, str]:
        """Nothing: all of it is trained."""
        return {}

    def describe(self) -> dict[str, Any]:
        """The data and the model, for the run's record."""
        return {
            "data": self.data_record(),
            "model": self.model_config.to_dict(),
        }

    def pictures(self) -> list[Picture]:
        """A few ECGs with their reports, where they may leave the machine."""
        if not self.may_share():
            return []
        batch = self.first_batch()
        return [
            Picture(
                key,
                draw_ecg(ecg, scale.tolist(), record["fs_hz"], title=key, text=record["report"] or "", dpi=100),
                record["report"] or "",
            )
            for key, ecg, scale, record in zip(batch.keys, batch.ecg, batch.mv_per_lsb, batch.records, strict=True)
        ]

    def loader(self, data: Mixture, config: LoaderConfig, world: World | None = None, training: bool = False) -> EcgLoader:
        """ECGs of the tower's length, as counts where a GPU makes millivolts of them or somebody looks at them."""
        window = EcgWindow(self.job.model.ecg.duration_s, self.job.data.crop if training else "start")
        if world is None:
            return EcgLoader(data, config, window)
        form: Form = "pinned" if world.device.type == "cuda" else "millivolts"
        return EcgLoader(data, config, window, world.rank, world.size, form=form)

    def step_data(self, batch: EcgBatch, state: dict[str, Any], world: World) -> StepData:
        """Millivolts and tokens on this rank's device."""
        device = world.device
        texts = [record.get("report") or "" for record in batch.records]
        millivolts, _ = prepare_ecgs(
            torch.from_numpy(batch.ecg).to(device, non_blocking=True),
            torch.from_numpy(batch.mv_per_lsb).to(device, non_blocking=True),
            torch.from_numpy(batch.length),
            torch.from_numpy(batch.fs_hz),
            self.job.model.ecg.sampling_rate_hz,
            self.job.model.ecg.samples,
            self.dtype,
            batch.has_invalid,
        )
        tokens, weight = encode(self.tokenizer, texts, self.job.model.context_length), torch.from_numpy(batch.weight)
        prepared = CocaBatch(millivolts, tokens.to(device, non_blocking=True), weight.to(device, non_blocking=True))
        lengths = (tokens != self.pad_token_id).sum(1)[weight > 0]
        return StepData(
            [prepared],
            state,
            batch.wait_s,
            [key for key in batch.keys if key],
            tuple(batch.damaged),
            tokens=int(lengths.sum()) + len(lengths) * (1 + self.job.model.ecg.patches),
            flops=self.flops.step(lengths) if self.flops else 0.0,
        )


def write_export(settings: dict[str, Any], record: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> None:
    """Write a trained model as `CocaModel.from_pretrained` reads it, with its tokenizer.

    Args:
        settings: of the run.
        record: the run's `config.json`.
        weights: of the whole model.
        folder: to make.
    """
    model = CocaModel(CocaConfig.from_dict(record["model"]))
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    load_tokenizer(local_source(settings["data"]["tokenizer"])).save_pretrained(folder)


def worker(settings: dict[str, Any], on_report: OnReport) -> dict[str, Any]:
    """One rank of the job, in a process group that a launcher made."""
    return run_worker(CocaJob, CocaStage, settings, on_report)


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the settings, then train, or only say what would be done."""
    from jobs.dry_run import describe_coca

    start(CocaJob, CocaStage, describe_coca, "jobs.coca:worker", "ecgchat train coca", arguments)


if __name__ == "__main__":
    from jobs.errors import one_sentence

    sys.exit(one_sentence(main))
