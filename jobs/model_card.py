"""The README of an exported model: what it is, what it was trained on, and what was measured."""

from __future__ import annotations

import json
from typing import Any

from cluster.markers import Marker


def model_card(record: dict[str, Any], marker: Marker, results: dict[str, Any] | None = None) -> str:
    """Markdown for one export.

    Args:
        record: the run's `config.json`.
        marker: the checkpoint that was exported.
        results: evaluation, as `ecgchat eval` prints it.
    """
    data = record["data"]
    warning = (
        "Trained on **simulated** ECGs alone: it shows that the harness works and knows nothing of patients.\n\n"
        if data["simulated"]
        else "A research model; not for clinical use.\n\n"
    )
    ecg = record["model"]["ecg"]
    measured = "Not evaluated yet: run `ecgchat eval`.\n"
    if results:
        rows = [f"| {name} | {row['value']:.3f} | {row['chance']:.3f} |" for name, row in results.items()]
        measured = "\n".join(["| on held-out patients | value | chance |", "|---|---|---|", *rows]) + "\n"
    return (
        "---\nlibrary_name: ecgchat\ntags: [ecg, contrastive]\n---\n\n# ECG-CoCa\n\n"
        "An ECG encoder and a text encoder that meet in one space, with a decoder that writes the report.\n\n"
        f"{warning}"
        '```python\nfrom ecgchat.models.coca import CocaModel\nmodel = CocaModel.from_pretrained("this folder")\n```\n\n'
        "| | |\n|---|---|\n"
        f"| data | {data['source']}, {data['records_trained_on']} records, index sha256 `{data['index_sha256']}` |\n"
        f"| ECG | 12 leads, {ecg['duration_s']} s at {ecg['sampling_rate_hz']} Hz, millivolts |\n"
        f"| checkpoint | {marker.name}, attempt {marker.attempt}, {marker.world_size} workers |\n"
        f"| validation loss | {marker.content.get('validation_loss')} |\n\n"
        f"## Results\n\n{measured}\n"
        "## Configuration\n\n```json\n" + json.dumps(record["run"], indent=1) + "\n```\n"
    )
