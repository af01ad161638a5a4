"""Does the discriminator see what is right? Measured where neither it nor the student has learnt.

On validation questions the student of the round writes fresh samples, right or wrong by the gold
answer. D scores them, and its AUC within a question is the chance that it prefers a right sample to
a wrong one of the same question. The other AUCs of a round are in-sample: D has learnt from those
questions, and its score can be of who wrote a text, or of how hard a question is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import pstdev

import torch

from qcrd_ray.inference.heads import head_prompt, read_answer
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.method.ranking import auc, within_question_auc
from qcrd_ray.training.discriminator_learner import DiscriminatorLearner
from qcrd_ray.training.validation import Validator

SAMPLES = 4  # a question
TEMPERATURE = 1.0
_RIGHT, _WRONG, _UNREAD = 1.0, 0.0, -1.0


def probe(
    learner: DiscriminatorLearner, validator: Validator, snapshot: Path, *, seed: int
) -> dict[str, float]:
    """:func:`fresh_metrics` of D on `discriminator.probe` of the validation questions.

    ``snapshot`` writes :data:`SAMPLES` samples a question at temperature :data:`TEMPERATURE`. The
    same ``seed``, snapshot and D give the same numbers on any number of workers. All workers call
    it, and it touches no random state. {} where no question is probed.
    """
    group, task = validator.process_group, validator.task
    questions = validator.questions[: learner.config.probe]
    if not questions:
        return {}
    places = range(group.rank, len(questions), group.size)
    prompts = [head_prompt(task, questions[i], head="rationale") for i in places]
    generated = validator.engine(snapshot).generate(
        prompts,
        n=SAMPLES,
        temperature=TEMPERATURE,
        max_tokens=validator.student.max_target_tokens,
        seed=keyed_seed(seed, "discriminator probe"),
    )
    asked = [questions[i] for i in places for _ in range(SAMPLES)]
    read = [
        read_answer(task, question, sample, head="rationale")
        for question, sample in zip(asked, chain.from_iterable(generated), strict=True)
    ]
    scores = learner.score_texts(
        [task.student_input(question) for question in asked],
        [answer.text.strip() for answer in read],
    )
    found = torch.zeros(len(questions), SAMPLES, 2)  # its score, and what it is
    if asked:
        kinds = [
            _UNREAD if a.answer is None else _RIGHT if a.answer == q.answer else _WRONG
            for a, q in zip(read, asked, strict=True)
        ]
        found[list(places)] = torch.tensor([scores, kinds]).T.reshape(-1, SAMPLES, 2)
    rows = group.sum(found).tolist()
    return fresh_metrics(
        [[score for score, kind in row if kind == _RIGHT] for row in rows],
        [[score for score, kind in row if kind == _WRONG] for row in rows],
    )


def fresh_metrics(
    right: Sequence[Sequence[float]], wrong: Sequence[Sequence[float]]
) -> dict[str, float]:
    """What a round's row says of D's scores on each question's ``right`` and ``wrong`` samples.

    ``auc_fresh``, ``auc_fresh_within_question``: left out where no (question has a) pair.
    ``fresh_questions``: those with samples of both kinds. ``fresh_right_share``: of all samples
    with an answer. ``fresh_score_spread``: the standard deviation of all their scores.
    """
    all_right = [score for scores in right for score in scores]
    all_wrong = [score for scores in wrong for score in scores]
    both = [*all_right, *all_wrong]
    if not both:
        return {}
    metrics = {
        "auc_fresh": auc(all_right, all_wrong),
        "auc_fresh_within_question": within_question_auc(right, wrong),
        "fresh_questions": sum(bool(r and w) for r, w in zip(right, wrong, strict=True)),
        "fresh_right_share": len(all_right) / len(both),
        "fresh_score_spread": pstdev(both),
    }
    return {name: value for name, value in metrics.items() if value is not None}
