"""What qcrd_ray.training.lora takes of peft, for where peft is not installed: the same names, plain
LoRA on linear layers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
from torch import nn


@dataclass
class LoraConfig:
    r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: list[str] | str


class LoraLayer(nn.Module):
    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.base_layer, self.scaling = base, config.lora_alpha / config.r
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(config.lora_dropout)})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, config.r, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(config.r, base.out_features, bias=False)})
        nn.init.zeros_(self.lora_B["default"].weight)

    @property
    def weight(self) -> torch.Tensor:
        return self.base_layer.weight

    def get_base_layer(self) -> nn.Linear:
        return self.base_layer

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        return self.lora_B[adapter].weight @ self.lora_A[adapter].weight * self.scaling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (
            self.base_layer(x)
            + self.lora_B["default"](self.lora_A["default"](self.lora_dropout["default"](x)))
            * self.scaling
        )


def inject_adapter_in_model(config: LoraConfig, model: nn.Module) -> nn.Module:
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        wanted = config.target_modules == "all-linear" or last in config.target_modules
        if isinstance(module, nn.Linear) and wanted and module is not model.get_output_embeddings():
            setattr(model.get_submodule(parent), last, LoraLayer(module, config))
    return model


def modules() -> dict[str, ModuleType]:
    """The entries of ``sys.modules`` that make `import peft` find this one."""
    here = sys.modules[__name__]
    found = {}
    for name in ("peft", "peft.tuners", "peft.tuners.lora"):
        found[name] = ModuleType(name)
        found[name].__spec__, found[name].__path__ = ModuleSpec(name, None), []
        vars(found[name]).update(
            LoraConfig=here.LoraConfig,
            LoraLayer=here.LoraLayer,
            inject_adapter_in_model=here.inject_adapter_in_model,
        )
    return found
