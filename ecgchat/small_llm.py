"""A causal LLM of a few million parameters and its tokenizer, made from texts: what stands in for a pretrained one.

It is a plain Llama of transformers. An ECG that a frozen LLM is to talk about can only bring forth what the LLM knows to
say; so this one learns to answer questions about a report before it is ever shown an ECG.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ecgchat.conversation import PLAIN_TEMPLATE

PAD, BEGIN, END = "<pad>", "<s>", "</s>"


@dataclass(frozen=True)
class SmallLlmConfig:
    """Size of the LLM and how it is trained."""

    vocabulary: int = 1500
    """Largest number of tokens; few texts give fewer."""
    width: int = 192
    layers: int = 4
    heads: int = 4
    context_length: int = 512
    steps: int = 300
    batch: int = 8
    """Rows of a step."""
    row: int = 256
    """Tokens of a row."""
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    seed: int = 0


def train_chat_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that reads numbers digit by digit; the same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BEGIN, eos_token=END)
    fast.chat_template = PLAIN_TEMPLATE
    return fast


def build_small_llm(tokenizer: PreTrainedTokenizerFast, config: SmallLlmConfig) -> LlamaForCausalLM:
    """A Llama with random weights, from the seed."""
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            # Llama's MLP has three matrices: 8/3 of the width makes it as large as one of four times the width with two.
            intermediate_size=config.width * 8 // 3,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.context_length,
            tie_word_embeddings=True,
            # transformers draws with 0.02 whatever the width, from which a narrow model hardly sets out.
            initializer_range=config.width**-0.5,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def train_small_llm(
    llm: LlamaForCausalLM,
    texts: Sequence[Sequence[int]],
    config: SmallLlmConfig,
    on_step: Callable[[int, float, float], None] = lambda step, loss, rate: None,
) -> None:
    """Teach it to write such texts: the next token of every text, AdamW, linear warm-up and decay.

    Args:
        llm: trained in place.
        texts: token ids of each text.
        config: steps, batch and rate.
        on_step: called with the step, its mean loss in nats a token, and its learning rate.
    """
    optimizer = torch.optim.AdamW(llm.parameters(), lr=config.learning_rate, weight_decay=0.01, betas=(0.9, 0.95))
    llm.train()
    for step, rows in enumerate(_rows(texts, config), start=1):
        rate = config.learning_rate * min(step / config.warmup_steps, (config.steps - step + 1) / config.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = llm(input_ids=rows, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(llm.parameters(), 1.0)
        optimizer.step()
        on_step(step, loss.item(), rate)
    llm.eval()


def _rows(texts: Sequence[Sequence[int]], config: SmallLlmConfig) -> Iterator[Tensor]:
    """(batch, row) ids of each step: texts one behind the other, cut into rows of one length, so that nothing is padded.

    The texts come in a new order each time round.
    """
    rng = np.random.default_rng(config.seed)
    wanted = config.batch * config.row
    waiting: list[int] = []
    for _ in range(config.steps):
        while len(waiting) < wanted:
            waiting += itertools.chain.from_iterable(texts[place] for place in rng.permutation(len(texts)))
        yield torch.tensor(waiting[:wanted]).view(config.batch, config.row)
        del waiting[:wanted]
