"""Conversations to tokens: the LLM's own chat template, places for ECGs, and labels on what the assistant says alone.

    [{"from": "human", "value": "<ecg>\\nWhich rhythm?"}, {"from": "gpt", "value": "Sinus rhythm."}]

The template is rendered once for the whole conversation. What the assistant says lies between the end of the conversation
so far, with the template's invitation to speak, and the end of its turn; each token is labelled by where it begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ecgchat.errors import ModelError
from ecgchat.models.ecg_chat import IGNORE, ChatBatch
from shards.record import ECG_MARK

Turn = dict[str, str]
"""`from` (human, gpt or system) and `value`, as LLaVA writes it."""

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
"""LLaVA's names of those who speak → the names that chat templates know."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content + ' ' }}"
    "{% elif message.role == 'user' %}{{ 'USER: ' + message.content + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message.content + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""For tokenizers that bring no template: the form of Vicuna 1.5, which LLaVA and ECG-Chat train."""


@dataclass(frozen=True)
class TokenisedConversation:
    """One conversation as the LLM reads it. All lists are of one length."""

    tokens: list[int]
    ecg_places: list[bool]
    """Where tokens of ECGs go."""
    labels: list[int]
    ecgs: int
    """ECGs whose places are there; fewer than the conversation has where it was cut."""
    cut: bool = False
    """Whether its end did not fit."""


def load_chat_tokenizer(folder: str, pad_token: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of an LLM, with a chat template and a token for padding.

    Args:
        folder: local folder or hub id.
        pad_token: one of its tokens to pad with, where it names none itself.

    Raises:
        ModelError: there is no such token, or it cannot tell where in the text a token begins.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise ModelError(f"pad_token {pad_token!r}: {folder} has no such token; name one of its own")
        tokenizer.pad_token = pad_token
    if tokenizer.pad_token_id is None:
        candidates = [token for token in (tokenizer.unk_token, tokenizer.eos_token) if token]
        raise ModelError(
            f"{folder}: the LLM's tokenizer has no pad token; name one of its tokens with --pad_token"
            + (f", such as {candidates[0]!r}" if candidates else "")
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"{folder}: the tokenizer does not tell where a token begins; convert it to a fast one (tokenizer.json)"
        )
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    conversation: Sequence[Turn],
    tokens_per_ecg: int,
    context_length: int,
    where: str = "conversation",
) -> TokenisedConversation:
    """Tokens, places of ECGs and labels of a conversation. A last turn of the human ends where the assistant has to speak.

    What does not fit the context is cut from the end; an ECG is there whole or not at all.

    Raises:
        ModelError: the tokenizer's template refuses the turns, or changes earlier ones once later ones follow.
    """
    text, spoken = _render(tokenizer, conversation, where)
    tokens: list[int] = []
    places: list[bool] = []
    labels: list[int] = []
    ecgs, position, cut = 0, 0, False
    for number, piece in enumerate(text.split(ECG_MARK)):
        if number:
            if len(tokens) + tokens_per_ecg > context_length:
                cut = True
                break
            tokens += [int(tokenizer.pad_token_id or 0)] * tokens_per_ecg
            places += [True] * tokens_per_ecg
            labels += [IGNORE] * tokens_per_ecg
            ecgs += 1
        encoded = tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = encoded["input_ids"]
        starts = [position + start for start, _ in encoded["offset_mapping"]]
        tokens += ids
        places += [False] * len(ids)
        labels += [token if _inside(start, spoken) else IGNORE for token, start in zip(ids, starts, strict=True)]
        position += len(piece) + len(ECG_MARK)
    cut = cut or len(tokens) > context_length
    return TokenisedConversation(tokens[:context_length], places[:context_length], labels[:context_length], ecgs, cut)


def collate(
    conversations: Sequence[TokenisedConversation],
    millivolts: Tensor,
    pad_token_id: int,
    pad_on: Literal["left", "right"] = "right",
) -> ChatBatch:
    """One batch of conversations.

    Args:
        conversations: (n,) as `tokenise` gives them.
        millivolts: (ECGs, 12, samples) of all their ECGs, in order; at least one.
        pad_token_id: any id will do where nothing is read.
        pad_on: left, where the LLM is to go on writing.
    """
    longest = max([1, *(len(conversation.tokens) for conversation in conversations)])

    def padded(values: Sequence[int], filler: int) -> list[int]:
        padding = [filler] * (longest - len(values))
        return [*padding, *values] if pad_on == "left" else [*values, *padding]

    return ChatBatch(
        millivolts,
        torch.tensor([padded(conversation.tokens, pad_token_id) for conversation in conversations]),
        torch.tensor([padded(conversation.ecg_places, 0) for conversation in conversations], dtype=torch.bool),
        # A row without any token attends to one all the same, since attention to nothing is not a number.
        torch.tensor([padded([1] * max(1, len(conversation.tokens)), 0) for conversation in conversations]),
        torch.tensor([padded(conversation.labels, IGNORE) for conversation in conversations]),
    )


def _render(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Turn], where: str) -> tuple[str, list[tuple[int, int]]]:
    """The whole text, and the ranges of it that the assistant says."""
    messages = [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in conversation]

    def rendered(turns: int, invite: bool = False) -> str:
        try:
            return str(tokenizer.apply_chat_template(messages[:turns], tokenize=False, add_generation_prompt=invite))
        except TemplateError as error:
            raise ModelError(
                f"{where}: the chat template of {tokenizer.name_or_path} refuses its turns ({error}); "
                "give the tokenizer a template that takes them, or change the conversation"
            ) from error

    text = rendered(len(messages), invite=messages[-1]["role"] != "assistant")
    spoken = []
    for turn in (number for number, message in enumerate(messages) if message["role"] == "assistant"):
        before, after = rendered(turn, invite=True), rendered(turn + 1)
        if not (after.startswith(before) and text.startswith(after)):
            raise ModelError(
                f"{where}: the chat template of {tokenizer.name_or_path} writes turn {turn + 1} otherwise once it is answered; "
                "give the tokenizer a template whose text only grows"
            )
        spoken.append((len(before), len(after)))
    return text, spoken


def _inside(place: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(start <= place < stop for start, stop in ranges)


def exchanges(conversation: Sequence[Turn]) -> list[tuple[str, str]]:
    """Question and answer of every turn of the assistant."""
    return [(asked["value"], said["value"]) for asked, said in pairwise(conversation) if said["from"] == "gpt"]
