"""Memory of the states of a model under ZeRO.

Source: Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, SC 2020, section 3.
"""

from __future__ import annotations

from cluster.engine import EngineConfig


def state_bytes(parameters: int, engine: EngineConfig, world_size: int) -> int:
    """Bytes of parameters, gradients and AdamW states on one rank; activations come on top.

    fp32: 4 + 4 + 8 bytes a parameter, and under ZeRO 1-3 DeepSpeed's flat fp32 copy of 4.
    bf16: 2 + 2, and an fp32 master copy of 4 with 8 of AdamW.
    """
    stage = engine.zero_stage
    compute = 2 if engine.precision == "bf16" else 4
    master = 4 if engine.precision == "bf16" or stage > 0 else 0

    def share(size: int, from_stage: int) -> float:
        return size / world_size if stage >= from_stage else size

    return round(parameters * (share(compute, 3) + share(compute, 2) + share(master + 8, 1)))


def frozen_bytes(parameters: int, engine: EngineConfig, world_size: int) -> int:
    """Bytes of weights that are not trained on one rank: no gradient, no optimiser; ZeRO-3 partitions them too."""
    size = parameters * (2 if engine.precision == "bf16" else 4)
    return size // world_size if engine.zero_stage == 3 else size
