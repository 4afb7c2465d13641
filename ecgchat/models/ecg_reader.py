"""The ECG reader: a pretrained ECG tower and a projector that turns its tokens into what an LLM reads.

reader = EcgReader.from_pretrained("exported/folder")
embeddings = reader(millivolts)        # (ECGs, tokens of an ECG, width of the LLM)

Wiring of LLaVA-1.5 (Liu et al., Improved Baselines with Visual Instruction Tuning, 2024) as ECG-Chat uses it (Zhao et al.,
ECG-Chat, arXiv 2408.08849): every token of the tower, before its last norm and with the class token in front.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from ecgchat.models.coca import CocaModel
from ecgchat.models.ecg_tower import EcgTower, EcgTowerConfig

EcgTokens = Literal["all_tokens_before_norm", "patch_tokens_after_norm"]
"""Which tokens of `EcgTowerOutput` the projector reads: ECG-Chat's and GEM's, or the caption decoder's."""

ProjectorKind = Literal["linear", "mlp2x_gelu"]
"""LLaVA's names: one linear layer, or two with a GELU between them."""


@dataclass(frozen=True)
class ProjectorConfig:
    """What the LLM is given of an ECG."""

    tokens: EcgTokens = "all_tokens_before_norm"
    """Tokens of the tower that become the LLM's."""
    kind: ProjectorKind = "mlp2x_gelu"

    def __post_init__(self) -> None:
        for name, kinds in (("tokens", EcgTokens), ("kind", ProjectorKind)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"projector.{name} {getattr(self, name)!r}: expected {' or '.join(get_args(kinds))}")


class EcgReaderConfig(PreTrainedConfig):
    """All that is needed to build the reader again; written as `config.json`."""

    model_type = "ecg_reader"

    def __init__(
        self,
        ecg: dict[str, Any] | None = None,
        latent_width: int = 512,
        projector: dict[str, Any] | None = None,
        llm_width: int = 4096,
        llm: str = "",
        adapter: bool = False,
        **kwargs: Any,
    ) -> None:
        self.ecg = ecg or asdict(EcgTowerConfig())
        self.latent_width = latent_width
        self.projector = projector or asdict(ProjectorConfig())
        self.llm_width = llm_width
        self.llm = llm
        """The LLM that it was made for: `llm` for the folder beside it, else a hub id or a path."""
        self.adapter = adapter
        """Whether the LLM has adapters, in the folder `adapter` beside it."""
        super().__init__(**kwargs)

    @property
    def tower(self) -> EcgTowerConfig:
        """Which ECGs it reads."""
        return EcgTowerConfig(**self.ecg)

    @property
    def tokens_per_ecg(self) -> int:
        """Places of a conversation that one ECG takes."""
        return self.tower.patches + (self.projector["tokens"] == "all_tokens_before_norm")


class EcgReader(PreTrainedModel):
    """ECG → embeddings for an LLM. The tower is frozen; the projector learns."""

    config_class = EcgReaderConfig
    base_model_prefix = "reader"
    main_input_name = "millivolts"

    def __init__(self, config: EcgReaderConfig) -> None:
        super().__init__(config)
        self.tower = EcgTower(config.tower, config.latent_width)
        self.projector = projector(config.projector["kind"], config.ecg["width"], config.llm_width)
        self.tower.requires_grad_(False)
        self.post_init()

    @classmethod
    def on_top_of(cls, coca: CocaModel, config: ProjectorConfig, llm_width: int) -> EcgReader:
        """A reader with the tower of a trained ECG-CoCa and a projector that has learnt nothing yet."""
        about = EcgReaderConfig(coca.config.ecg, coca.config.latent_width, asdict(config), llm_width)
        reader = cls(about)
        reader.tower.load_state_dict(coca.ecg.state_dict())
        return reader

    @classmethod
    def from_pretrained(cls, *arguments: Any, **named: Any) -> EcgReader:
        """The reader of a folder. transformers puts new parameters into the place of old ones, so the tower is frozen again."""
        reader: EcgReader = super().from_pretrained(*arguments, **named)
        reader.tower.requires_grad_(False)
        return reader

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The projector's layers keep variance from input to output; the tower's weights come from its checkpoint."""
        if isinstance(module, EcgTower):
            module.initialise()
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def train(self, mode: bool = True) -> EcgReader:
        """Training mode of the projector; the frozen tower stays as it is evaluated."""
        super().train(mode)
        self.tower.eval()
        return self

    def forward(self, millivolts: Tensor) -> Tensor:
        """(ECGs, 12, samples) in millivolts → (ECGs, tokens of an ECG, width of the LLM)."""
        with torch.no_grad():
            tokens = getattr(self.tower(millivolts), self.config.projector["tokens"])
        read: Tensor = self.projector(tokens)
        return read


def projector(kind: ProjectorKind, width: int, llm_width: int) -> nn.Module:
    """Channels of the tower → channels of the LLM."""
    if kind == "linear":
        return nn.Linear(width, llm_width)
    return nn.Sequential(nn.Linear(width, llm_width), nn.GELU(), nn.Linear(llm_width, llm_width))


AutoConfig.register(EcgReaderConfig.model_type, EcgReaderConfig, exist_ok=True)
AutoModel.register(EcgReaderConfig, EcgReader, exist_ok=True)
