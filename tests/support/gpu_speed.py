"""How fast a step is: tokens and floating-point operations a second, by precision and method."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from gpu_models import PAD, random_contrasts, random_examples, random_student
from torch.utils.flop_counter import FlopCounterMode

from qcrd_ray.method.collation import collate, pad_rows
from qcrd_ray.method.discriminator import Discriminator, DiscriminatorStep, collate_contrasts
from qcrd_ray.method.examples import Example
from qcrd_ray.method.losses import IGNORED
from qcrd_ray.method.objectives import ObjectiveConfig, build_objective, total_counts
from qcrd_ray.method.student import StudentStep

PRECISIONS = {"fp32": ("ieee", False), "tf32": ("tf32", False), "bf16": ("ieee", True)}


def measure(device: torch.device, sizes: dict[str, Any]) -> dict[str, Any]:
    """Figures by name, "student qcrd bf16" and the like: seconds, tokens/s, TFLOP/s of a step."""
    examples = random_examples(
        sizes["questions"],
        vocabulary=sizes["vocabulary"],
        tokens=sizes["tokens"],
        candidates=sizes["candidates"],
    )
    model = random_student("t5", sizes["shape"], vocabulary=sizes["vocabulary"]).to(device)
    steps = {
        "student qcrd": student_step(model, "qcrd", examples, device),
        "student dss": student_step(model, "dss", examples, device),
        "student naive": naive_step(model, examples, device),
        "discriminator": discriminator_step(model, sizes, device),
    }
    figures = {
        f"{name} {precision}": timed(
            step, device, tokens, precision=precision, repeats=sizes["repeats"]
        )
        for name, (step, tokens) in steps.items()
        for precision in PRECISIONS
    }
    if sizes["compile"]:
        for layer in model.modules():
            if type(layer).__name__ == "T5Block":
                layer.compile(dynamic=True)
        step, tokens = student_step(model, "qcrd", examples, device)
        figures["student qcrd bf16 compiled"] = timed(
            step, device, tokens, precision="bf16", repeats=sizes["repeats"], counted=False
        )
    return figures


def timed(
    step: Callable[[], None],
    device: torch.device,
    tokens: int,
    *,
    precision: str,
    repeats: int,
    counted: bool = True,
) -> dict[str, float]:
    """Mean seconds of ``step`` after a warm-up, and what follows from them."""
    tf32, bf16 = PRECISIONS[precision]
    torch.backends.cuda.matmul.fp32_precision = tf32

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            step()

    counter = FlopCounterMode(display=False) if counted else nullcontext()
    with counter:
        run()
    run()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronise(device)
    seconds = (time.perf_counter() - start) / repeats
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    found = {"seconds": round(seconds, 5), "tokens_per_s": round(tokens / seconds)}
    if isinstance(counter, FlopCounterMode):
        found["tflops_per_s"] = round(counter.get_total_flops() / seconds / 1e12, 3)
    return found


def student_step(
    model, objective_name: str, examples: list[Example], device: torch.device
) -> tuple[Callable[[], None], int]:
    """A step of the student with its copies to the device, without the optimizer; its tokens."""
    objective = build_objective(ObjectiveConfig(name=objective_name))
    step, counts = StudentStep(model, objective), total_counts(objective, examples)
    batch = collate(examples, objective, pad=PAD)

    def run() -> None:
        step(batch.to(device), counts).loss.backward()
        model.zero_grad(set_to_none=True)

    with torch.no_grad():
        tokens = int(step(batch.to(device), counts).tokens)
    return run, tokens


def naive_step(
    model, examples: list[Example], device: torch.device
) -> tuple[Callable[[], None], int]:
    """QCRD as one would write it at first: every pair encoded for itself, all with gradient."""
    pairs = [
        (each.explain, rationale.tokens)
        for each in examples
        for rationale in (*each.positives, *each.negatives)
    ]
    pairs += [(each.predict, each.label) for each in examples if each.label]
    inputs, mask = (part.to(device) for part in pad_rows([pair[0] for pair in pairs], PAD))
    labels = pad_rows([pair[1] for pair in pairs], IGNORED)[0].to(device)

    def run() -> None:
        logits = model(input_ids=inputs, attention_mask=mask, labels=labels).logits
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
        ).view(labels.shape)
        # the min and the max cost nothing beside it
        losses.sum(dim=1).mean().backward()
        model.zero_grad(set_to_none=True)

    return run, sum(len(source) + len(target) for source, target in pairs)


def discriminator_step(
    model, sizes: dict[str, Any], device: torch.device
) -> tuple[Callable[[], None], int]:
    """A step of D on two questions' pairs, so that it fits any device."""
    step = DiscriminatorStep(Discriminator.from_model(model, dropout=0.0)).to(device)
    contrasts = random_contrasts(
        2,
        vocabulary=sizes["vocabulary"],
        tokens=2 * sizes["tokens"],
        candidates=sizes["candidates"],
    )
    batch = collate_contrasts(contrasts, pad=PAD)

    def run() -> None:
        step(batch.to(device), len(contrasts)).loss.backward()
        step.zero_grad(set_to_none=True)

    return run, int(batch.mask.sum())


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
