"""Floating-point operations that a step's model has to do, forward and backward, counted from its layers.

A multiplication and its addition are two. A weight of a linear layer or a convolution takes 2 for each token that passes it, 2
more where a gradient passes back, and 2 more where it is trained itself: 6 a weight and token in training, 4 under a frozen
weight, 2 where nothing before it learns. Attention takes 4 x width for each pair of tokens and layer, three times that with its
gradient, not halved for a causal mask (Chowdhery et al., PaLM, 2022, appendix B). Norms, activations, embeddings, padding and
recomputation count nothing.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ecgchat.models.coca import CocaModel
from ecgchat.models.ecg_chat import EcgChatModel

FORWARD, WITH_GRADIENT = 1, 3
"""Passes over attention: forward alone; forward, and backward for both factors."""


def weight_flops(module: nn.Module, gradient: bool = True) -> float:
    """FLOPs of one token that passes every linear layer and convolution of a module once.

    Args:
        module: whose weights may be trained, frozen, or on no device at all.
        gradient: whether a gradient passes back through it.
    """
    flops = 0.0
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            # A quantised weight is packed: its layer's shape counts.
            weights = layer.in_features * layer.out_features
        elif isinstance(layer, nn.Conv1d):
            weights = layer.weight.numel()
        else:
            continue
        flops += weights * (6 if layer.weight.requires_grad else 4 if gradient else 2)
    return flops


def attention_flops(width: int, layers: int, pairs: float, passes: int = WITH_GRADIENT) -> float:
    """FLOPs of attention.

    Args:
        width: heads times the width of a head.
        layers: that attend so.
        pairs: of a query and a key, summed over the batch.
        passes: with or without the backward pass.
    """
    return 4.0 * width * layers * pairs * passes


class CocaFlops:
    """FLOPs of a training step of ECG-CoCa."""

    def __init__(self, model: CocaModel) -> None:
        ecg, decoder = model.ecg, model.decoder
        config = model.config
        self._width, self._ecg_layers, self._decoder_layers = config.ecg["width"], len(ecg.blocks), len(decoder.text_blocks)
        text = model.text.encoder.config
        self._text_width, self._text_layers = text.hidden_size, text.num_hidden_layers
        self._ecg_tokens = len(ecg.positions)
        patches = self._ecg_tokens - 1
        key_values = [layer for name, layer in decoder.ecg_blocks.named_modules() if name.endswith("key_value")]
        from_ecg = sum(weight_flops(layer) for layer in key_values)
        each = patches * (weight_flops(ecg.patch) + from_ecg) + self._ecg_tokens * weight_flops(ecg.blocks)
        self._pair = each + weight_flops(ecg.projection) + weight_flops(model.text.projection)
        """Of what does not depend on the length of the text."""
        self._encoded = weight_flops(model.text.encoder)
        self._decoded = weight_flops(decoder) - from_ecg

    def step(self, lengths: Tensor) -> float:
        """FLOPs of a batch of ECGs with texts of so many tokens each, without padding."""
        count, tokens = len(lengths), float(lengths.sum())
        written = (lengths - 1).clamp(min=0).double()
        attention = (
            attention_flops(self._width, self._ecg_layers, count * self._ecg_tokens**2)
            + attention_flops(self._text_width, self._text_layers, float(lengths.double().square().sum()))
            + attention_flops(self._width, self._decoder_layers, float(written.square().sum()))
            + attention_flops(self._width, self._decoder_layers, float(written.sum()) * (self._ecg_tokens - 1))
        )
        return count * self._pair + tokens * self._encoded + float(written.sum()) * self._decoded + attention


class ChatFlops:
    """FLOPs of a training step of ECG-Chat, whatever is frozen in it.

    Args:
        model: with its adapters, where it has any.
        llm: the LLM's configuration.
    """

    def __init__(self, model: EcgChatModel, llm: Any) -> None:
        reader = model.reader
        tower = reader.config.tower
        tokens = 1 + tower.patches
        dense = tower.patches * weight_flops(reader.tower.patch, False) + tokens * weight_flops(reader.tower.blocks, False)
        read = attention_flops(tower.width, tower.layers, tokens**2, FORWARD)
        # The projector's first layer has nothing to learn before it: its gradient ends there.
        self._ecg = dense + read + reader.config.tokens_per_ecg * weight_flops(reader.projector)
        self._token = weight_flops(model.llm)
        head = getattr(llm, "head_dim", None) or llm.hidden_size // llm.num_attention_heads
        self._width, self._layers = llm.num_attention_heads * head, llm.num_hidden_layers

    @staticmethod
    def can_count(llm: nn.Module) -> bool:
        """Whether all of an LLM's matrices are linear layers and embeddings; experts, which few tokens pass, are not."""
        counted = {id(layer.weight) for layer in llm.modules() if isinstance(layer, nn.Linear | nn.Embedding)}
        return all(parameter.ndim < 2 or id(parameter) in counted for parameter in llm.parameters())

    def step(self, ecgs: int, lengths: Tensor) -> float:
        """FLOPs of conversations of so many tokens each, without padding, those of their ECGs among them."""
        pairs = float(lengths.double().square().sum())
        return ecgs * self._ecg + float(lengths.sum()) * self._token + attention_flops(self._width, self._layers, pairs)
