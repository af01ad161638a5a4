"""LoRA (Hu et al. 2021, arXiv 2106.09685): small matrices beside frozen weights, by the peft
package, which only a recipe with `student.lora` needs.

Nobody but the training engine sees them: a snapshot, and so the exported student, is written with
the matrices merged into the weights.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from qcrd_ray.errors import UserError
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.method.student import auto_class
from qcrd_ray.recipe import LoraRecipe


def check_lora(lora: LoraRecipe, config: PretrainedConfig | None = None) -> None:
    """Refuse what could not be adapted. ``config`` is the student's, where it has one already.

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
    with torch.device("meta"):
        model = auto_class(config).from_config(config)
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
    """Freeze the student and put adapters beside its linear layers, in place. They change nothing
    before the first step.
    """
    from peft import LoraConfig, inject_adapter_in_model

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
    """The weights of a plain student that says what this adapted one says; the adapted one is left
    as it is.
    """
    from peft.tuners.lora import LoraLayer

    state = student.state_dict()
    for name, layer in student.named_modules():
        if isinstance(layer, LoraLayer):
            weight = layer.get_base_layer().weight
            state[f"{name}.base_layer.weight"] = weight + layer.get_delta_weight("default").to(
                weight.dtype
            )
    return {
        name.replace(".base_layer.", "."): weight
        for name, weight in state.items()
        if ".lora_" not in name
    }
