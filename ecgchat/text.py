"""Text to tokens: a WordPiece tokenizer made from reports, or one that came with a pretrained text tower."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerBase

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> BertTokenizerFast:
    """A lower-casing WordPiece tokenizer for the given texts; the same texts give the same tokenizer.

    Args:
        texts: reports of the training split.
        vocabulary: largest number of tokens; small corpora give fewer.
    """
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(texts, vocabulary, min_frequency=2, special_tokens=SPECIAL_TOKENS, show_progress=False)
    return BertTokenizerFast(tokenizer_object=trained._tokenizer)


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or of a hub id."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], context_length: int) -> Tensor:
    """(texts, longest) ids, padded on the right, cut to the context; an empty text is a row of padding alone.

    Rows are padded to a multiple of 8 and not to the context, since most reports are short.
    """
    rows = [tokenizer(text, truncation=True, max_length=context_length)["input_ids"] if text else [] for text in texts]
    longest = max(2, max(map(len, rows), default=0))
    length = min(context_length, -(-longest // 8) * 8)
    tokens = torch.full((len(rows), length), int(tokenizer.pad_token_id or 0), dtype=torch.long)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    return tokens
