"""The student's side of training: its steps over global batches, and its frozen reference.

:class:`StudentLearner` is the student that learns: an engine, its learning rate schedule, and a
step over a global batch. :class:`Reference` is the student as it was before it learnt from pairs,
for objectives that compare the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from qcrd_ray.method.batching import keyed_random, keyed_seed, shard_batch
from qcrd_ray.method.collation import collate
from qcrd_ray.method.examples import Example
from qcrd_ray.method.objectives import Objective, total_counts
from qcrd_ray.method.reference import reference_losses, with_references
from qcrd_ray.method.student import StudentStep, load_student
from qcrd_ray.method.tokenization import pad_id
from qcrd_ray.recipe import StudentRecipe, TrainRecipe
from qcrd_ray.training.dataset import RoundQuestion
from qcrd_ray.training.engines import compile_layers, gathered, start_engine, student_config
from qcrd_ray.training.lora import add_adapters, merged_state
from qcrd_ray.training.process_group import ProcessGroup

_REFERENCE_BATCH = 16  # questions, each with all of its candidates


class StudentLearner:
    """Trains the student in ``start`` towards ``objective`` for ``total_steps`` steps.

    ``merged``: see :func:`qcrd_ray.training.engines.start_engine`.
    """

    def __init__(
        self,
        start: Path,
        config: StudentRecipe,
        train: TrainRecipe,
        *,
        objective: Objective,
        tokenizer: PreTrainedTokenizerBase,
        total_steps: int,
        seed: int,
        process_group: ProcessGroup,
        merged: bool = False,
    ):
        self.config, self.train = config, train
        self.tokenizer, self.pad = tokenizer, pad_id(tokenizer)
        self.seed, self.process_group = seed, process_group
        student = load_student(
            start, dropout=config.dropout, trust_remote_code=config.trust_remote_code
        )
        if config.lora is not None:
            add_adapters(student, config.lora, seed=seed)
        if config.gradient_checkpointing:
            student.gradient_checkpointing_enable({"use_reentrant": False})
        if train.compile:
            compile_layers(student)
        schedule = "constant_with_warmup" if train.schedule == "constant" else "linear"
        self.engine = start_engine(
            StudentStep(student, objective),
            student_config(train),
            schedule=lambda optimizer: get_scheduler(
                schedule,
                optimizer,
                num_warmup_steps=train.warmup_steps,
                num_training_steps=total_steps,
            ),
            process_group=process_group,
            merged=merged,
        )
        self.engine.train()

    @property
    def student(self) -> PreTrainedModel:
        """The student itself, without its engine."""
        return self.engine.module.student

    @property
    def objective(self) -> Objective:
        """What its steps minimise; a round may set another one with the same heads."""
        return self.engine.module.objective

    @objective.setter
    def objective(self, objective: Objective) -> None:
        self.engine.module.objective = objective

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.engine.get_lr()[0]

    def step(self, step: int, batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimizer step on a global batch, of which this worker takes its share.

        Returns this worker's sums for the log, and how many tokens its share of the step read
        (``StudentOutput``), both on its device: reading them would wait for the step.

        The loss is divided by counts over the global batch, which are known from the data: no
        communication. DeepSpeed divides by workers and micro-batches once more, so the loss is
        multiplied by both (METHOD.md 2b).
        """
        counts = total_counts(self.objective, batch)
        micro_batches = shard_batch(
            batch,
            workers=self.process_group.size,
            micro_batch_size=self.train.micro_batch_size,
            lengths=[len(example.explain) for example in batch],
        )[self.process_group.rank]
        assert len(micro_batches) == self.engine.gradient_accumulation_steps(), (
            len(micro_batches),
            step,
        )
        # a resumed step draws what it drew before
        torch.manual_seed(keyed_seed(self.seed, "dropout", step, self.process_group.rank))
        scale = self.process_group.size * len(micro_batches)
        device = self.process_group.device
        sums = torch.zeros(len(self.objective.sums), device=device)
        tokens = torch.zeros((), dtype=torch.long, device=device)

        def draw(example: Example) -> tuple[float, float]:
            random = keyed_random(self.seed, "selection", step, example.explain)
            return random.random(), random.random()

        for examples in micro_batches:
            inputs = collate(examples, self.objective, pad=self.pad, draw=draw)
            output = self.engine(inputs.to(device), counts)
            self.engine.backward(scale * output.loss)
            self.engine.step()
            sums += output.sums
            tokens += output.tokens
        return sums, tokens

    def save(self, folder: Path) -> None:
        """Write the student as a plain Hugging Face folder.

        All workers call it; under ZeRO 3 the shards are gathered first.
        """
        with gathered(self.student, sharded=self.train.zero_stage == 3):
            if self.process_group.rank == 0:
                state = None if self.config.lora is None else merged_state(self.student)
                self.student.save_pretrained(folder, state_dict=state)
                self.tokenizer.save_pretrained(folder)
        self.process_group.barrier()


class Reference:
    """The student in ``start``, frozen, in the precision that training runs in.

    So before the next step it computes what the student that learns computes. Every worker holds
    it whole, without gradients or optimizer: as much memory again as the student's weights. It is
    read when it first scores, so ``start`` may be a snapshot that is still to come.
    """

    def __init__(
        self,
        start: Path,
        config: StudentRecipe,
        train: TrainRecipe,
        *,
        objective: Objective,
        pad: int,
        process_group: ProcessGroup,
    ):
        self.folder, self.config, self.train = start, config, train
        self.objective, self.pad, self.process_group = objective, pad, process_group

    @cached_property
    def _step(self) -> StudentStep:
        student = load_student(
            self.folder, dropout=0.0, trust_remote_code=self.config.trust_remote_code
        )
        dtype = torch.bfloat16 if self.train.precision == "bf16" else torch.float32
        step = StudentStep(student, self.objective).to(self.process_group.device, dtype)
        return step.requires_grad_(False)

    def score(self, questions: Mapping[int, RoundQuestion]) -> dict[int, RoundQuestion]:
        """The same questions with a reference on every candidate. All workers call it.

        Each worker scores its share and gets the scores of all.
        """
        examples = [question.example for question in questions.values()]
        sizes = [sum(map(len, self.objective.candidates(example))) for example in examples]
        ends = list(accumulate(sizes))
        losses = torch.zeros(sum(sizes))
        share = range(self.process_group.rank, len(examples), self.process_group.size)
        share_losses = reference_losses(
            self._step, [examples[i] for i in share], pad=self.pad, batch_size=_REFERENCE_BATCH
        )
        for i, of_example in zip(share, share_losses, strict=True):
            losses[ends[i] - sizes[i] : ends[i]] = torch.tensor(of_example)
        flat = self.process_group.sum(losses).tolist()
        return {
            index: replace(
                question, example=with_references(example, self.objective, flat[end - size : end])
            )
            for (index, question), example, size, end in zip(
                questions.items(), examples, sizes, ends, strict=True
            )
        }
