"""The text tower: a BERT-style encoder, mean pooling over real tokens, and a projection into the shared space."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig


class TextTowerOutput(NamedTuple):
    """What the tower knows of a text."""

    latent: Tensor
    """(batch, latent width), not normalised."""
    tokens: Tensor
    """(batch, length, width): the last hidden states. They attend in both directions: no input for a causal decoder."""


class TextTower(nn.Module):
    """Token ids → latent.

    Args:
        config: of the encoder, as transformers writes it (`model_type`, sizes, …).
        latent_width: channels of the space that ECG and text share.
    """

    def __init__(self, config: dict[str, Any], latent_width: int) -> None:
        super().__init__()
        encoder_config = text_encoder_config(config)
        self.pad_token_id = encoder_config.pad_token_id
        # The pooler feeds nothing here, and parameters without gradient would stall ZeRO.
        self.encoder = AutoModel.from_config(encoder_config, add_pooling_layer=False)
        self.projection = nn.Linear(encoder_config.hidden_size, latent_width, bias=False)

    def load_pretrained(self, folder: str) -> None:
        """Take the encoder's weights from a folder or a hub id."""
        pretrained = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        self.encoder.load_state_dict(pretrained.state_dict())

    def forward(self, tokens: Tensor) -> TextTowerOutput:
        """(batch, length) token ids, padded on the right."""
        real = tokens != self.pad_token_id
        hidden = self.encoder(input_ids=tokens, attention_mask=real).last_hidden_state
        share = real.to(hidden.dtype)[:, :, None]
        # A row of padding alone, as short ranks have, pools to zero and not to NaN.
        pooled = (hidden * share).sum(1) / share.sum(1).clamp(min=1)
        return TextTowerOutput(self.projection(pooled), hidden)

    def embed(self, tokens: Tensor) -> Tensor:
        """(batch, length, width): each token with its position, before any of them sees another."""
        embedded: Tensor = self.encoder.embeddings(input_ids=tokens)
        return embedded


def text_encoder_config(config: dict[str, Any]) -> PreTrainedConfig:
    """The transformers configuration that a dictionary with a `model_type` describes."""
    rest = {key: value for key, value in config.items() if key != "model_type"}
    return AutoConfig.for_model(config["model_type"], **rest)
