"""What stands beside the paper's choices: selection, weights, the discriminator's losses, and the
methods QCRD is compared with.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
from method_tiny import (
    EOS,
    PAD,
    contrastive_only,
    given_losses,
    plain_logits,
    plain_nll,
    tiny_t5,
    varied_examples,
    weighed,
)
from torch.nn import functional as F

from qcrd_ray.method.collation import collate
from qcrd_ray.method.examples import Example, Rationale
from qcrd_ray.method.losses import (
    bradley_terry_terms,
    cross_entropy_terms,
    log_odds,
    mutual_information_term,
    token_peaks,
)
from qcrd_ray.method.objectives import OBJECTIVES, ObjectiveConfig, build_objective, total_counts
from qcrd_ray.method.prefix import encode_inputs
from qcrd_ray.method.reference import reference_losses, with_references
from qcrd_ray.method.student import StudentStep

A = ([2.0, 1.0], [0.9, 0.5], [1.0, 2.0], [0.1, 0.25])
ONLY_POSITIVES = ([2.0, 1.0], [0.9, 0.5], [], [])


def stepped(name, examples, tiny=tiny_t5, *, sft=False, **settings):
    """(loss, metrics, gradient) of a step on a tiny student."""
    objective = build_objective(ObjectiveConfig(name=name, **settings), sft=sft)
    step = StudentStep(tiny(), objective)
    output = step(collate(examples, objective, pad=PAD), total_counts(objective, examples))
    output.loss.backward()
    return (
        output.loss.item(),
        objective.metrics(output.sums),
        torch.cat([p.grad.flatten() for p in step.parameters()]),
    )


# ------------------------------------------------------------------------------
# schemes and weights


@pytest.mark.parametrize(
    ("settings", "draws", "value"),
    [
        ({"selection": "sampling"}, (0.0, 0.9), 0.9 * 2 + 0.2 * 0.75 * 1),
        ({"selection": "sampling"}, (0.5, 0.49), 0.5 * 1 + 0.2 * 0.9 * 2),
        ({"selection": "mean"}, (0.0, 0.0), (1.8 + 0.5) / 2 + 0.2 * (1.8 + 0.75) / 2),
        ({"selection": "weighted_mean"}, (0.0, 0.0), 2.3 / 1.4 + 0.2 * 2.55 / 1.65),
        ({"weights": "none"}, (0.0, 0.0), 1.2),
        ({"weights": "normalised"}, (0.0, 0.0), 0.5 / 0.7 + 0.2 * 0.75 / 0.825),
    ],
)
def test_case_a_under_each_option(settings, draws, value):
    loss, _, losses, batch = given_losses([A], contrastive_only(**settings), draws)
    assert loss.item() == pytest.approx(value, abs=1e-6)
    loss.backward()
    assert batch.weights.grad is None
    assert (
        (losses.grad[:2] >= 0).all()
        and (losses.grad[2:] <= 0).all()
        and losses.grad.abs().sum() > 0
    )


@pytest.mark.parametrize("selection", ["minmax", "maxmin", "sampling", "mean", "weighted_mean"])
def test_an_empty_side_has_no_term_under_any_scheme(selection):
    """A mean over nothing must be 0, and its padding must not be read as the last candidate."""
    objective = contrastive_only(selection=selection, weights="none")
    loss, sums, losses, _ = given_losses([ONLY_POSITIVES, A], objective)
    loss.backward()
    assert sums["negatives"].item() == 1 and torch.isfinite(losses.grad).all()
    alone, *_ = given_losses([ONLY_POSITIVES], objective)
    assert alone.item() == pytest.approx(
        {"minmax": 1.0, "maxmin": 2.0, "sampling": 2.0}.get(selection, 1.5), abs=1e-6
    )


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.5, 0.999999, 1.0])
def test_sampling_reaches_every_member_and_no_padding(draw):
    *_, batch = given_losses(
        [A, ONLY_POSITIVES], contrastive_only(selection="sampling"), (draw, draw)
    )
    chosen = contrastive_only(selection="sampling").select(None, batch)
    assert chosen.positive.tolist() == [[0 if draw < 0.5 else 1], [4 if draw < 0.5 else 5]]
    assert chosen.negative.tolist() == [[2 if draw < 0.5 else 3], [-1]]


def test_a_discriminator_that_scores_everything_alike_changes_nothing_once_normalised():
    """Else it acts as a learning rate, and its effect cannot be told from one."""
    alike = ([2.0, 1.0], [0.2, 0.2], [1.0, 2.0], [0.2, 0.2])
    normalised, *_ = given_losses([alike], contrastive_only(weights="normalised"))
    unweighed, *_ = given_losses([alike], contrastive_only(weights="none"))
    assert normalised.item() == pytest.approx(unweighed.item(), abs=1e-6)


def test_weights_of_zero_stay_zero():
    """0 / 0 would send NaN into training where D is sure of everything."""
    sure = Example(predict=(EOS,), explain=(EOS,), positives=(Rationale(tokens=(EOS,), score=0.0),))
    assert weighed([sure], "normalised")[0].positives[0].weight == 0.0


@pytest.mark.parametrize("selection", ["sampling", "mean", "weighted_mean"])
def test_no_scoring_pass_where_the_scheme_needs_none(tiny, selection):
    """The pass without gradient costs a third of a step."""
    objective = build_objective(ObjectiveConfig(selection=selection))
    step, calls = StudentStep(tiny(), objective), []
    step.student.lm_head.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    examples = varied_examples()
    step(collate(examples, objective, pad=PAD), total_counts(objective, examples))
    assert calls == [True, True]


@pytest.mark.parametrize("selection", ["mean", "weighted_mean"])
def test_the_mean_schemes_train_on_every_candidate(tiny, selection):
    examples = varied_examples()
    model = tiny()
    objective = build_objective(
        ObjectiveConfig(selection=selection, alpha_pred=0.0, alpha_cl=1.0, beta=0.0)
    )
    output = StudentStep(model, objective)(
        collate(examples, objective, pad=PAD), total_counts(objective, examples)
    )
    total, count = 0.0, 0
    for example in examples:
        if example.positives:
            count += 1
            terms = [
                rationale.weight * plain_nll(model, example.explain, rationale.tokens).item()
                for rationale in example.positives
            ]
            weights = [
                rationale.weight if selection == "weighted_mean" else 1.0
                for rationale in example.positives
            ]
            total += sum(terms) / sum(weights)
    assert output.loss.item() == pytest.approx(total / count, abs=1e-5)


# ------------------------------------------------------------------------------
# the discriminator's losses

ONE = (
    torch.tensor([[log(3)]]),
    torch.tensor([[-log(3)]]),
    torch.ones(1, 1).bool(),
    torch.ones(1, 1).bool(),
)


def test_cross_entropy_and_bradley_terry_closed_forms():
    """Scores 0.75 and 0.25: -log 0.75 each; odds of 9 to 1."""
    assert cross_entropy_terms(*ONE).tolist() == pytest.approx([-log(0.75)], abs=1e-6)
    assert bradley_terry_terms(*ONE).tolist() == pytest.approx([-log(0.9)], abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_smoothed_targets_are_where_the_loss_is_least(smoothing):
    """A score of 1 - smoothing for a positive and smoothing for a negative; beyond them the loss
    rises again.
    """
    z = torch.linspace(-6, 6, 2401)[:, None].requires_grad_()
    there = torch.ones_like(z).bool()
    values = cross_entropy_terms(z, -z, there, there, smoothing=smoothing)
    assert values.argmin().item() == pytest.approx(
        2400 if not smoothing else 1200 + 200 * log((1 - smoothing) / smoothing), abs=1
    )
    score = 0.75
    smoothed = -(1 - smoothing) * log(score) - smoothing * log(1 - score)
    assert cross_entropy_terms(*ONE, smoothing=smoothing).tolist() == pytest.approx(
        [smoothed], abs=1e-6
    )


@pytest.mark.parametrize("terms", [cross_entropy_terms, bradley_terry_terms])
def test_proper_losses_push_the_right_way_drop_one_sided_questions_and_ignore_padding(terms):
    positive = torch.tensor([[0.3, 9.0], [0.0, 0.0], [2.0, 1.0]], requires_grad=True)
    negative = torch.tensor([[0.1, 0.2], [5.0, 0.0], [0.0, 0.0]], requires_grad=True)
    positive_mask, negative_mask = (
        torch.tensor([[1, 0], [0, 0], [1, 1]]).bool(),
        torch.tensor([[1, 1], [1, 0], [0, 0]]).bool(),
    )
    found = terms(positive, negative, positive_mask, negative_mask)
    alone = terms(positive[:1, :1], negative[:1], positive_mask[:1, :1], negative_mask[:1])
    assert found.tolist() == pytest.approx(alone.tolist())
    found.sum().backward()
    assert positive.grad[0, 0] < 0 and (negative.grad[0] > 0).all()
    assert positive.grad[0, 1] == 0 and not positive.grad[1:].any() and not negative.grad[1:].any()


def test_bradley_terry_does_not_see_the_questions_difficulty():
    """The same shift on all of a question's rationales leaves it as it is."""
    shifted = bradley_terry_terms(ONE[0] + 7, ONE[1] + 7, *ONE[2:])
    assert shifted.tolist() == pytest.approx(bradley_terry_terms(*ONE).tolist(), abs=1e-5)


# ------------------------------------------------------------------------------
# the other methods


def test_dss_is_both_heads_losses_on_the_first_sample(tiny):
    examples, model = varied_examples(), tiny()
    label = sum(
        plain_nll(model, e.predict, e.label).item() * len(e.label) for e in examples if e.label
    ) / sum(len(e.label or ()) for e in examples)
    explained = [plain_nll(model, e.explain, e.first).item() for e in examples if e.first]
    loss, metrics, _ = stepped("dss", examples, tiny)
    assert loss == pytest.approx(0.5 * label + 0.5 * sum(explained) / len(explained), abs=1e-5)
    assert metrics["explanation"] == pytest.approx(sum(explained) / len(explained), abs=1e-5)


def test_single_task_trains_the_explanation_alone(tiny):
    examples, model = varied_examples(), tiny()
    explained = [plain_nll(model, e.explain, e.single).item() for e in examples if e.single]
    loss, metrics, _ = stepped("single_task", examples, tiny)
    assert loss == pytest.approx(sum(explained) / len(explained), abs=1e-5)
    assert "prediction" not in metrics


def test_mi_adds_the_heads_cross_entropy(tiny):
    examples, model = varied_examples(), tiny()

    def peaks(source, target):
        return plain_logits(model, source, target).softmax(-1).max(0).values

    terms = []
    for example in examples:
        if example.first and example.label:
            label, rationale = (
                peaks(example.predict, example.label),
                peaks(example.explain, example.first),
            )
            terms.append(-(label * rationale.log_softmax(-1)).sum().item())
    explained = sum(example.first is not None for example in examples)
    loss, metrics, _ = stepped("mi", examples, tiny)
    assert metrics["mutual_information"] == pytest.approx(sum(terms) / len(terms), abs=1e-4)
    assert loss == pytest.approx(
        stepped("dss", examples, tiny)[0] + 0.1 * sum(terms) / explained, abs=1e-4
    )


def test_mi_closed_form():
    """Bug guarded: a label whose peaks sum to 1 cannot tell an unnormalised target from a
    normalised one. These sum to 1.5; e = (0.6, 0.4): log softmax = e - log(exp 0.6 + exp 0.4).
    """
    label = torch.tensor([[0.9, 0.6], [0.2, 0.1]], requires_grad=True)
    rationale = torch.tensor([[0.6, 0.4], [0.0, 0.0]], requires_grad=True)
    found = mutual_information_term(label, rationale)
    total = log(exp(0.6) + exp(0.4))
    expected = [0.9 * (total - 0.6) + 0.6 * (total - 0.4), 0.3 * log(2)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    found.sum().backward()
    assert label.grad is None, "it teaches the rationale alone"
    # d/de = 1.5 * softmax(e) - p: descent raises the token that the label wants
    share = exp(0.6) / (exp(0.6) + exp(0.4))
    assert rationale.grad.flatten().tolist() == pytest.approx(
        [1.5 * share - 0.9, 1.5 * (1 - share) - 0.6, 0.15 - 0.2, 0.15 - 0.1], abs=1e-6
    )
    assert rationale.grad[0, 0] < 0 < rationale.grad[0, 1]


def test_mi_is_weak():
    """Bug guarded: dividing both sides' peaks by their sums made another method, with a gradient
    that was 17 times larger on the demo's start. Here the label is sure of token 0, which the
    rationale gives 0.05: 1 / 0.05 = 20 against less than 1.
    """
    label = torch.tensor([[0.95, *[0.05] * 7]])
    rationale = torch.tensor([[0.05, *[0.2] * 7]], requires_grad=True)
    norms = []
    for term in (
        mutual_information_term(label, rationale),
        -(label / label.sum() * (rationale / rationale.sum()).log()).sum(),
    ):
        (gradient,) = torch.autograd.grad(term.sum(), rationale)
        norms.append(gradient.norm().item())
    assert norms[0] == pytest.approx(0.863, abs=0.001) and norms[1] > 15 * norms[0]


def test_token_peaks_skip_padding():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [0.0, 50.0]]])
    found = token_peaks(logits, torch.tensor([[0, 1, -100]]))
    assert found[0].tolist() == pytest.approx([logits[0, 0].softmax(0)[0].item(), 0.5])


def test_orpo_distill_and_redi_closed_forms():
    """l+ = 1, l- = 2: odds exp(-1) / (1 - exp(-1)) and exp(-2) / (1 - exp(-2)); a question without
    a negative has its own loss alone.
    """
    questions = [([1.0], [0.5], [2.0], [0.5]), ([1.5], [0.5], [], [])]
    odds = log(exp(-1) / (1 - exp(-1))) - log(exp(-2) / (1 - exp(-2)))
    for name, pair in (("orpo_distill", 0.1 * log(1 + exp(-odds))), ("redi", -0.8 * 2)):
        objective = build_objective(
            ObjectiveConfig(name=name, alpha_pred=0.0, alpha_cl=1.0, selection="sampling")
        )
        loss, sums, losses, _ = given_losses(questions, objective)
        assert loss.item() == pytest.approx((1.0 + pair + 1.5) / 2, abs=1e-6)
        loss.backward()
        assert losses.grad[0] > 0 > losses.grad[1] and losses.grad[2] == pytest.approx(0.5)
        assert sums["negatives"].item() == 1


@pytest.mark.parametrize(
    ("name", "settings"),
    [("qcrd", {"beta": 1.0}), ("orpo_distill", {}), ("redi", {}), ("dpo", {"dpo_nll": 0.0})],
)
def test_fine_tuning_learns_right_rationales_alone(tiny, name, settings):
    """Both heads' losses on labels and positives, whatever the pairs are to be. Guards DPO without
    a term of the positive's own, which would be fine-tuned on nothing, and its missing reference,
    whose nan would poison the weights.
    """
    examples, model = varied_examples(), tiny()
    examples = [
        replace(e, positives=tuple(replace(r, reference=None) for r in e.positives))
        for e in examples
    ]
    label = sum(
        plain_nll(model, e.predict, e.label).item() * len(e.label) for e in examples if e.label
    ) / sum(len(e.label or ()) for e in examples)
    explained = [
        (e.positives[0].weight if name == "qcrd" else 1.0)
        * plain_nll(model, e.explain, e.positives[0].tokens).item()
        for e in examples
        if e.positives
    ]
    loss, metrics, gradient = stepped(
        name, examples, tiny, sft=True, selection="sampling", **settings
    )
    assert loss == pytest.approx(0.5 * label + 0.5 * sum(explained) / len(explained), abs=1e-5)
    assert torch.isfinite(gradient).all() and all(value == value for value in metrics.values())
    assert "pair" not in metrics and "l_neg" not in metrics and "negative_nll" not in metrics


def test_odds_are_finite_where_a_loss_is_none():
    nll = torch.tensor([0.0, 1e-9, 50.0], requires_grad=True)
    log_odds(nll).sum().backward()
    assert torch.isfinite(nll.grad).all()


def test_a_pair_wants_one_of_each():
    with pytest.raises(ValueError, match="redi compares one positive with one negative"):
        build_objective(ObjectiveConfig(name="redi", selection="mean"))


def test_a_negative_is_penalised_from_where_it_goes_wrong(tiny):
    """Unlearning the start that it shares with a positive makes the positive less likely too."""
    shared = (8, 9, 10)
    example = Example(
        predict=(5, EOS),
        explain=(6, 7, EOS),
        positives=(
            Rationale(tokens=(*shared, 11, EOS), weight=1.0),
            Rationale(tokens=(8, 20, EOS), weight=1.0),
        ),
        negatives=(
            Rationale(tokens=(*shared, 12, 13, EOS), weight=1.0),
            Rationale(tokens=shared, weight=1.0),
        ),
    )
    model, found = tiny(), {}
    for where in ("start", "difference"):
        objective = build_objective(
            ObjectiveConfig(selection="minmax", weights="none", negative_from=where)
        )
        batch = collate([example], objective, pad=PAD)
        found[where] = StudentStep(model, objective)._targets(
            encode_inputs(model, batch.inputs, batch.input_mask),
            batch.candidates,
            batch.candidate_rows,
            batch.skips,
        )
        assert batch.skips.tolist() == ([0, 0, 0, 0] if where == "start" else [0, 0, 3, 2])
    assert found["difference"].tokens.tolist() == [
        5,
        3,
        3,
        1,
    ], "a negative that only stops too early keeps its end"
    logits = plain_logits(model, example.explain, example.negatives[0].tokens)
    rest = F.cross_entropy(logits[3:], torch.tensor([12, 13, EOS]), reduction="sum")
    assert found["difference"].nll[2].item() == pytest.approx(rest.item(), abs=1e-4)
    assert found["difference"].nll[0] == found["start"].nll[0], "positives are whole"


@pytest.mark.parametrize("name", ["qcrd", "dpo"])
def test_a_negative_without_a_difference_is_none(tiny, name):
    """Bug guarded: of a negative that is word for word a positive, `difference` penalised the end
    of the text, which the positive learns. From the start on, the paper's way, it stays a
    negative.
    """
    text = Rationale(tokens=(8, 9, EOS), weight=1.0, reference=2.0)
    other = replace(text, tokens=(8, 20, EOS))
    example = Example(
        predict=(5, EOS), explain=(6, 7, EOS), positives=(text,), negatives=(text, other)
    )
    for where, negatives in (("start", (text, other)), ("difference", (other,))):
        objective = build_objective(ObjectiveConfig(name=name, weights="none", negative_from=where))
        assert objective.candidates(example) == ((text,), negatives)
        losses = reference_losses(StudentStep(tiny(), objective), [example], pad=PAD, batch_size=1)[
            0
        ]
        assert (
            len(with_references(example, objective, losses).negatives)
            == len(losses) - 1
            == len(negatives)
        ), "references keep to the same ones"
    alone, settings = (
        replace(example, negatives=(text,)),
        {
            "weights": "none",
            "negative_from": "difference",
        },
    )
    loss, metrics, gradient = stepped(name, [alone], tiny, **settings)
    without, _, without_gradient = stepped(name, [replace(example, negatives=())], tiny, **settings)
    assert (
        "negative_nll" not in metrics
        and loss == without
        and torch.equal(gradient, without_gradient)
    )


# ------------------------------------------------------------------------------
# what holds for all of them

VARIANTS = [
    *((name, {}) for name in OBJECTIVES),
    *(
        ("qcrd", {"selection": scheme})
        for scheme in ("maxmin", "sampling", "mean", "weighted_mean")
    ),
    *(("qcrd", {"weights": weights}) for weights in ("normalised", "none")),
    ("qcrd", {"negative_from": "difference"}),
    *((name, {"selection": "sampling"}) for name in ("orpo_distill", "redi", "dpo")),
    *(("dpo", settings) for settings in ({"dpo_guard": 0.0}, {"negative_from": "difference"})),
]


def variant_id(variant):
    name, settings = variant
    return "-".join([name, *map(str, settings.values())])


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_change_nothing(tiny, variant, size):
    """Counts are global and random choices belong to the question, so no sharding may change loss,
    sums or gradient.
    """
    name, settings = variant
    examples = varied_examples()
    objective = build_objective(ObjectiveConfig(name=name, **settings))
    step, counts = StudentStep(tiny(), objective), total_counts(objective, examples)

    def draw(example):
        return (len(example.explain) % 5 / 5, len(example.predict) % 3 / 3)

    def run(batches):
        loss, sums = 0.0, torch.zeros(len(objective.sums))
        for batch in batches:
            output = step(collate(batch, objective, pad=PAD, draw=draw), counts)
            output.loss.backward()
            loss, sums = loss + output.loss.item(), sums + output.sums
        gradient = torch.cat([p.grad.flatten().clone() for p in step.parameters()])
        step.zero_grad(set_to_none=True)
        return loss, sums, gradient

    loss, sums, gradient = run([examples])
    other_loss, other_sums, other_gradient = run(
        [*(examples[i : i + size] for i in range(0, len(examples), size)), []]
    )
    assert other_loss == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(other_sums, sums, atol=1e-4, rtol=1e-5, equal_nan=True)
    torch.testing.assert_close(other_gradient, gradient, atol=2e-6, rtol=1e-4)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
def test_every_metric_is_a_finite_number(tiny, variant):
    name, settings = variant
    _, metrics, gradient = stepped(name, varied_examples(), tiny, **settings)
    assert metrics and all(value == value and abs(value) < 1e3 for value in metrics.values()), (
        metrics
    )
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
def test_a_few_steps_lower_the_loss(tiny, variant):
    """The sign of the whole, for every objective and option: what is minimised gets smaller on the
    batch that it is minimised on.
    """
    name, settings = variant
    examples, losses = varied_examples(), []
    objective = build_objective(ObjectiveConfig(name=name, **settings))
    step = StudentStep(tiny(), objective)
    optimizer = torch.optim.SGD(step.parameters(), lr=0.001)
    batch, counts = collate(examples, objective, pad=PAD), total_counts(objective, examples)
    for _ in range(3):
        loss = step(batch, counts).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0], losses
