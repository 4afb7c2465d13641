"""ECG-CoCa: an ECG tower and a text tower that meet in one space, and a decoder that writes the report.

model = CocaModel.from_pretrained("exported/folder")
ecg_latent = model.encode_ecg(millivolts)        # (batch, latent width), normalised
text_latent = model.encode_text(tokens)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from ecgchat.models.blocks import Block
from ecgchat.models.caption_decoder import CaptionDecoder
from ecgchat.models.ecg_tower import EcgTower, EcgTowerConfig
from ecgchat.models.text_tower import TextTower, text_encoder_config

LARGEST_LOGIT_SCALE = math.log(100)
"""CLIP's bound on the logarithm of the inverse temperature (Radford et al., 2021, section 2.5)."""

FIRST_LOGIT_SCALE = math.log(1 / 0.07)


@dataclass(frozen=True)
class CaptionDecoderConfig:
    """Size of the caption decoder; its width is the text tower's, and the ECG tower's."""

    layers: int = 12
    heads: int = 8


class CocaConfig(PreTrainedConfig):
    """All that is needed to build the model again; written as `config.json`."""

    model_type = "ecg_coca"

    def __init__(
        self,
        ecg: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        latent_width: int = 512,
        **kwargs: Any,
    ) -> None:
        self.ecg = ecg or asdict(EcgTowerConfig())
        self.text = text or {"model_type": "bert", "vocab_size": 30522}
        self.decoder = decoder or asdict(CaptionDecoderConfig())
        self.latent_width = latent_width
        super().__init__(**kwargs)


class CocaOutput(NamedTuple):
    """What a step's losses are made of."""

    ecg_latent: Tensor
    """(batch, latent width), normalised."""
    text_latent: Tensor
    """(batch, latent width), normalised."""
    caption_logits: Tensor
    """(batch, length - 1, vocabulary): position i is about token i + 1."""
    logit_scale: Tensor
    """Scalar inverse temperature, after the exponential and its bound."""


class CocaModel(PreTrainedModel):
    """The three parts, joined."""

    config_class = CocaConfig
    base_model_prefix = "coca"
    main_input_name = "millivolts"
    _supports_sdpa = True

    def __init__(self, config: CocaConfig) -> None:
        super().__init__(config)
        ecg = EcgTowerConfig(**config.ecg)
        decoder = CaptionDecoderConfig(**config.decoder)
        text = text_encoder_config(config.text)
        if text.hidden_size != ecg.width:
            raise ValueError(
                f"model.text width {text.hidden_size} differs from model.ecg.width {ecg.width}; the caption decoder "
                "reads both: make them equal"
            )
        self.ecg = EcgTower(ecg, config.latent_width)
        self.text = TextTower(config.text, config.latent_width)
        self.decoder = CaptionDecoder(ecg.width, decoder.layers, decoder.heads, text.vocab_size)
        # One element and not a scalar: DeepSpeed cannot broadcast a parameter without dimensions.
        self.log_logit_scale = nn.Parameter(torch.empty(1))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """CLIP's initial weights, which scale with the width, so that small models learn as readily as large ones.

        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021: its published code.
        transformers calls this for every module, inner ones first.
        """
        if isinstance(module, CocaModel):
            nn.init.constant_(module.log_logit_scale, FIRST_LOGIT_SCALE)
        elif isinstance(module, EcgTower):
            module.initialise()
            _scale_residuals(module.blocks)
        elif isinstance(module, CaptionDecoder):
            _scale_residuals([*module.text_blocks, *module.ecg_blocks])
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            nn.init.normal_(module.weight, std=(module.in_channels * module.kernel_size[0]) ** -0.5)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    def encode_ecg(self, millivolts: Tensor) -> Tensor:
        """(batch, 12, samples) in mV → (batch, latent width), normalised."""
        return F.normalize(self.ecg(millivolts).latent, dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(batch, length) token ids → (batch, latent width), normalised."""
        return F.normalize(self.text(tokens).latent, dim=-1)

    def forward(self, millivolts: Tensor, tokens: Tensor) -> CocaOutput:
        """Everything that training needs.

        Args:
            millivolts: (batch, 12, samples).
            tokens: (batch, length) ids of the report, padded on the right.
        """
        ecg = self.ecg(millivolts)
        text = self.text(tokens)
        logits = self.decoder(self.text.embed(tokens[:, :-1]), ecg.patch_tokens_after_norm)
        return CocaOutput(
            F.normalize(ecg.latent, dim=-1),
            F.normalize(text.latent, dim=-1),
            logits,
            self.log_logit_scale.squeeze().clamp(max=LARGEST_LOGIT_SCALE).exp(),
        )


def _scale_residuals(blocks: Iterable[nn.Module]) -> None:
    """Shrink what each block adds to its input, so that depth does not make the sum grow."""
    layers = [block for block in blocks if isinstance(block, Block)]
    for block in layers:
        for output in (block.attention.out, block.mlp_out):
            nn.init.normal_(output.weight, std=(output.in_features * 2 * len(layers)) ** -0.5)


AutoConfig.register(CocaConfig.model_type, CocaConfig, exist_ok=True)
AutoModel.register(CocaConfig, CocaModel, exist_ok=True)


@dataclass(frozen=True)
class TextTowerSize:
    """A text tower to be trained from scratch, in BERT's form."""

    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    """0 keeps a step a function of its batch alone, which resuming and comparing world sizes rest on."""


@dataclass(frozen=True)
class CocaModelConfig:
    """The model to train. The published size (403 M parameters) is the default of the ECG tower and the decoder."""

    ecg: EcgTowerConfig = field(default_factory=EcgTowerConfig)
    text: TextTowerSize = field(default_factory=TextTowerSize)
    decoder: CaptionDecoderConfig = field(default_factory=CaptionDecoderConfig)
    latent_width: int = 512
    context_length: int = 77
    """Tokens of a report; longer ones are cut."""

    def __post_init__(self) -> None:
        for part, heads in (("text", self.text.heads), ("decoder", self.decoder.heads)):
            if heads < 1 or self.ecg.width % heads:
                raise ValueError(
                    f"model.{part}.heads {heads} does not divide model.ecg.width {self.ecg.width}; choose a divisor"
                )
        if self.context_length < 2 or self.latent_width < 1:
            raise ValueError("model.context_length is at least 2 and model.latent_width at least 1")


def bert_config(size: TextTowerSize, width: int, vocabulary: int, context_length: int) -> dict[str, Any]:
    """The transformers configuration of a BERT-style encoder trained from scratch."""
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": context_length,
        "hidden_dropout_prob": size.dropout,
        "attention_probs_dropout_prob": size.dropout,
        "pad_token_id": 0,
        "initializer_range": width**-0.5,
    }
