"""An exported ECG-Chat: plain folders that transformers and peft open without this project, and the reader beside them.

EXPORT/config.json, model.safetensors   the reader: ECG tower and projector        EcgReader.from_pretrained(EXPORT)
EXPORT/tokenizer.json, …                with its chat template                     AutoTokenizer.from_pretrained(EXPORT)
EXPORT/llm/                             the LLM, where it is no hub id             AutoModelForCausalLM.from_pretrained(…)
EXPORT/adapter/                         its adapters, after instruction tuning     PeftModel.from_pretrained(llm, …)
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from ecgchat.conversation import load_chat_tokenizer
from ecgchat.errors import ModelError
from ecgchat.models.ecg_chat import EcgChatModel
from ecgchat.models.ecg_reader import EcgReader, EcgReaderConfig

LLM_FOLDER = "llm"
ADAPTER_FOLDER = "adapter"

READER, LLM = "reader.", "llm."
"""How the names of the two parts' weights begin in `EcgChatModel`."""

NO_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.md", "*.jsonl", ".*")
"""Files of an LLM's folder that an export leaves out: pickles, and what tells of another model's training."""


def export_config(folder: str) -> EcgReaderConfig:
    """What the reader of an export is made of.

    Raises:
        ModelError: the folder holds a model of another kind.
    """
    found = AutoConfig.from_pretrained(folder)
    if not isinstance(found, EcgReaderConfig):
        raise ModelError(f"{folder}: a model of type {found.model_type!r}, expected an export of align or instruct; name one")
    return found


def llm_source(folder: str) -> str:
    """Where the LLM of an export lies: the folder in it, or the hub id or path that its configuration names.

    Raises:
        ModelError: the export names none, or is none.
    """
    named = export_config(folder).llm
    if not named:
        raise ModelError(f"{folder}: its config.json names no LLM; export the run of align or instruct again")
    return str(Path(folder, LLM_FOLDER)) if named == LLM_FOLDER else named


def load_chat(folder: str, dtype: torch.dtype = torch.float32, **how: Any) -> tuple[EcgChatModel, PreTrainedTokenizerBase]:
    """The model of an export, ready to answer, and its tokenizer.

    Args:
        folder: a local one.
        dtype: what it computes in.
        how: passed on to the LLM's `from_pretrained`, such as `attn_implementation`.

    Raises:
        ModelError: it is no export of `align` or `instruct`, or a part that its configuration names is not there.
    """
    llm = AutoModelForCausalLM.from_pretrained(_part(llm_source(folder), "LLM"), dtype=dtype, **how)
    reader = EcgReader.from_pretrained(folder, dtype=dtype)
    if reader.config.adapter:
        from peft import PeftModel

        llm = PeftModel.from_pretrained(llm, _part(str(Path(folder, ADAPTER_FOLDER)), "adapter", "adapter_config.json"))
    return EcgChatModel(reader, llm).eval(), load_chat_tokenizer(folder)


def _part(source: str, what: str, needed: str = "config.json") -> str:
    path = Path(source)
    if path.is_absolute() and not (path / needed).is_file():
        raise ModelError(
            f"{path.parent}: its config.json names an {what}, but {path.name}/{needed} is not there; "
            "copy the whole export, or export the run again"
        )
    return source


def take_weights(part: nn.Module, weights: dict[str, Tensor], prefix: str) -> None:
    """Put trained weights into a part of the model, each into its place and every trainable place filled.

    Raises:
        ModelError: a weight is missing, or of another shape, as a partitioned one that was never gathered would be.
    """
    for name, parameter in part.named_parameters():
        if not parameter.requires_grad:
            continue
        check_shape(weights, f"{prefix}{name}", parameter)
        parameter.data.copy_(weights[f"{prefix}{name}"])


def check_shape(weights: dict[str, Tensor], name: str, parameter: Tensor) -> None:
    """Refuse a checkpoint without a weight that the model trains.

    Raises:
        ModelError: it is missing or of another shape.
    """
    found = tuple(weights[name].shape) if name in weights else None
    if found != tuple(parameter.shape):
        raise ModelError(
            f"the checkpoint's weight {name} has shape {found}, expected {tuple(parameter.shape)}; "
            "export another step with --step"
        )


def write_chat(folder: Path, reader: EcgReader, llm: str, pad_token: str | None, adapter: bool = False) -> None:
    """Write the reader, the tokenizer, and the LLM where it comes from a folder; a hub id is named, not copied.

    Args:
        folder: to make.
        reader: with its trained projector.
        llm: local folder or hub id.
        pad_token: as in the run's settings.
        adapter: whether `write_adapter` adds adapters.
    """
    source = Path(llm)
    reader.config.llm = LLM_FOLDER if source.is_dir() else llm
    reader.config.adapter = adapter
    reader.save_pretrained(folder)
    load_chat_tokenizer(llm, pad_token).save_pretrained(folder)
    if not source.is_dir():
        return
    if list(source.glob("*.safetensors")):
        shutil.copytree(source, folder / LLM_FOLDER, ignore=shutil.ignore_patterns(*NO_WEIGHTS))
    else:
        AutoModelForCausalLM.from_pretrained(source).save_pretrained(folder / LLM_FOLDER)


def write_adapter(folder: Path, llm: Any, weights: dict[str, Tensor]) -> None:
    """Write the adapters beside the LLM.

    Args:
        folder: that `write_chat` made.
        llm: the LLM with adapters, its weights on any device.
        weights: of what was trained, by their names in the whole model.
    """
    names = [name for name, parameter in llm.named_parameters() if parameter.requires_grad]
    for name in names:
        check_shape(weights, f"{LLM}{name}", llm.get_parameter(name))
    llm.peft_config["default"].base_model_name_or_path = export_config(str(folder)).llm
    trained = {name: weights[f"{LLM}{name}"] for name in names}
    # Left to choose, peft asks the hub for the base model's vocabulary, by the name of a folder; embeddings are frozen.
    llm.save_pretrained(folder / ADAPTER_FOLDER, state_dict=trained, save_embedding_layers=False)
