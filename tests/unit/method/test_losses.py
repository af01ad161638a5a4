"""Equations (2)-(8) against the closed-form cases A-G of METHOD.md 2c, gradients and their signs
included.
"""

from __future__ import annotations

import pytest
import torch
from method_tiny import contrastive_only, given_losses

from qcrd_ray.method.examples import Counts
from qcrd_ray.method.losses import (
    contrastive_term,
    discriminator_terms,
    negative_term,
    positive_term,
    target_nll,
    token_nll,
    weighted_loss,
)

A = ([2.0, 1.0], [0.9, 0.5], [1.0, 2.0], [0.1, 0.25])
B = ([2.0, 1.0], [0.9, 0.5], [0.5, 3.2], [0.1, 0.25])
ONLY_POSITIVES = ([2.0, 1.0], [0.9, 0.5], [], [])
ONLY_NEGATIVE = ([], [], [1.0], [0.25])


def masked(rows: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(1, *(len(row) for row in rows))
    values = torch.tensor([row + [0.0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[i < len(row) for i in range(width)] for row in rows])
    return values, mask


def logits_of(scores: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    values, mask = masked(scores)
    return values.where(mask, 0.5).logit().requires_grad_(), mask


# ------------------------------------------------------------------------------
# A-D: the contrastive term


def test_case_a_value_and_gradients():
    loss, _, losses, batch = given_losses([A], contrastive_only())
    loss.backward()
    assert loss.item() == pytest.approx(0.65, abs=1e-6)
    assert losses.grad.tolist() == pytest.approx([0.0, 0.5, 0.0, -0.15], abs=1e-6)
    assert batch.weights.grad is None, (
        "no gradient may reach the scores: minimising would drive D the wrong way"
    )


def test_case_a_maxmin():
    loss, *_ = given_losses([A], contrastive_only(selection="maxmin"))
    assert loss.item() == pytest.approx(2.16, abs=1e-6)


def test_case_b_one_easy_negative_switches_the_hinge_off():
    loss, sums, losses, _ = given_losses([B], contrastive_only())
    loss.backward()
    assert loss.item() == pytest.approx(0.5, abs=1e-6)
    assert losses.grad[2:].tolist() == [0.0, 0.0]
    assert sums["active"].item() == 0 and sums["negatives"].item() == 1


def test_case_c_no_negative_counts_in_n_with_a_term_of_zero():
    loss, *_ = given_losses([ONLY_POSITIVES], contrastive_only())
    assert loss.item() == pytest.approx(0.5, abs=1e-6)
    loss, *_ = given_losses([A, ONLY_POSITIVES], contrastive_only())
    assert loss.item() == pytest.approx((0.65 + 0.5) / 2, abs=1e-6)


@pytest.mark.parametrize("shards", [[4], [1, 3], [2, 2], [1, 1, 2], [1, 1, 1, 1]])
def test_case_c_mean_under_any_sharding(shards):
    """Local means instead of global counts gave another loss for each sharding."""
    questions = [A, B, ONLY_POSITIVES, ONLY_NEGATIVE]
    objective = contrastive_only()
    total, start = 0.0, 0
    for size in shards:
        _, sums, _, _ = given_losses(questions[start : start + size], objective)
        total += sums["contrast"].item()
        start += size
    assert total / 3 == pytest.approx(0.55, abs=1e-6)
    assert given_losses(questions, objective)[0].item() == pytest.approx(0.55, abs=1e-6)


def test_a_question_without_positives_has_l_pred_alone():
    """By default it neither adds a negative term nor is counted in N."""
    objective = contrastive_only()
    loss, sums, *_ = given_losses([ONLY_NEGATIVE], objective)
    assert loss.item() == 0.0 and sums["contrasted"].item() == 0
    loss, *_ = given_losses([A, B, ONLY_POSITIVES], objective)
    assert loss.item() == pytest.approx(0.55, abs=1e-6)


def test_case_d_selects_on_the_raw_loss_and_weights_afterwards():
    """The argmin of s * l (0.12 here) would train on what the discriminator scores lowest."""
    loss, *_ = given_losses([([1.0, 1.2], [0.9, 0.1], [], [])], contrastive_only())
    assert loss.item() == pytest.approx(0.9, abs=1e-6)


def test_hinge_gradient_is_zero_at_the_margin_and_beyond():
    """torch.minimum gives half of it at l = delta, clamp all of it."""
    nll = torch.tensor([2.999, 3.0, 3.001], requires_grad=True)
    negative_term(nll, torch.ones(3), delta=3.0).sum().backward()
    assert nll.grad.tolist() == [1.0, 0.0, 0.0]


def test_the_negative_term_raises_the_loss_of_negatives():
    """Its gradient must push l_neg up, never down, and the positive's must push l_pos down."""
    positive, negative = (
        torch.tensor([1.0], requires_grad=True),
        torch.tensor([1.0], requires_grad=True),
    )
    score = torch.tensor([0.5])
    contrastive_term(
        positive_term(positive, score), negative_term(negative, score, delta=3.0), beta=0.2
    ).sum().backward()
    assert positive.grad.item() > 0 > negative.grad.item()


@pytest.mark.parametrize("nll", [0.0, 1.5, 3.0, 50.0])
def test_the_negative_term_stays_within_its_bounds(nll):
    """It is a hinge in [-delta, 0]: it cannot explode, however long training goes on."""
    value = negative_term(torch.tensor([nll]), torch.tensor([1.0]), delta=3.0).item()
    assert -3.0 <= value <= 0.0


# ------------------------------------------------------------------------------
# E: likelihoods of targets


def nll_of(logits, labels):
    return target_nll(token_nll(logits, labels), labels)


def test_case_e_eos_counts_and_padding_does_not():
    logits = torch.zeros(1, 3, 4, requires_grad=True)
    nll, length = nll_of(logits, torch.tensor([[2, 1, -100]]))
    (nll / length).sum().backward()
    assert (nll / length).item() == pytest.approx(1.386294, abs=1e-6)
    assert length.item() == 2
    assert logits.grad[0, 2].abs().sum().item() == 0.0


def test_case_e_mean_over_examples_not_over_tokens():
    """The batch-mean that Hugging Face returns (1.5) lets long rationales outweigh short ones."""
    log_probability = torch.tensor([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0]])
    wanted = (-log_probability).exp()
    logits = torch.stack([wanted, 1 - wanted], dim=2).clamp(min=1e-9).log()
    nll, length = nll_of(logits, torch.tensor([[0, 0, 0], [0, -100, -100]]))
    assert (nll / length).mean().item() == pytest.approx(2.0, abs=1e-5)


def test_target_nll_is_taken_in_float32():
    """bf16 logits would round the losses that the selection compares."""
    logits = torch.randn(2, 3, 5).bfloat16()
    nll, _ = nll_of(logits, torch.tensor([[1, 2, 3], [1, 2, -100]]))
    assert nll.dtype == torch.float32
    assert nll.tolist() == pytest.approx(
        nll_of(logits.float(), torch.tensor([[1, 2, 3], [1, 2, -100]]))[0].tolist()
    )


# ------------------------------------------------------------------------------
# F: the discriminator's loss


@pytest.mark.parametrize(
    ("positive", "negative", "value", "gradient"),
    [
        ([0.75], [0.25], -0.5, ([-0.1875], [0.1875])),
        ([0.5] * 4, [0.5], -1.386294, None),
        ([0.75, 0.5], [0.5], -0.825939, ([-0.105408, -0.109456], [0.25])),
    ],
)
def test_case_f_value_and_gradient_on_the_logits(positive, negative, value, gradient):
    (positive_logits, positive_mask), (negative_logits, negative_mask) = (
        logits_of([positive]),
        logits_of([negative]),
    )
    terms = discriminator_terms(
        positive_logits.sigmoid(), negative_logits.sigmoid(), positive_mask, negative_mask
    )
    assert terms.tolist() == pytest.approx([value], abs=1e-6)
    terms.sum().backward()
    if gradient:
        assert positive_logits.grad[0].tolist() == pytest.approx(gradient[0], abs=1e-6)
        assert negative_logits.grad[0].tolist() == pytest.approx(gradient[1], abs=1e-6)
    assert (positive_logits.grad < 0).all() and (negative_logits.grad > 0).all(), (
        "right ones rise, wrong ones fall"
    )


def test_one_sided_questions_are_dropped_before_the_log_sum_exp():
    """Masked after it, they send NaN into every gradient."""
    positive_logits, positive_mask = logits_of([[0.75], [], [0.5], []])
    negative_logits, negative_mask = logits_of([[0.25], [0.9], [], []])
    terms = discriminator_terms(
        positive_logits.sigmoid(), negative_logits.sigmoid(), positive_mask, negative_mask
    )
    terms.sum().backward()
    assert terms.tolist() == pytest.approx([-0.5])
    assert torch.isfinite(positive_logits.grad).all() and torch.isfinite(negative_logits.grad).all()
    assert positive_logits.grad[1:].abs().sum() == 0 and negative_logits.grad[1:].abs().sum() == 0


def test_no_two_sided_question_gives_an_empty_sum():
    terms = discriminator_terms(
        *(torch.zeros(2, 1),) * 2, torch.ones(2, 1).bool(), torch.zeros(2, 1).bool()
    )
    assert terms.shape == (0,) and terms.sum().item() == 0.0


def test_padding_of_a_ragged_batch_does_not_move_the_discriminators_loss():
    (alone_p, alone_pm), (alone_n, alone_nm) = masked([[0.75, 0.5]]), masked([[0.5]])
    (batch_p, batch_pm), (batch_n, batch_nm) = (
        masked([[0.75, 0.5], [0.1] * 5]),
        masked([[0.5], [0.2] * 3]),
    )
    alone = discriminator_terms(alone_p, alone_n, alone_pm, alone_nm)
    assert discriminator_terms(batch_p, batch_n, batch_pm, batch_nm)[0].item() == pytest.approx(
        alone[0].item(), abs=1e-6
    )


# ------------------------------------------------------------------------------
# G: the whole of it


def test_case_g_the_weighted_sum():
    contrast, *_ = given_losses([A], contrastive_only())
    assert weighted_loss(1.2, contrast.item(), -0.5, alphas=(0.5, 0.5, 0.5)) == pytest.approx(
        0.675, abs=1e-6
    )


def test_counts_add_and_do_not_chain():
    assert Counts(2, 1).plus(Counts(3, 4)) == Counts(5, 5)
