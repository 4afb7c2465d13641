"""Model FLOPs utilisation: what a step's model had to compute, over what its accelerators could have computed meanwhile."""

from __future__ import annotations

import torch

from cluster.world import World

PEAKS = (
    ("H100 NVL", 835e12),
    ("H100 PCIE", 756e12),
    ("H100", 989e12),
    ("H200 NVL", None),
    ("H200", 989e12),
    ("B200", 2250e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
)
"""Part of a GPU's name → its dense bf16 FLOP/s; the first that is found counts, and None is a GPU whose peak is not known here.

Data sheets of NVIDIA, without sparsity (nvidia.com/en-us/data-center/a100/, …/h100/, …/h200/, …/l40s/, and Blackwell's), as
torchtitan reads them (github.com/pytorch/torchtitan, torchtitan/tools/utils.py). H100 and H200 alone are the SXM forms.
"""

CONVENTION = (
    "6 FLOPs a token for each trained weight, 4 for each frozen one that gradients pass, 2 for each frozen one before all "
    "that learns, and attention, not halved for a causal mask; nothing for padding and recomputation; "
    "over the dense bf16 peak, whatever the precision"
)


def peak_flops(name: str) -> float | None:
    """Dense bf16 FLOP/s of a GPU as the driver names it; None where it is not known."""
    return next((peak for part, peak in PEAKS if part in name.upper()), None)


def peak_of_world(world: World) -> tuple[float | None, str]:
    """What all ranks' accelerators can do in a second, or None; and a sentence on it. All ranks call it together."""
    names = world.gather_objects(torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "")
    if "" in names:
        return None, "no MFU: the peak of a CPU is not known"
    unknown = [name for name in names if peak_flops(name) is None]
    if unknown:
        return None, f"no MFU: the dense bf16 peak of {unknown[0]} is not in cluster/flops.py"
    peak = sum(peak_flops(name) or 0 for name in names)
    return peak, f"MFU over {peak / 1e12:.0f} TFLOP/s ({len(names)} x {' and '.join(sorted(set(names)))}): {CONVENTION}"
