"""The README of an exported model: what it is, what it was trained on, and what was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cluster.markers import Marker


@dataclass(frozen=True)
class Kind:
    """What a stage's export is, in words."""

    title: str
    tags: str
    about: str
    use: str


CHAT_USE = """from ecgchat.chat_export import load_chat
model, tokenizer = load_chat("this folder")

# or the LLM alone, without this project:
from peft import PeftModel
from transformers import AutoModelForCausalLM
llm = AutoModelForCausalLM.from_pretrained("this folder/llm")"""

KINDS = {
    "coca": Kind(
        "ECG-CoCa",
        "ecg, contrastive",
        "An ECG encoder and a text encoder that meet in one space, with a decoder that writes the report.",
        'from ecgchat.models.coca import CocaModel\nmodel = CocaModel.from_pretrained("this folder")',
    ),
    "align": Kind(
        "ECG-Chat, aligned",
        "ecg, multimodal",
        "An ECG encoder and a projector that shows its tokens to a frozen LLM. Adapters are trained on it next.",
        CHAT_USE,
    ),
    "instruct": Kind(
        "ECG-Chat",
        "ecg, multimodal, conversational",
        "An LLM that looks at 12-lead ECGs and talks about them: an ECG encoder, a projector, and adapters of the LLM.",
        CHAT_USE + '\nllm = PeftModel.from_pretrained(llm, "this folder/adapter")',
    ),
}
"""Stage → what its export is."""


def model_card(record: dict[str, Any], marker: Marker, results: list[str] | None = None) -> str:
    """Markdown for one export.

    Args:
        record: the run's `config.json`.
        marker: the checkpoint that was exported.
        results: rows of a Markdown table, header first, as an evaluation made them.
    """
    kind, data = KINDS[record["stage"]], record["data"]
    warning = (
        "Trained on **simulated** ECGs alone: it shows that the harness works and knows nothing of patients.\n\n"
        if data["simulated"]
        else "A research model; not for clinical use.\n\n"
    )
    model = record["model"]
    ecg = model["ecg"] if "ecg" in model else model["reader"]["ecg"]
    measured = "\n".join(results) + "\n" if results else "Not evaluated yet: run `ecgchat eval`.\n"
    return (
        f"---\nlibrary_name: ecgchat\ntags: [{kind.tags}]\n---\n\n# {kind.title}\n\n{kind.about}\n\n"
        f"{warning}"
        f"```python\n{kind.use}\n```\n\n"
        "| | |\n|---|---|\n"
        f"| data | {data['source']}, {data['records_trained_on']} samples, index sha256 `{data['index_sha256']}` |\n"
        f"| ECG | 12 leads, {ecg['duration_s']} s at {ecg['sampling_rate_hz']} Hz, millivolts |\n"
        f"| checkpoint | {marker.name}, attempt {marker.attempt}, {marker.world_size} workers |\n"
        f"| validation loss | {marker.content.get('validation_loss')} |\n\n"
        f"## Results\n\n{measured}\n"
        "## Configuration\n\n```json\n" + json.dumps(record["run"], indent=1) + "\n```\n"
    )
