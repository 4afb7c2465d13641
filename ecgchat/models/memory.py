"""Memory of activations, estimated."""

from __future__ import annotations


def transformer_activation_bytes(batch: int, tokens: int, width: int, layers: int, bytes_each: int = 2) -> int:
    """Activations that pre-norm blocks keep for the backward pass, with attention that does not store its matrix.

    34 bytes a token and channel at two bytes a value: Korthikanti et al., Reducing Activation Recomputation in Large
    Transformer Models, 2022, equation 1 without the attention term.
    """
    return 34 * batch * tokens * width * layers * bytes_each // 2
