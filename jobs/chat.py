"""Talk about one ECG in the terminal.

    ecgchat chat exports/demo --ecg path/to/record                        # a WFDB record
    ecgchat chat exports/demo --shards s3://bucket/shards --ecg KEY       # a record of a data set
    echo "Which rhythm is it?" | ecgchat chat exports/demo --ecg path/to/record

Every line that is typed is a question; the answer appears word by word; an empty line or Ctrl-D ends the conversation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from transformers import TextStreamer
from transformers.utils.logging import disable_progress_bar

from cluster.launch.process import prepare_libraries
from cluster.world import local_device
from ecgchat.chat_export import load_chat
from ecgchat.conversation import collate, tokenise
from ecgchat.errors import ModelError
from ecgchat.models.ecg_chat import ChatBatch, EcgChatModel
from jobs.config import ConfigError, parse
from jobs.folders import local_source, reading
from jobs.language import ecgs_to_millivolts
from shards.dataset import ShardSet
from shards.draw import draw_in_terminal
from shards.record import ECG_MARK
from shards.sources.wfdb_record import read_wfdb

console = Console(highlight=False)


@dataclass(frozen=True)
class ChatJob:
    """Talk about one ECG."""

    model: str
    """Folder or URI of an export of `align` or `instruct`."""
    ecg: str | None = None
    """WFDB record (path with or without .hea), or with --shards the key of a sample; null talks about ECGs in general."""
    shards: str | None = None
    """URI of a data set that `ecg` is a key of."""
    question: str | None = None
    """Ask this alone; without it, lines are read until an empty one."""
    max_new_tokens: int = 256
    sample: bool = False
    """Draw the words instead of taking the likeliest."""
    temperature: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature <= 0:
            raise ConfigError("max_new_tokens is at least 1 and temperature above 0; set them so")


@dataclass(frozen=True)
class Recording:
    """The ECG that is talked about."""

    name: str
    ecg: NDArray[np.int16]
    """(12, samples)."""
    mv_per_lsb: list[float]
    fs_hz: float


def find_recording(job: ChatJob) -> Recording | None:
    """The ECG that the settings name.

    Raises:
        ConfigError: there is no such file.
        RecordError, DatasetError: it cannot be read.
    """
    if job.ecg is None:
        return None
    if job.shards is not None:
        key, ecg, record = ShardSet.open(job.shards).sample(job.ecg)
        return Recording(key, ecg, record["mv_per_lsb"], record["fs_hz"])
    path = Path(re.sub(r"\.(hea|dat|mat)$", "", job.ecg))
    if not path.with_suffix(".hea").is_file():
        raise ConfigError(f"--ecg {job.ecg}: no such WFDB record; check the path, or name the data set with --shards")
    signal = read_wfdb(path)
    return Recording(Path(job.ecg).stem, signal.ecg, signal.mv_per_lsb, signal.fs_hz)


class Talk:
    """A conversation under way.

    Args:
        job: how to answer.
        recording: what it is about.

    Raises:
        ConfigError: the export cannot be read, or takes another sampling rate than the recording has.
        ModelError: a part of the export is missing.
    """

    def __init__(self, job: ChatJob, recording: Recording | None) -> None:
        prepare_libraries()
        disable_progress_bar()
        self.job, self.recording = job, recording
        folder = local_source(job.model)
        self.device = local_device()
        with reading(job.model, "export of align or instruct"):
            model, self.tokenizer = load_chat(folder)
        self.model: EcgChatModel = model.to(self.device)
        self.reader = self.model.reader.config
        rate = self.reader.ecg["sampling_rate_hz"]
        if recording is not None and recording.fs_hz != rate:
            raise ConfigError(
                f"{recording.name}: sampled at {recording.fs_hz:g} Hz, this model reads {rate:g} Hz; resample the recording"
            )
        self.turns: list[dict[str, str]] = []

    def answer(self, question: str) -> str:
        """Ask, print the answer word by word, and return it.

        Raises:
            ModelError: the question speaks of another ECG, or the conversation has outgrown the LLM's context.
        """
        shown = f"{ECG_MARK}\n" if self.recording is not None and not self.turns and ECG_MARK not in question else ""
        self.turns.append({"from": "human", "value": shown + question})
        ecgs = sum(turn["value"].count(ECG_MARK) for turn in self.turns)
        if ecgs > (self.recording is not None):
            self.turns.pop()
            raise ModelError(
                f"the conversation has {ecgs} {ECG_MARK} marks, expected {int(self.recording is not None)}: "
                + ("leave the mark out" if self.recording else "name the recording with --ecg")
            )
        streamer = TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        new = self.model.generate(self._batch(), self.job.max_new_tokens, **self._how(), streamer=streamer)
        said = self.tokenizer.decode(new[0], skip_special_tokens=True).strip()
        self.turns.append({"from": "gpt", "value": said})
        return said

    def _batch(self) -> ChatBatch:
        room = getattr(self.model.llm.config, "max_position_embeddings", 1 << 20) - self.job.max_new_tokens
        conversation = tokenise(self.tokenizer, self.turns, self.reader.tokens_per_ecg, room)
        if conversation.cut:
            raise ModelError(
                f"the conversation does not fit the LLM's context beside {self.job.max_new_tokens} new tokens; "
                "begin another, or lower --max_new_tokens"
            )
        ecgs = [] if self.recording is None else [(self.recording.ecg, self.recording.mv_per_lsb)]
        millivolts = ecgs_to_millivolts(ecgs[: conversation.ecgs], self.reader.tower.samples, torch.float32)
        return collate([conversation], millivolts, int(self.tokenizer.pad_token_id or 0), pad_on="left").to(self.device)

    def _how(self) -> dict[str, Any]:
        torch.manual_seed(self.job.seed)
        drawn = {"temperature": self.job.temperature} if self.job.sample else {}
        return {"do_sample": self.job.sample, **drawn, "pad_token_id": self.tokenizer.pad_token_id}


def questions(job: ChatJob) -> Iterator[str]:
    """The one that was asked, or lines until an empty one."""
    if job.question is not None:
        yield job.question
        return
    while True:
        if sys.stdin.isatty():
            console.print("[bold]you[/bold]  ", end="")
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


def main(arguments: Sequence[str] | None = None) -> None:
    """Talk until the questions end."""
    job = parse(ChatJob, arguments, "ecgchat chat")
    recording = find_recording(job)
    talk = Talk(job, recording)
    if recording is not None and sys.stdout.isatty():
        width = max(50, min(console.width, 160))
        print(draw_in_terminal(recording.ecg, recording.mv_per_lsb, recording.fs_hz, width, leads=("II",)))
    for question in questions(job):
        talk.answer(question)
