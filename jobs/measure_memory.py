"""How far the doctor's estimates of memory are from what a training step really takes, on a CPU.

    python jobs/measure_memory.py [t5] [llama] [checkpointed]

Each shape is trained for two steps in a process of its own, with the package's own step and engine,
and the process's largest resident memory is compared with the estimate. Prints one JSON line for
each, and exits 1 where one is more than 25 % off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT = 0.25
QUESTIONS, CANDIDATES = 4, 6
SHAPES: dict[str, dict[str, Any]] = {
    "t5": {"student": {"max_input_tokens": 192, "max_target_tokens": 96}},
    "llama": {"student": {"max_input_tokens": 160, "max_target_tokens": 96}},
    "checkpointed": {
        "student": {
            "max_input_tokens": 384,
            "max_target_tokens": 192,
            "gradient_checkpointing": True,
        }
    },
}


def config_of(shape: str) -> Any:
    """The model's configuration: some 30 to 50 million weights."""
    from transformers import LlamaConfig, T5Config

    if shape == "llama":
        return LlamaConfig(
            vocab_size=32_000,
            hidden_size=512,
            intermediate_size=1_408,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            architectures=["LlamaForCausalLM"],
        )
    t5 = T5Config(
        vocab_size=32_128,
        d_model=512,
        d_ff=1_024,
        d_kv=64,
        num_layers=6,
        num_heads=8,
        feed_forward_proj="gated-gelu",
        architectures=["T5ForConditionalGeneration"],
    )
    t5.pad_token_id = t5.decoder_start_token_id = 0
    return t5


def measure(shape: str) -> dict[str, Any]:
    """Estimate, train two steps, and compare, in this process."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from qcrd_ray.doctor.memory import training_estimate
    from qcrd_ray.method.collation import collate
    from qcrd_ray.method.examples import Example, Rationale
    from qcrd_ray.method.objectives import ObjectiveConfig, build_objective, total_counts
    from qcrd_ray.method.student import StudentStep
    from qcrd_ray.recipe import DiscriminatorRecipe, SamplingRecipe, StudentRecipe, TrainRecipe
    from qcrd_ray.training.engines import PlainEngine, student_config

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config, keys = config_of(shape), SHAPES[shape]["student"]
    student = StudentRecipe(model=shape, **keys)
    train = TrainRecipe(batch_size=QUESTIONS, zero_stage=0)
    estimate = training_estimate(
        config,
        None,
        student=student,
        discriminator=DiscriminatorRecipe(),
        train=train,
        sampling=SamplingRecipe(),
        candidates=CANDIDATES,
    )

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 1_000, (count,)).tolist())

    def rationale() -> Rationale:
        return Rationale(tokens=tokens(student.max_target_tokens), weight=1.0)

    examples = [
        Example(
            predict=tokens(student.max_input_tokens),
            explain=tokens(student.max_input_tokens),
            label=tokens(4),
            positives=tuple(rationale() for _ in range(CANDIDATES // 2)),
            negatives=tuple(rationale() for _ in range(CANDIDATES // 2)),
        )
        for _ in range(QUESTIONS)
    ]
    objective = build_objective(ObjectiveConfig())
    inputs = collate(examples, objective, pad=0)
    counts = total_counts(objective, examples)
    before = resident("VmRSS")  # imports and what the estimate left
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config)
    if student.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    engine = PlainEngine(StudentStep(model, objective), student_config(train))
    engine.train()
    for _ in range(2):
        engine.backward(engine(inputs, counts).loss)
        engine.step()
    measured = resident("VmHWM") - before
    return {
        "shape": shape,
        "estimated_mib": round(estimate.total / 2**20),
        "measured_mib": round(measured / 2**20),
        "off": round(estimate.total / measured - 1, 3),
        "parts_mib": {name: round(size / 2**20) for name, size in estimate.parts.items()},
        "torch": torch.__version__,
    }


def resident(line: str) -> int:
    """Bytes of this process by a line of /proc/self/status: VmRSS now, VmHWM at most."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(row for row in status.splitlines() if row.startswith(line)).split()[1])


def main() -> None:
    if os.environ.get("QCRD_MEASURED"):
        print(json.dumps(measure(sys.argv[1])), flush=True)
        return
    off = []
    # freed tensors go back to the system at once, so that what is resident is what is held
    environment = {**os.environ, "QCRD_MEASURED": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    for shape in sys.argv[1:] or SHAPES:
        ran = subprocess.run(
            [sys.executable, __file__, shape],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        print(ran.stdout.strip(), flush=True)
        off.append(abs(json.loads(ran.stdout)["off"]))
    sys.exit(max(off) > LIMIT)


if __name__ == "__main__":
    main()
