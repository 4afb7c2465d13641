"""ECG-CoCa: an ECG tower and a text tower that meet in one space, and a decoder that writes the report.

    model = CocaModel.from_pretrained("exported/folder")
    ecg_latent = model.encode_ecg(millivolts)        # (batch, latent width), normalised
    text_latent = model.encode_text(tokens)
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from ecgchat.models.caption_decoder import CaptionDecoder
from ecgchat.models.ecg_tower import EcgTower, EcgTowerConfig
from ecgchat.models.text_tower import TextTower, text_encoder_config

LARGEST_LOGIT_SCALE = math.log(100)
"""CLIP's bound on the logarithm of the inverse temperature (Radford et al., 2021, section 2.5)."""

FIRST_LOGIT_SCALE = math.log(1 / 0.07)
INITIAL_STD = 0.02


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
                f"model.text width {text.hidden_size} differs from model.ecg.width {ecg.width}; the caption decoder reads both: "
                "make them equal"
            )
        self.ecg = EcgTower(ecg, config.latent_width)
        self.text = TextTower(config.text, config.latent_width)
        self.decoder = CaptionDecoder(ecg.width, decoder.layers, decoder.heads, text.vocab_size)
        # One element and not a scalar: DeepSpeed cannot broadcast a parameter without dimensions.
        self.log_logit_scale = nn.Parameter(torch.empty(1))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal weights of deviation 0.02 (residual outputs and patches as wide as they need), zero biases, unit norms."""
        if isinstance(module, CocaModel):
            nn.init.constant_(module.log_logit_scale, FIRST_LOGIT_SCALE)
        elif isinstance(module, EcgTower):
            nn.init.normal_(module.class_token, std=INITIAL_STD)
            nn.init.normal_(module.positions, std=INITIAL_STD)
        elif isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=INITIAL_STD)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.Conv1d):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_channels * module.kernel_size[0]))
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
    text_tower: str | None = None
    """Folder, URI or hub id of a pretrained BERT-style encoder; None trains one of `text`'s size from scratch."""
    decoder: CaptionDecoderConfig = field(default_factory=CaptionDecoderConfig)
    latent_width: int = 512
    context_length: int = 77
    """Tokens of a report; longer ones are cut."""


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
    }
