"""An encoder, an LLM, and settings of `align` and `instruct` jobs that are small enough for a test."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ecgchat.conversation import tokenise
from ecgchat.models.coca import CocaConfig, CocaModel, TextTowerSize, bert_config
from ecgchat.models.ecg_tower import EcgTowerConfig
from ecgchat.small_llm import SmallLlmConfig, build_small_llm, train_chat_tokenizer, train_small_llm
from jobs.llm import training_records

TOKENS_PER_ECG = 11
"""Ten patches and the class token."""


def make_encoder(folder: Path) -> str:
    """An ECG-CoCa at 100 Hz with random weights, exported."""
    torch.manual_seed(0)
    ecg = EcgTowerConfig(sampling_rate_hz=100, duration_s=10, patch_samples=100, width=16, layers=2, heads=4)
    text = bert_config(TextTowerSize(layers=1, heads=4), ecg.width, 50, 24)
    CocaModel(CocaConfig(asdict(ecg), text, {"layers": 1, "heads": 4}, latent_width=8)).save_pretrained(folder)
    return str(folder)


def make_llm(folder: Path, conversations: str, width: int = 32) -> str:
    """A Llama of two layers that has learnt to speak in words, and a tokenizer of the conversations that it will meet."""
    records = list(training_records(conversations))
    tokenizer = train_chat_tokenizer([turn["value"] for record in records for turn in record["conversations"]], 500)
    size = SmallLlmConfig(width=width, layers=2, heads=4, steps=40, row=64, learning_rate=1e-2)
    llm = build_small_llm(tokenizer, size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_small_llm(llm, [tokenise(tokenizer, record["conversations"], 0, 512).tokens for record in records], size)
    torch.set_num_threads(threads)
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def align_settings(conversations: str, encoder: str, llm: str, folder: Path, batch: int = 12) -> dict[str, Any]:
    """A job of four steps on one worker, in fp32 with one thread, so that it repeats to the bit."""
    return {
        "run": {"folder": str(folder), "name": "small"},
        "encoder": encoder,
        "llm": llm,
        "data": {
            "shards": conversations,
            "context_length": 256,
            "loader": {"order": {"global_batch": batch, "lanes": 4, "block": 8}},
        },
        "train": {
            "steps": 4,
            "eval_every": 2,
            "engine": {"zero_stage": 2, "precision": "fp32"},
            "optimizer": {"learning_rate": 1e-2, "warmup_steps": 1},
            "checkpoint": {"every_steps": 2},
            "tracking": {"wandb": "offline", "log_every": 1},
        },
        "launch": {"workers": 1, "threads": 1},
    }


def instruct_settings(conversations: str, align: str, folder: Path, batch: int = 12) -> dict[str, Any]:
    """The same for adapters of rank 4, on top of an export of `align`."""
    settings = align_settings(conversations, "", "", folder, batch)
    del settings["encoder"], settings["llm"]
    return settings | {"align": align, "lora": {"rank": 4, "alpha": 8}}
