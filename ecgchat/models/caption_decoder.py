"""The caption decoder: writes the report token by token from the ECG's patch tokens.

ECG-Chat's decoder reads the hidden states of a text tower that attends in both directions, so that each position has seen
the token which it is to predict. This one reads token embeddings, which have seen nothing but themselves.
"""

from __future__ import annotations

from torch import Tensor, nn

from ecgchat.models.blocks import Block


class CaptionDecoder(nn.Module):
    """Causal self-attention over the text, alternating with attention to the ECG.

    Args:
        width: channels of text embeddings and of patch tokens.
        layers: pairs of blocks.
        heads: attention heads.
        vocabulary: tokens to choose from.
    """

    def __init__(self, width: int, layers: int, heads: int, vocabulary: int) -> None:
        super().__init__()
        self.text_blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ecg_blocks = nn.ModuleList(Block(width, heads, cross=True) for _ in range(layers))
        self.norm_last = nn.LayerNorm(width)
        self.vocabulary = nn.Linear(width, vocabulary, bias=False)

    def forward(self, embedded: Tensor, patch_tokens: Tensor) -> Tensor:
        """Logits of the next token.

        Args:
            embedded: (batch, length, width) token embeddings.
            patch_tokens: (batch, patches, width), after the ECG tower's last norm.

        Returns:
            (batch, length, vocabulary): position i is about token i + 1 and has seen tokens 0 to i.
        """
        for text_block, ecg_block in zip(self.text_blocks, self.ecg_blocks, strict=True):
            embedded = ecg_block(text_block(embedded, causal=True), patch_tokens)
        logits: Tensor = self.vocabulary(self.norm_last(embedded))
        return logits
