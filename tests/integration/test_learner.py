"""The student's learner under every ZeRO stage and split into micro-batches, against plain torch in
one process.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_tiny import tiny_recipe

from qcrd_ray.method.examples import Example, Rationale, Source
from qcrd_ray.method.objectives import ObjectiveConfig, build_objective, total_counts
from qcrd_ray.recipe import Recipe

pytestmark = pytest.mark.integration

STEPS = 3
SPLITS = [(stage, micro) for stage in (0, 1, 2, 3) for micro in (None, 1)]
DECODER_SPLITS = [(2, 1, False), (3, 1, False), (3, None, True)]


def examples(step: int) -> list[Example]:
    """Five questions that differ in all that a batch can differ in: lengths, labels, positives,
    negatives, scores.
    """
    generator = torch.Generator().manual_seed(step)

    def tokens(length: int) -> tuple[int, ...]:
        return (*torch.randint(7, 250, (length,), generator=generator).tolist(), 1)

    def rationales(count: int, source: Source, score: float) -> tuple[Rationale, ...]:
        return tuple(
            Rationale(tokens=tokens(4 + i), source=source, score=score, weight=0.75)
            for i in range(count)
        )

    sizes = [(3, 2, True), (1, 0, True), (0, 2, True), (2, 3, False), (2, 1, True)]
    return [
        Example(
            predict=tokens(6 + i),
            explain=tokens(7 + i),
            label=tokens(1) if labelled else None,
            positives=rationales(positives, Source.TEACHER, 0.8),
            negatives=rationales(negatives, Source.STUDENT, 0.3),
        )
        for i, (positives, negatives, labelled) in enumerate(sizes)
    ]


def recipe(
    stage: int, micro: int | None, *, precision: str = "fp32", checkpointing: bool = False
) -> Recipe:
    changes = {
        "student.gradient_checkpointing": checkpointing,
        "train.zero_stage": stage,
        "train.precision": precision,
        "train.micro_batch_size": micro,
        "train.batch_size": 5,
        "train.warmup_steps": 2,
    }
    return tiny_recipe(**changes, **{"train.clip": 0.5, "train.schedule": "linear"})


def plain_torch(start: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The same steps with nothing but torch: one process, one batch, AdamW, clipping by the global
    norm.
    """
    from transformers import get_scheduler

    from qcrd_ray.method.collation import collate
    from qcrd_ray.method.student import StudentStep, load_student

    train, objective = recipe(0, None).train, build_objective(ObjectiveConfig())
    module = StudentStep(load_student(start, dropout=0.0), objective).train()
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay
    )
    schedule = get_scheduler(
        "linear", optimizer, num_warmup_steps=train.warmup_steps, num_training_steps=10
    )
    sums = torch.zeros(len(objective.sums))
    for step in range(STEPS):
        batch = examples(step)
        output = module(collate(batch, objective, pad=0), total_counts(objective, batch))
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), train.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        sums += output.sums
    return {name: tensor.clone() for name, tensor in module.student.state_dict().items()}, sums


def test_shards_and_micro_batches_change_nothing(local_ray, tiny_student, tiny_decoder, tmp_path):
    """Guards the factor W * G over global counts: on two workers (five questions: one has an empty
    micro-batch), in every ZeRO stage, as a whole and one by one, the weights and the logged sums
    are those of one process. A decoder-only student's prompts are shared through
    keys and values that no module returns, which ZeRO 3 must not mind, and gradient checkpointing
    leaves that out.
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    recipes = {f"{stage}-{micro}": (tiny_student, recipe(stage, micro)) for stage, micro in SPLITS}
    recipes["bf16"] = (tiny_student, recipe(1, None, precision="bf16"))
    for stage, micro, checkpointing in DECODER_SPLITS:
        recipes[f"decoder-{stage}-{micro}-{checkpointing}"] = (
            tiny_decoder,
            recipe(stage, micro, checkpointing=checkpointing),
        )
    batches = [examples(step) for step in range(STEPS)]

    def work():
        from transformers import AutoTokenizer

        from qcrd_ray.training.process_group import ProcessGroup, disable_operator_builds
        from qcrd_ray.training.student_learner import StudentLearner

        disable_operator_builds()
        process_group = ProcessGroup.current(torch.device("cpu"))
        for name, (start, settings) in recipes.items():
            objective, tokenizer = (
                build_objective(ObjectiveConfig()),
                AutoTokenizer.from_pretrained(start),
            )
            learner = StudentLearner(
                start,
                settings.student,
                settings.train,
                objective=objective,
                tokenizer=tokenizer,
                total_steps=10,
                seed=settings.seed,
                process_group=process_group,
            )
            sums = process_group.sum(
                sum(learner.step(step, batch)[0] for step, batch in enumerate(batches))
            )
            learner.save(tmp_path / name)
            if process_group.rank == 0:
                torch.save(sums, tmp_path / name / "sums.pt")

    TorchTrainer(
        work,
        scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=ray.train.RunConfig(
            name="splits",
            storage_path=str(tmp_path / "ray"),
            worker_runtime_env={"env_vars": {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}},
        ),
    ).fit()
    references = {start: plain_torch(start) for start in (tiny_student, tiny_decoder)}
    for name, (start, _) in recipes.items():
        expected, expected_sums = references[start]
        ours = load_file(tmp_path / name / "model.safetensors")
        assert ours, name
        weights, sums = (
            (2e-2, 2e-2) if name == "bf16" else (1e-5, 1e-5)
        )  # bf16 keeps 8 bits of a weight
        assert (
            max((ours[key].float() - expected[key]).abs().max().item() for key in ours) < weights
        ), name
        assert torch.allclose(
            torch.load(tmp_path / name / "sums.pt"), expected_sums, rtol=sums, atol=10 * sums
        ), name
