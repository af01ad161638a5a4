"""DPO + NLL with its guard: closed forms, signs, and what the start makes of a round's
candidates.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
from method_tiny import EOS, PAD, given_losses, plain_logits, varied_examples
from training_tiny import tiny_recipe

from qcrd_ray.data.records import Question
from qcrd_ray.method.collation import collate
from qcrd_ray.method.examples import Example, Rationale
from qcrd_ray.method.objectives import ObjectiveConfig, build_objective, total_counts
from qcrd_ray.method.reference import reference_losses, with_references
from qcrd_ray.method.student import StudentStep
from qcrd_ray.training.dataset import RoundQuestion, Row
from qcrd_ray.training.process_group import ProcessGroup
from qcrd_ray.training.student_learner import Reference

PAIR = ([1.0], [0.5], [2.0], [0.5])  # l+ = 1, l- = 2: one token each, so that sums are means
ALONE = ([1.5], [0.5], [], [])


def dpo(**settings):
    return build_objective(
        ObjectiveConfig(name="dpo", alpha_pred=0.0, alpha_cl=1.0, selection="sampling", **settings)
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


# ------------------------------------------------------------------------------
# closed forms


@pytest.mark.parametrize(
    ("start", "guard", "margin"),
    [
        (1.5, 0.0, (1.5 - 1) - (1.5 - 2)),  # the positive has risen, the negative has fallen
        (1.5, 50.0, (1.5 - 1) - (1.5 - 2)),  # above its start the guard is off
        (1.0, 50.0, 0 - (1 - 2)),  # at its start as well: relu has no gradient at 0
        (0.75, 0.0, (0.75 - 1) - (0.75 - 2)),  # both have fallen: DPO is content
        (0.75, 2.0, (0.75 - 1) - (0.75 - 2) - 2 * 0.25),  # the guard is not
    ],
)
def test_dpo_closed_form(start, guard, margin):
    """A question without a negative keeps its own loss, and counts."""
    loss, sums, losses, _ = given_losses(
        [PAIR, ALONE], dpo(dpo_beta=0.5, dpo_nll=0.3, dpo_guard=guard), start=start
    )
    assert loss.item() == pytest.approx(
        (0.3 * 1 - log(sigmoid(0.5 * margin)) + 0.3 * 1.5) / 2, abs=1e-6
    )
    loss.backward()
    slope = 0.5 * (1 - sigmoid(0.5 * margin)) / 2
    guarded = guard if start < 1 else 0
    assert losses.grad.tolist() == pytest.approx(
        [0.15 + slope * (1 + guarded), -slope, 0.15], abs=1e-6
    )
    assert sums["negatives"].item() == 1 and sums["positives"].item() == 2
    assert sums["positive_gain"].item() == pytest.approx((start - 1) + (start - 1.5))
    assert sums["negative_gain"].item() == pytest.approx(start - 2)


def test_a_ratio_is_of_whole_rationales_and_of_the_tokens_that_count(tiny):
    """Sums, not means: a mean would make dpo_beta mean something else for every length.
    `difference` skips the same tokens in both.
    """
    example = Example(
        predict=(5, EOS),
        explain=(6, 7, EOS),
        positives=(Rationale(tokens=(8, 9, 10, EOS)),),
        negatives=(Rationale(tokens=(8, 9, 12, 13, 14, EOS)),),
    )
    start, now = tiny(seed=1), tiny(seed=0)

    def log_p(model, tokens, skip):
        logits = plain_logits(model, example.explain, tokens).log_softmax(-1)
        return sum(logits[i, token].item() for i, token in enumerate(tokens) if i >= skip)

    for where, skip in (("start", 0), ("difference", 2)):
        objective = dpo(dpo_nll=0.0, dpo_guard=0.0, negative_from=where)
        [losses] = reference_losses(StudentStep(start, objective), [example], pad=PAD, batch_size=4)
        referred = with_references(example, objective, losses)
        gains = [
            log_p(now, rationale.tokens, s) - log_p(start, rationale.tokens, s)
            for rationale, s in ((example.positives[0], 0), (example.negatives[0], skip))
        ]
        output = StudentStep(now, objective)(
            collate([referred], objective, pad=PAD), total_counts(objective, [referred])
        )
        metrics = objective.metrics(output.sums)
        assert [metrics["positive_gain"], metrics["negative_gain"]] == pytest.approx(
            gains, abs=1e-4
        )
        assert output.loss.item() == pytest.approx(
            -log(sigmoid(0.1 * (gains[0] - gains[1]))), abs=1e-5
        )


# ------------------------------------------------------------------------------
# references


def test_references_do_not_depend_on_the_batch_and_ignore_dropout(tiny):
    examples, objective = varied_examples(), dpo()
    step = StudentStep(tiny(dropout=0.5), objective).train()
    whole, single = (reference_losses(step, examples, pad=PAD, batch_size=size) for size in (8, 1))
    assert [len(own) for own in whole] == [
        len(e.positives) + len(e.negatives) if e.positives else 0 for e in examples
    ]
    for own, other in zip(whole, single, strict=True):
        assert own == pytest.approx(other, abs=1e-4)
    assert step.training


def test_a_candidate_without_a_reference_is_refused():
    """Its nan would poison the weights a step later."""
    examples = [
        replace(e, positives=tuple(replace(r, reference=None) for r in e.positives))
        for e in varied_examples()
    ]
    with pytest.raises(ValueError, match="no reference"):
        collate(examples, dpo(), pad=PAD)


def test_workers_share_the_scoring_and_all_get_the_same(tiny, tmp_path):
    """Three workers, one of them with less to do: what they add up is what one alone finds; and
    before the first step nothing is gained.
    """
    objective, examples = dpo(), varied_examples()
    tiny().save_pretrained(tmp_path)
    questions = {
        i: RoundQuestion(
            row=Row(
                question=Question(id=str(i), question=""),
                input="",
                answer=None,
                example=example,
                positives=(),
                negatives=(),
            ),
            example=example,
            texts={},
            right={},
        )
        for i, example in enumerate(examples)
    }

    class Recorded(ProcessGroup):
        def sum(self, tensor):
            shares.append(tensor)
            return tensor

    def scored(rank, size):
        group = Recorded(rank, size, torch.device("cpu"))
        recipe = tiny_recipe()
        reference = Reference(
            tmp_path,
            recipe.student,
            recipe.train,
            objective=objective,
            pad=PAD,
            process_group=group,
        )
        return reference.score(questions)

    shares: list[torch.Tensor] = []
    alone = scored(0, 1)
    whole = shares.pop()
    for rank in range(3):
        scored(rank, 3)
    torch.testing.assert_close(sum(shares), whole, atol=1e-4, rtol=1e-5)
    assert all(
        ((share == 0) | (share == whole) | (share - whole).abs().lt(1e-3)).all() for share in shares
    )
    batch = [question.example for question in alone.values()]
    output = StudentStep(tiny(), objective)(
        collate(batch, objective, pad=PAD), total_counts(objective, batch)
    )
    metrics = objective.metrics(output.sums)
    assert metrics["positive_gain"] == pytest.approx(0.0, abs=1e-4) and metrics[
        "negative_gain"
    ] == pytest.approx(0.0, abs=1e-4)
    assert metrics["pair"] == pytest.approx(log(2), abs=1e-3)
