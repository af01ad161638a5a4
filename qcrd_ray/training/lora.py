"""LoRA (Hu et al. 2021, arXiv 2106.09685): small trained matrices beside frozen weights.

Only a recipe with `student.lora` needs the peft package. Only the training engine sees the
matrices: a snapshot, and so the exported student, is written with them merged into the weights.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from qcrd_ray.errors import UserError
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.method.student import auto_class
from qcrd_ray.recipe import LoraRecipe


def check_lora(
    lora: LoraRecipe, config: PretrainedConfig | None = None, *, trust_remote_code: bool = False
) -> None:
    """Refuse adapters that the student cannot have. ``config`` is the student's, if it has one yet.

    Raises:
        UserError: peft is not installed, or the student has no linear layer of a name in
            `student.lora.targets`.
    """
    if find_spec("peft") is None:
        raise UserError(
            "student.lora: the package peft is not installed: `pip install peft`, or leave"
            " student.lora out"
        )
    if config is None or not lora.targets:
        return
    auto = auto_class(config)
    assert auto is not None  # check_student has refused it
    with torch.device("meta"):
        model = auto.from_config(config, trust_remote_code=trust_remote_code)
    # its weights may be those of the embeddings, into which nothing could be merged
    output = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    ]
    names = {name.rpartition(".")[2] for name in linear}
    if unknown := [target for target in lora.targets if target not in names]:
        raise UserError(
            f"student.lora.targets: {', '.join(unknown)}: there is no such linear layer; there are"
            f" {', '.join(sorted(names))}"
        )


def add_adapters(student: PreTrainedModel, lora: LoraRecipe, *, seed: int) -> None:
    """Freeze the student and put adapters beside its linear layers, in place.

    They change nothing before the first step.
    """
    # optional: the extra `lora`
    from peft import LoraConfig, inject_adapter_in_model  # pyright: ignore[reportMissingImports]

    torch.manual_seed(keyed_seed(seed, "adapters"))
    targets = list(lora.targets) or "all-linear"
    inject_adapter_in_model(
        LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets
        ),
        student,
    )


@torch.no_grad()
def merged_state(student: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of a plain student that computes the same as this adapted one, which stays."""
    from peft.tuners.lora import LoraLayer  # pyright: ignore[reportMissingImports]

    state = student.state_dict()
    for name, layer in student.named_modules():
        if isinstance(layer, LoraLayer):
            adapted: Any = layer  # its methods are typed as those of any module
            weight = adapted.get_base_layer().weight
            delta = adapted.get_delta_weight("default").to(weight.dtype)
            state[f"{name}.base_layer.weight"] = weight + delta
    return {
        name.replace(".base_layer.", "."): weight
        for name, weight in state.items()
        if ".lora_" not in name
    }
