"""What one GPU can prove with torch and transformers alone: six checks, each a function.

Each takes a device and sizes and returns its figures with `passed`. On a CPU they run at
:data:`TINY` sizes, which shows that they run; memory and speed are measured on a GPU alone, at
:data:`FULL` sizes. Nothing here imports Ray, vLLM or DeepSpeed; `training` needs pydantic.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_models import (
    LLAMA_SMALL,
    LLAMA_TINY,
    PAD,
    T5_BASE,
    T5_SMALL,
    T5_TINY,
    gradient,
    random_contrasts,
    random_examples,
    random_student,
    word_tokenizer,
)

from qcrd_ray.inference.base import EngineOptions
from qcrd_ray.inference.transformers_engine import TransformersEngine
from qcrd_ray.method.collation import collate
from qcrd_ray.method.discriminator import (
    Discriminator,
    DiscriminatorStep,
    collate_contrasts,
    split_contrasts,
)
from qcrd_ray.method.losses import token_nll
from qcrd_ray.method.objectives import ObjectiveConfig, build_objective, total_counts
from qcrd_ray.method.prefix import encode_inputs
from qcrd_ray.method.student import StudentStep

Sizes = dict[str, Any]
Figures = dict[str, Any]
RESULTS = Path(__file__).parents[2] / "jobs" / "recipes" / "results" / "gpu"

FULL: dict[str, Sizes] = {
    "student": {
        "t5": T5_SMALL,
        "llama": LLAMA_SMALL,
        "vocabulary": 32128,
        "questions": 8,
        "tokens": 96,
        "candidates": 3,
    },
    "discriminator": {
        "shape": T5_BASE,
        "vocabulary": 32128,
        "questions": 32,
        "tokens": 300,
        "candidates": 5,
        "micro_batch_tokens": 8192,
    },
    "sampling": {
        "shape": T5_BASE,
        "vocabulary": 32128,
        "prompts": 512,
        "prompt_tokens": 64,
        "new_tokens": 128,
        "batches": (64, 512),
    },
    "training": {"questions": 400, "rounds": 4, "steps": 25, "batch": 32, "validation": 200},
    "vocabulary": {
        "shape": LLAMA_SMALL,
        "vocabulary": 152_000,
        "targets": 64,
        "tokens": 256,
        "chunk": 2**27,
    },
    "speed": {
        "shape": T5_BASE,
        "vocabulary": 32128,
        "questions": 16,
        "tokens": 128,
        "candidates": 3,
        "repeats": 10,
        "compile": True,
    },
}
TINY: dict[str, Sizes] = {
    "student": {
        "t5": T5_TINY,
        "llama": LLAMA_TINY,
        "vocabulary": 60,
        "questions": 3,
        "tokens": 8,
        "candidates": 2,
    },
    "discriminator": {
        "shape": T5_TINY,
        "vocabulary": 60,
        "questions": 4,
        "tokens": 9,
        "candidates": 2,
        "micro_batch_tokens": 80,
    },
    "sampling": {
        "shape": T5_TINY,
        "vocabulary": 60,
        "prompts": 6,
        "prompt_tokens": 5,
        "new_tokens": 6,
        "batches": (2, 6),
    },
    "training": {"questions": 6, "rounds": 2, "steps": 1, "batch": 3, "validation": 3},
    "vocabulary": {
        "shape": LLAMA_TINY,
        "vocabulary": 300,
        "targets": 4,
        "tokens": 6,
        "chunk": 300 * 5,
    },
    "speed": {
        "shape": T5_TINY,
        "vocabulary": 60,
        "questions": 2,
        "tokens": 8,
        "candidates": 2,
        "repeats": 1,
        "compile": False,
    },
}


def run_check(name: str, device: torch.device) -> Figures:
    """Run one check at the device's size, print it as one line of JSON, and keep that of a GPU."""
    on_gpu = device.type == "cuda"
    sizes = (FULL if on_gpu else TINY)[name]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    start = time.monotonic()
    figures = CHECKS[name](device, sizes)
    result = {
        "check": name,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "sizes": sizes,
        "seconds": round(time.monotonic() - start, 1),
        **figures,
    }
    keep(result)
    return result


def keep(result: Figures) -> None:
    """Print a result as one line of JSON; append that of a GPU to the file of its device's name."""
    line = json.dumps(result)
    print(line)
    if result["device"] != "cpu":
        RESULTS.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", result["device"].lower()).strip("-")
        with (RESULTS / f"{name}.jsonl").open("a") as file:
            file.write(line + "\n")


# --- The checks ---


def student(device: torch.device, sizes: Sizes) -> Figures:
    """Loss and gradients of a student's step: those of the CPU, in float32."""
    figures: Figures = {}
    objective = build_objective(ObjectiveConfig())
    examples = random_examples(
        sizes["questions"],
        vocabulary=sizes["vocabulary"],
        tokens=sizes["tokens"],
        candidates=sizes["candidates"],
    )
    for kind in ("t5", "llama"):
        model = random_student(kind, sizes[kind], vocabulary=sizes["vocabulary"])
        found = []
        for where in (torch.device("cpu"), device):
            step = StudentStep(copy.deepcopy(model), objective).to(where)
            batch = collate(examples, objective, pad=PAD).to(where)
            loss = step(batch, total_counts(objective, examples)).loss
            loss.backward()
            found.append((loss.item(), gradient(step)))
        (loss, ours), (other_loss, theirs) = found
        figures[kind] = {
            "loss_difference": abs(loss - other_loss),
            "gradient_difference": ((ours - theirs).norm() / ours.norm()).item(),
        }
    return {
        **figures,
        "passed": all(
            value <= 1e-4 for kind in ("t5", "llama") for value in figures[kind].values()
        ),
    }


def discriminator(device: torch.device, sizes: Sizes) -> Figures:
    """A step of D in micro-batches fits into 20 GiB, and a split changes no gradient."""
    shape, vocabulary = sizes["shape"], sizes["vocabulary"]

    def run(step: DiscriminatorStep, contrasts: list, budget: int) -> torch.Tensor:
        for part in split_contrasts(contrasts, tokens=budget):
            step(collate_contrasts(part, pad=PAD).to(device), len(contrasts)).loss.backward()
        return gradient(step)

    def made(shape: dict[str, int]) -> DiscriminatorStep:
        encoder = random_student("t5", shape, vocabulary=vocabulary)
        torch.manual_seed(0)
        return DiscriminatorStep(Discriminator.from_model(encoder, dropout=0.0)).to(device)

    small = random_contrasts(5, vocabulary=vocabulary, tokens=12, candidates=2)
    step = made(T5_TINY)
    whole, split = run(step, small, 10**9), run(step, small, 60)
    large = random_contrasts(
        sizes["questions"],
        vocabulary=vocabulary,
        tokens=sizes["tokens"],
        candidates=sizes["candidates"],
    )
    step = made(shape).train()
    with peak_memory(device) as peak:
        run(step, large, sizes["micro_batch_tokens"])
    difference = (whole - split).abs().max().item()
    return {
        "gradient_difference": difference,
        **peak,
        "passed": difference <= 1e-5 and peak.get("peak_gib", 0) < 20,
    }


def sampling(device: torch.device, sizes: Sizes) -> Figures:
    """Large batches sample the same texts, and on a GPU several times as fast."""
    model = random_student("t5", sizes["shape"], vocabulary=sizes["vocabulary"])
    words = [f"w{i}" for i in range(min(1000, sizes["vocabulary"] - 3))]
    prompts = [
        " ".join(words[(i * 7 + j) % len(words)] for j in range(sizes["prompt_tokens"] // 2))
        for i in range(sizes["prompts"])
    ]
    figures: Figures = {}
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        word_tokenizer(words).save_pretrained(folder)
        for batch in sizes["batches"]:
            engine = TransformersEngine(folder, EngineOptions(device=device, batch_size=batch))
            asked = {"temperature": 1.0, "max_tokens": sizes["new_tokens"], "seed": 0}
            engine.generate(prompts[:2], **asked)  # a warm-up
            start = time.monotonic()
            generated = engine.generate(prompts, **asked)
            tokens = sum(sample.tokens for each in generated for sample in each)
            figures[f"tokens_per_s_{batch}"] = round(tokens / (time.monotonic() - start))
            texts.append([each[0].text for each in generated])
    small, large = (figures[f"tokens_per_s_{batch}"] for batch in sizes["batches"])
    same = sum(a == b for a, b in zip(*texts, strict=True)) / len(prompts)
    # rounding differs with the batch on a GPU, and a draw can lie on the edge between two tokens
    enough = same >= 0.98 and large >= 4 * small if device.type == "cuda" else same == 1.0
    return {**figures, "equal_texts": same, "passed": enough}


def training(device: torch.device, sizes: Sizes) -> Figures:
    """QCRD in one process on the demo's student: it learns, and a repeat is identical."""
    from gpu_training import train_demo_student

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        first, again = (train_demo_student(device, **sizes) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    weights, accuracies = first
    same = all(torch.equal(weights[name], again[0][name]) for name in weights)
    learnt = accuracies[-1] >= accuracies[0] or device.type == "cpu"  # tiny: too few to say
    return {"accuracies": accuracies, "repeat_is_identical": same, "passed": same and learnt}


def vocabulary(device: torch.device, sizes: Sizes) -> Figures:
    """A large vocabulary's losses by chunks: exact, and never all logits in memory."""
    words, targets, tokens = sizes["vocabulary"], sizes["targets"], sizes["tokens"]
    model = random_student("llama", sizes["shape"], vocabulary=words).to(device)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(2, words, (targets // 2, tokens), generator=generator).to(device)
    labels = torch.randint(2, words, (targets, tokens), generator=generator).to(device)
    rows = torch.arange(targets, device=device) // 2
    found, peaks = [], []
    for whole in (False, True):
        with peak_memory(device) as peak:
            encoded = encode_inputs(model, inputs, torch.ones_like(inputs))
            if whole:
                losses = token_nll(encoded.logits(labels, rows), labels)
            else:
                losses = encoded.losses(labels, rows, chunk=sizes["chunk"])
            losses.mean().backward()
        found.append((losses.detach().cpu(), gradient(model)))
        peaks.append(peak.get("peak_gib", 0.0))
        del losses, encoded
    (losses, ours), (other, theirs) = found
    differences = {
        "loss_difference": (losses - other).abs().max().item(),
        "gradient_difference": ((ours - theirs).norm() / theirs.norm()).item(),
    }
    # the logits of a chunk, their float32 copy, its gradient and what cross-entropy keeps
    bound = 4 * 4 * sizes["chunk"] / 2**30
    logits = targets * tokens * words * 4 / 2**30
    saved = peaks[1] - peaks[0]
    on_gpu = device.type == "cuda"
    return {
        **differences,
        "whole_logits_gib": round(logits, 2),
        "peak_gib": peaks[0],
        "peak_gib_whole": peaks[1],
        "passed": all(value <= 1e-4 for value in differences.values())
        and (not on_gpu or saved > logits - bound),
    }


def speed(device: torch.device, sizes: Sizes) -> Figures:
    """Tokens and achieved FLOPs a second of a step of the student and of D, by precision."""
    from gpu_speed import measure

    figures = measure(device, sizes)
    return {**figures, "passed": True}


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Figures]:
    """Fills in `peak_gib`, all that the device held at once in the block; nothing on a CPU."""
    peak: Figures = {}
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield peak
    if device.type == "cuda":
        peak["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)


CHECKS: dict[str, Callable[[torch.device, Sizes], Figures]] = {
    "student": student,
    "discriminator": discriminator,
    "sampling": sampling,
    "training": training,
    "vocabulary": vocabulary,
    "speed": speed,
}
