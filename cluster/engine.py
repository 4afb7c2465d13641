"""The DeepSpeed engine, from a typed configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from cluster.errors import RunError, at_least
from cluster.world import World

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class EngineConfig:
    """How the model, its gradients and its optimiser are spread and computed."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """What is partitioned over the ranks: 0 nothing, 1 optimiser state, 2 gradients too, 3 parameters too."""
    precision: Precision = "bf16"
    """bf16 keeps fp32 master weights in the optimiser."""
    gradient_accumulation: int = 1
    """Micro-batches of an optimiser step, on each rank."""
    gradient_clipping: float = 1.0
    """Largest norm of the global gradient; 0 for none."""

    def __post_init__(self) -> None:
        at_least(1, train__engine__gradient_accumulation=self.gradient_accumulation)
        at_least(0, train__engine__gradient_clipping=self.gradient_clipping)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, with linear warm-up and a cosine to a fraction of the peak rate."""

    learning_rate: float = 1e-4
    weight_decay: float = 0.1
    """For matrices alone: biases, norms and scalars are not decayed."""
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    warmup_steps: int = 100
    final_fraction: float = 0.0
    """Learning rate of the last step, as a fraction of the peak."""

    def __post_init__(self) -> None:
        at_least(0, train__optimizer__learning_rate=self.learning_rate, train__optimizer__warmup_steps=self.warmup_steps)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step 0 ≤ `step` < `steps`: a pure function, so that a resumed run needs no scheduler state."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return self.learning_rate * (self.final_fraction + (1 - self.final_fraction) * cosine)


class SkippingAdamW(torch.optim.AdamW):
    """AdamW that leaves weights and moments as they are where a gradient is not finite.

    DeepSpeed's ZeRO and bf16 optimisers do so by themselves; its plain fp32 engine takes this one as it is, and asks it for
    `overflow` after each step as it does them.
    """

    overflow = False

    def step(self, closure: Any = None) -> Any:
        """Waits for the device, as those do."""
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.overflow = not bool(torch.nn.utils.get_total_norm(gradients).isfinite())
        return None if self.overflow else super().step(closure)


def compute_type(precision: Precision) -> torch.dtype:
    """Type of the parameters that forward and backward use."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def deepspeed_config(engine: EngineConfig, micro_batch: int, world_size: int) -> dict[str, Any]:
    """DeepSpeed's own configuration. `micro_batch` is for its bookkeeping: the loss is averaged by the loop."""
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": engine.gradient_accumulation,
        "train_batch_size": micro_batch * engine.gradient_accumulation * world_size,
        "gradient_clipping": engine.gradient_clipping,
        "bf16": {"enabled": engine.precision == "bf16"},
        "zero_optimization": {"stage": engine.zero_stage},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters: matrices with weight decay, everything else without."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise RunError("the stage's model has no trainable parameter; unfreeze a part of it")
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_engine(
    model: nn.Module,
    engine: EngineConfig,
    optimizer: OptimizerConfig,
    micro_batch: int,
    world: World,
    load_universal: bool = False,
) -> Any:
    """A DeepSpeed engine around the model; the caller sets the learning rate of each step.

    Args:
        model: to train.
        engine: how it is spread.
        optimizer: AdamW's settings.
        micro_batch: samples of this rank.
        world: this attempt's ranks.
        load_universal: whether `load_checkpoint` will meet the universal form.
    """
    import deepspeed

    groups = parameter_groups(model, optimizer.weight_decay)
    plain = engine.zero_stage == 0 and engine.precision == "fp32"
    adamw = (SkippingAdamW if plain else torch.optim.AdamW)(
        groups, lr=optimizer.learning_rate, betas=optimizer.betas, eps=optimizer.epsilon, fused=world.device.type == "cuda"
    )
    config = deepspeed_config(engine, micro_batch, world.size) | {"checkpoint": {"load_universal": load_universal}}
    built, *_ = deepspeed.initialize(model=model, optimizer=adamw, config=config, dist_init_required=False)
    return built


def gradient_norm(engine: Any) -> Any:
    """Norm of the global gradient before clipping, after `backward` and before `step`; None where only `step` knows it.

    The ZeRO optimisers and the bf16 one compute it in their step; DeepSpeed's plain fp32 path tells nobody.
    """
    if engine.zero_optimization() or engine.bfloat16_enabled():
        return None
    return torch.nn.utils.get_total_norm([p.grad for p in engine.module.parameters() if p.grad is not None])
