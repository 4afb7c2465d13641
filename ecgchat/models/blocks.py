"""Pre-norm transformer blocks: self-attention, and attention to another sequence.

GELU, an MLP of four times the width, and biases everywhere, as in OpenCLIP's `ResidualAttentionBlock` (Ilharco et al.,
OpenCLIP, 2021), whose tensors map onto these one to one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention through torch's fused kernel.

    Args:
        width: channels of both sequences.
        heads: number of heads; divides the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads; choose a divisor")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, causal: bool = False) -> Tensor:
        """(batch, n, width) attending to itself or to `context` (batch, m, width)."""
        batch, length, width = x.shape
        source = x if context is None else context
        query = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)  # (batch, heads, n, head width)
        key_value = self.key_value(source).view(batch, source.shape[1], 2, self.heads, -1)
        key, value = key_value.permute(2, 0, 3, 1, 4)  # each (batch, heads, m, head width)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.out(attended.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention and an MLP, each behind a layer norm and added to its input.

    Args:
        width: channels.
        heads: attention heads.
        cross: attend to another sequence, which has a norm of its own.
    """

    def __init__(self, width: int, heads: int, cross: bool = False) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width) if cross else None
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, context: Tensor | None = None, causal: bool = False) -> Tensor:
        """(batch, n, width) → the same shape."""
        if self.norm_context is not None and context is not None:
            context = self.norm_context(context)
        x = x + self.attention(self.norm_attention(x), context, causal)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x))))
