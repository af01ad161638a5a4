"""Whether samplers of student negatives keep up with the trainer, at the paper's recipes' sizes.

    python jobs/measure_negatives.py [esnli_t5_small] [esnli_t5_base]

In a round the workers train on each of its questions, and the samplers write a text for each. Both
sides are run here with the package's own code, on random models of the recipe's shapes and texts of
usual lengths, one thread each: seconds a question. That is the ratio of a device that is bound by
arithmetic. Decoding on a GPU is bound by other things as well, so the same runs are counted: the
operations that become kernels, the floating-point operations, and the bytes that a decoding step
reads. From those and public figures of GPUs come seconds a round, against the samplers: the trainer
at a share of the peak that few reach, the samplers far below it.

Prints one JSON line for each recipe.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoModelForSeq2SeqLM, T5Config

from qcrd_ray.inference import load_engine
from qcrd_ray.method.collation import collate
from qcrd_ray.method.discriminator import Contrast, Discriminator, DiscriminatorStep
from qcrd_ray.method.discriminator import collate_contrasts as collate_pairs
from qcrd_ray.method.examples import Example, Rationale
from qcrd_ray.method.objectives import ObjectiveConfig, build_objective, total_counts
from qcrd_ray.method.student import StudentStep
from qcrd_ray.models.names import demo_model
from qcrd_ray.models.pretrained import read_tokenizer
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.training.engines import PlainEngine, micro_batches, student_config

PAPER = Path(__file__).resolve().parent / "recipes" / "paper"
VOCABULARY, HEAD_WIDTH = 32_100, 64
SHAPES: dict[str, dict[str, Any]] = {  # of google/t5-v1_1-*
    "small": {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "base": {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
}
# tokens: of recorded rationales and questions of SVAMP, CQA and e-SNLI (some four characters each)
INPUT, LABEL, RATIONALE = 48, 4, 100
# samples of a question: three of five for the vote's answer, two minority ones, and the student's
POSITIVES, NEGATIVES = 3, 3
SCORE_BATCH = 64  # pairs that the discriminator scores at once
QUESTIONS = 2  # of a micro-batch here
TEXTS = 16  # sampled together here
BYTES = 2  # of a number: snapshots of a student that is trained in bf16 are bf16


@dataclass(frozen=True)
class Gpu:
    """Public figures: dense bf16 in FLOP/s, of which TF32 is half; memory in bytes/s."""

    bf16: float
    memory: float


GPUS = {
    "A10G": Gpu(70e12, 600e9),
    "L4": Gpu(121e12, 300e9),
    "H100": Gpu(989e12, 3_350e9),
}
# against the samplers
TRAINER_REACHES = 0.5  # of its peak
SAMPLER_REACHES = 0.25  # of its peak
MEMORY_REACHES = 0.7
# seconds to launch a kernel from Python
SAMPLER_KERNEL_S = 20e-6
TRAINER_KERNEL_S = 5e-6


class Kernels(TorchDispatchMode):
    """Counts the operations that would each be a kernel of a GPU: those that are no views."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = [value.alias_info for value in func._schema.returns]
        self.count += not any(alias is not None and not alias.is_write for alias in returned)
        return func(*args, **(kwargs or {}))


def config_of(shape: str) -> T5Config:
    """The configuration of google/t5-v1_1-<shape>."""
    config = T5Config(
        vocab_size=32_128,
        d_kv=HEAD_WIDTH,
        feed_forward_proj="gated-gelu",
        architectures=["T5ForConditionalGeneration"],
        **SHAPES[shape],
    )
    config.tie_word_embeddings = False
    config.pad_token_id = config.decoder_start_token_id = 0
    return config


def tokens(count: int) -> tuple[int, ...]:
    """Random tokens."""
    return tuple(torch.randint(3, VOCABULARY, (count,)).tolist())


def student_step(recipe: Recipe, shape: str) -> Callable[[], object]:
    """A micro-batch of QCRD's step: forward and backward."""
    train = recipe.train.model_copy(
        update={"batch_size": QUESTIONS, "micro_batch_size": QUESTIONS, "precision": "fp32"}
    )
    objective = build_objective(ObjectiveConfig())

    def rationales(count: int) -> tuple[Rationale, ...]:
        return tuple(Rationale(tokens=tokens(RATIONALE), weight=1.0) for _ in range(count))

    examples = [
        Example(
            predict=tokens(INPUT),
            explain=tokens(INPUT),
            label=tokens(LABEL),
            positives=rationales(POSITIVES),
            negatives=rationales(NEGATIVES),
        )
        for _ in range(QUESTIONS)
    ]
    batch = collate(examples, objective, pad=0)
    counts = total_counts(objective, examples)
    model = AutoModelForSeq2SeqLM.from_config(config_of(shape))
    engine = PlainEngine(StudentStep(model, objective), student_config(train))
    engine.train()
    return lambda: engine.backward(engine(batch, counts).loss)


def judge_parts(recipe: Recipe) -> tuple[Callable[[], object], Callable[[], object]]:
    """The discriminator's scores of a micro-batch's candidates, and its own step on as many."""
    shape = (recipe.discriminator.model or "").rpartition("-")[2]
    model = AutoModel.from_config(config_of(shape))
    judge = Discriminator.from_model(model, hidden=recipe.discriminator.hidden)
    step = DiscriminatorStep(judge)

    def pairs(count: int) -> tuple[tuple[int, ...], ...]:
        return tuple(tokens(INPUT + RATIONALE) for _ in range(count))

    contrasts = [
        Contrast(positives=pairs(POSITIVES), negatives=pairs(NEGATIVES)) for _ in range(QUESTIONS)
    ]
    batch = collate_pairs(contrasts, pad=0)
    flat = [pair for each in contrasts for pair in (*each.positives, *each.negatives)]
    return (
        lambda: judge.score(flat),
        lambda: step(batch, QUESTIONS).loss.backward(),
    )


def sampler(recipe: Recipe, shape: str, folder: Path) -> Callable[[], object]:
    """Writes texts, each as long as the recipe allows: random weights end none of them early."""
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(config_of(shape)).save_pretrained(folder)
    tokenizer = read_tokenizer(demo_model("student"))
    tokenizer.add_tokens([f"<w{i}>" for i in range(VOCABULARY - len(tokenizer))])
    tokenizer.save_pretrained(folder)
    engine = load_engine(
        folder, engine="transformers", batch_size=TEXTS, max_input_tokens=INPUT, device="cpu"
    )
    prompts = ["".join(f"<w{i + j}>" for j in range(INPUT)) for i in range(TEXTS)]
    return lambda: engine.generate(
        prompts,
        temperature=recipe.negatives.temperature,
        max_tokens=recipe.student.max_target_tokens,
    )


def counted(work: Callable[[], object]) -> tuple[int, int]:
    """Floating-point operations of matrix products, and operations that are no views."""
    with Kernels() as kernels, FlopCounterMode(display=False) as flops:
        work()
    return flops.get_total_flops(), kernels.count


def seconds_of(work: Callable[[], object], *, times: int = 3) -> float:
    """How long ``work`` takes: the median of so many runs. It has run before."""
    taken = []
    for _ in range(times):
        began = time.monotonic()
        work()
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def measure(name: str) -> dict[str, Any]:
    """Both sides of a recipe."""
    recipe = load_recipe(PAPER / f"{name}.yaml")
    shape = (recipe.student.model or "").rpartition("-")[2]
    train = recipe.train
    assert train.precision == "bf16" and recipe.discriminator.precision == "fp32"
    length = recipe.student.max_target_tokens
    with tempfile.TemporaryDirectory() as scratch:
        write = sampler(recipe, shape, Path(scratch))
        trains = student_step(recipe, shape)
        scores, judges = judge_parts(recipe)
        assert train.round.unit == "steps" and train.round.size is not None
        asked = train.round.size * train.batch_size
        # what the discriminator learns from in a round, for each question that the student does
        judged = recipe.discriminator.steps_per_round * recipe.discriminator.batch_size / asked
        student_flops, step_kernels = counted(trains)
        score_flops, score_kernels = counted(scores)
        text_flops, kernels = counted(write)
        judge_flops = score_flops + judged * counted(judges)[0]
        a_question = {
            "student": seconds_of(trains) / QUESTIONS,
            "scores": seconds_of(scores) / QUESTIONS,
            "discriminator": judged * seconds_of(judges) / QUESTIONS,
        }
        a_text = seconds_of(write, times=1) / TEXTS
    # a decoding step has as many kernels for any batch
    kernels, text_flops = kernels / length, text_flops / TEXTS
    student_flops, judge_flops = student_flops / QUESTIONS, judge_flops / QUESTIONS
    samplers, workers = recipe.negatives.samplers, train.workers
    trainer_s = sum(a_question.values()) / workers
    # what a decoding step reads: the decoder's weights once, keys and values of each row
    width, layers = SHAPES[shape]["d_model"], SHAPES[shape]["num_layers"]
    inner = SHAPES[shape]["num_heads"] * HEAD_WIDTH
    weights = layers * (8 * width * inner + 3 * width * SHAPES[shape]["d_ff"])
    weights += width * VOCABULARY
    a_row = layers * 2 * inner * (INPUT + length / 2)

    def on(gpu: Gpu) -> dict[str, float]:
        batch = recipe.negatives.batch_size
        batches = -(-asked // (batch * samplers))
        step = max(
            kernels * SAMPLER_KERNEL_S,
            BYTES * (weights + batch * a_row) / (MEMORY_REACHES * gpu.memory)
            + batch * text_flops / length / (SAMPLER_REACHES * gpu.bf16),
        )
        sampling = batches * length * step
        own = asked / workers  # questions of a worker
        judge = 2 * judge_flops  # discriminator.precision is fp32 in these recipes
        training = max(
            own * (student_flops + judge) / (TRAINER_REACHES * gpu.bf16),
            TRAINER_KERNEL_S
            * own
            * (
                step_kernels / micro_batches(train)[0]
                + score_kernels * (POSITIVES + NEGATIVES) / SCORE_BATCH
            ),
        )
        return {
            "sampling, s a round": round(sampling, 1),
            "training, s a round": round(training, 1),
            "sampling / training": round(sampling / training, 3),
        }

    return {
        "recipe": name,
        "questions of a round": asked,
        "workers": workers,
        "samplers": samplers,
        "s a question on one core": {part: round(s, 3) for part, s in a_question.items()},
        "s a text on one core": round(a_text, 3),
        "sampling / training on cores": round(a_text / samplers / trainer_s, 3),
        "GFLOP a question, student and discriminator": [
            round(student_flops / 1e9, 1),
            round(judge_flops / 1e9, 1),
        ],
        "GFLOP a text": round(text_flops / 1e9, 1),
        "kernels of a decoding step, a micro-batch": [round(kernels), step_kernels],
        "GPUs": {kind: on(gpu) for kind, gpu in GPUS.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", default=["esnli_t5_small", "esnli_t5_base"])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in parser.parse_args().recipes:
        print(json.dumps(measure(name)), flush=True)


if __name__ == "__main__":
    main()
