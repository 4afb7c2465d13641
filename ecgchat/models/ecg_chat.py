"""ECG-Chat: an ECG reader and a causal LLM; in a conversation, each ECG's tokens stand where its mark stands.

tokens      USER : <ecg> <ecg> <ecg> Which rhythm ? ASSISTANT : sinus rhythm </s>
embeddings  llm  llm  ecg   ecg  ecg   llm    llm … llm       llm llm  llm   llm
labels      -    -    -     -    -     -      -     -         -  sinus rhythm </s>
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgchat.models.ecg_reader import EcgReader

IGNORE = -100
"""Label of a token that nobody has to predict."""


class ChatBatch(NamedTuple):
    """Conversations side by side, padded to the longest."""

    millivolts: Tensor
    """(ECGs, 12, samples): all ECGs of the batch, in the order of their marks; at least one, which no mark may use."""
    tokens: Tensor
    """(conversations, length) ids of the LLM's tokenizer; any id at places of an ECG."""
    ecg_places: Tensor
    """(conversations, length) bool: where the tokens of ECGs go, `tokens of an ECG` places in a row for each."""
    attention_mask: Tensor
    """(conversations, length) 1 for what is there, 0 for padding."""
    labels: Tensor
    """(conversations, length) ids to predict, `IGNORE` elsewhere."""

    def to(self, device: torch.device) -> ChatBatch:
        """The same on a device; the copy may still be under way."""
        return ChatBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class EcgChatModel(nn.Module):
    """The two parts, joined.

    Args:
        reader: ECG → embeddings of the LLM's width.
        llm: a causal LLM of transformers, or the same with peft's adapters.
    """

    def __init__(self, reader: EcgReader, llm: nn.Module) -> None:
        super().__init__()
        self.reader = reader
        self.llm: Any = llm

    def train(self, mode: bool = True) -> EcgChatModel:
        """Training mode; an LLM without a trainable weight stays as it is evaluated."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.llm.parameters()):
            self.llm.eval()
        return self

    def embed(self, batch: ChatBatch, read: Tensor | None = None) -> Tensor:
        """(conversations, length, width): the LLM's embeddings, with those of the ECGs in their places.

        Args:
            batch: the conversations.
            read: (ECGs, tokens of an ECG, width) what the reader has made of the ECGs already; `millivolts` is not used then.
        """
        words = self.llm.get_input_embeddings()(batch.tokens)
        # Every rank reads an ECG and reaches the projector in every step, also where its conversations have none:
        # ZeRO gathers weights and reduces gradients in an order that all ranks share.
        read = self.reader(batch.millivolts) if read is None else read
        embedded: Tensor = words.masked_scatter(batch.ecg_places[:, :, None], read.to(words.dtype))
        return embedded

    def forward(self, batch: ChatBatch) -> Tensor:
        """Sum of the losses of the tokens to predict, in nats: the scalar that a step's average is made of."""
        logits = self.llm(inputs_embeds=self.embed(batch), attention_mask=batch.attention_mask, use_cache=False).logits
        wanted = batch.labels[:, 1:]
        answered = wanted != IGNORE
        return F.cross_entropy(logits[:, :-1][answered].float(), wanted[answered], reduction="sum")

    @torch.no_grad()
    def generate(self, batch: ChatBatch, max_new_tokens: int, read: Tensor | None = None, **how: Any) -> Tensor:
        """(conversations, new tokens): what the LLM says next, padded on the right.

        Args:
            batch: conversations that end where the LLM has to speak, padded on the left.
            max_new_tokens: at most so many.
            read: as for `embed`.
            how: as transformers' `generate` takes it: `do_sample`, `temperature`, `streamer`, `pad_token_id`, …
        """
        generated: Tensor = self.llm.generate(
            inputs_embeds=self.embed(batch, read), attention_mask=batch.attention_mask, max_new_tokens=max_new_tokens, **how
        )
        return generated
