"""The discriminator: its pooling, its loss under any sharding, its folder, and that it learns."""

from __future__ import annotations

import json
import random

import pytest
import torch
from method_tiny import EOS, PAD, tiny_llama, tiny_t5, tokens
from transformers import BertConfig, BertModel, LlamaModel

from qcrd_ray.method.discriminator import (
    Contrast,
    Discriminator,
    DiscriminatorStep,
    collate_contrasts,
    split_contrasts,
)
from qcrd_ray.method.ranking import auc


def tiny_decoder() -> LlamaModel:
    return tiny_llama().model


def tiny_discriminator(model=tiny_t5, *, dropout: float = 0.0) -> Discriminator:
    return Discriminator.from_model(model(), hidden=16, dropout=dropout).train()


def tiny_bert() -> BertModel:
    torch.manual_seed(0)
    return BertModel(
        BertConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
        )
    )


def varied_contrasts() -> list[Contrast]:
    draw = random.Random(1)
    sides = [(2, 1), (1, 0), (0, 2), (1, 3), (0, 0), (3, 3)]
    return [
        Contrast(
            positives=tuple(tokens(draw, 3 + i) for i in range(p)),
            negatives=tuple(tokens(draw, 2 + i) for i in range(n)),
        )
        for p, n in sides
    ]


def run(
    step: DiscriminatorStep, shards: list[list[Contrast]], two_sided: int
) -> tuple[float, torch.Tensor, torch.Tensor]:
    loss, sums = 0.0, torch.zeros(len(step.sums))
    for shard in shards:
        output = step(collate_contrasts(shard, pad=PAD), two_sided)
        output.loss.backward()
        loss, sums = loss + output.loss.item(), sums + output.sums
    gradient = torch.cat([parameter.grad.flatten().clone() for parameter in step.parameters()])
    step.zero_grad(set_to_none=True)
    return loss, sums, gradient


def test_step_is_equation_2_over_the_two_sided_questions():
    contrasts = varied_contrasts()
    discriminator = tiny_discriminator()
    step = DiscriminatorStep(discriminator)
    loss, sums, _ = run(step, [contrasts], 3)
    terms = []
    for contrast in contrasts:
        if contrast.two_sided:
            positive, negative = (
                torch.tensor(discriminator.score(side))
                for side in (contrast.positives, contrast.negatives)
            )
            terms.append((negative.exp().sum().log() - positive.exp().sum().log()).item())
    assert len(terms) == 3
    assert loss == pytest.approx(sum(terms) / 3, abs=1e-5)
    assert step.metrics(sums)["loss"] == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_no_sharding_changes_loss_or_gradient(size):
    """Shards without a two-sided question included."""
    contrasts = varied_contrasts()
    step = DiscriminatorStep(tiny_discriminator())
    loss, sums, gradient = run(step, [contrasts], 3)
    shard_loss, shard_sums, shard_gradient = run(
        step, [contrasts[i : i + size] for i in range(0, 6, size)], 3
    )
    assert shard_loss == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(shard_sums, sums, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shard_gradient, gradient, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "contrasts", [[], [Contrast(positives=((5, EOS),), negatives=())]], ids=["empty", "one-sided"]
)
def test_nothing_two_sided_is_a_connected_zero(contrasts):
    step = DiscriminatorStep(tiny_discriminator())
    loss, sums, gradient = run(step, [contrasts], 0)
    assert loss == 0.0 and not gradient.any() and step.metrics(sums) == {}


@pytest.mark.parametrize("model", [tiny_t5, tiny_decoder], ids=["encoder-decoder", "decoder-only"])
def test_scores_do_not_depend_on_padding_batching_or_order(model):
    """Max pooling over padding would make a short text's score depend on its neighbours."""
    draw = random.Random(2)
    pairs = [tokens(draw, length) for length in (9, 1, 5, 30, 2, 7)]
    discriminator = tiny_discriminator(model, dropout=0.5)
    together = discriminator.score(pairs)
    assert discriminator.score(pairs, batch_size=1) == pytest.approx(together, abs=1e-6)
    assert discriminator.score(pairs[::-1], batch_size=2) == pytest.approx(together[::-1], abs=1e-6)
    assert all(0.0 < score < 1.0 for score in together) and len(set(together)) == len(together)


def test_score_uses_no_dropout_and_leaves_train_mode_on():
    discriminator = tiny_discriminator(dropout=0.5)
    assert discriminator.score([(5, 6, EOS)]) == discriminator.score([(5, 6, EOS)])
    assert discriminator.training


def test_score_of_nothing_is_nothing_and_of_an_empty_pair_refused():
    assert tiny_discriminator().score([]) == []
    with pytest.raises(ValueError, match="no token"):
        tiny_discriminator().score([(5, EOS), ()])


@pytest.mark.parametrize(
    "model", [tiny_t5, tiny_bert, tiny_decoder], ids=["encoder-decoder", "encoder", "decoder-only"]
)
def test_saved_folder_loads_by_itself_with_the_same_scores(model, tmp_path):
    discriminator = Discriminator.from_model(model(), hidden=16, dropout=0.1)
    discriminator.save(tmp_path / "d", max_tokens=64)
    loaded = Discriminator.load(tmp_path / "d")
    pairs = [(5, 6, 7, EOS), (8, EOS)]
    assert loaded.score(pairs) == discriminator.score(pairs)
    assert not loaded.training
    assert json.loads((tmp_path / "d" / "config.json").read_text())["max_tokens"] == 64
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize(
    "model", [tiny_t5, tiny_bert, tiny_decoder], ids=["encoder-decoder", "encoder", "decoder-only"]
)
def test_the_first_layers_alone(model, tmp_path):
    """Guards a layer that is dropped from the model and comes back, random, from its folder."""
    whole = model()
    layers = whole.config.num_hidden_layers
    first = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    discriminator = Discriminator.from_model(model(), hidden=16, dropout=0.0, layers=1)
    kept = discriminator.encoder.state_dict()
    assert layers > 1
    assert len(kept) < len(Discriminator.from_model(model(), hidden=16).encoder.state_dict())
    for name, tensor in kept.items():
        ours = next(first[each] for each in (name, f"encoder.{name}") if each in first)
        assert torch.equal(tensor, ours)
    discriminator.save(tmp_path)
    pairs = [(5, 6, 7, EOS), (8, EOS)]
    assert Discriminator.load(tmp_path).score(pairs) == discriminator.score(pairs)
    with pytest.raises(ValueError, match=f"has {layers} layers, not 9"):
        Discriminator.from_model(model(), layers=9)


def test_saved_configuration_names_no_path_of_this_machine(tmp_path):
    tiny_t5().save_pretrained(tmp_path / "base")
    discriminator = Discriminator.from_pretrained(tmp_path / "base", hidden=8)
    discriminator.save(tmp_path / "d")
    assert str(tmp_path) not in (tmp_path / "d" / "config.json").read_text()
    assert Discriminator.load(tmp_path / "d").score([(5, EOS)]) == discriminator.score([(5, EOS)])


def test_from_pretrained_takes_the_encoders_weights(tmp_path):
    for student, encoder in ((tiny_t5(), "encoder"), (tiny_llama(), "model")):
        student.save_pretrained(tmp_path)
        discriminator = Discriminator.from_pretrained(tmp_path, hidden=8)
        for ours, theirs in zip(
            discriminator.encoder.parameters(), getattr(student, encoder).parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_bf16_scores():
    assert 0.0 < tiny_discriminator().bfloat16().score([(5, EOS)])[0] < 1.0


def test_training_raises_the_auc_on_a_separable_toy():
    """Right rationales hold token 7, wrong ones token 8; both kinds share everything else."""
    draw = random.Random(0)

    def contrast() -> Contrast:
        question = tokens(draw, 3)
        sides = [
            tuple(
                (*question, *(draw.randrange(10, 40) for _ in range(3)), mark, EOS)
                for _ in range(2)
            )
            for mark in (7, 8)
        ]
        return Contrast(positives=sides[0], negatives=sides[1])

    held_out = [contrast() for _ in range(20)]
    discriminator = tiny_discriminator()
    step = DiscriminatorStep(discriminator)
    optimizer = torch.optim.Adam(step.parameters(), lr=3e-3)

    def measured() -> float:
        return auc(
            *(
                [score for c in held_out for score in discriminator.score(getattr(c, side))]
                for side in ("positives", "negatives")
            )
        )

    before = measured()
    for _ in range(60):
        batch = [contrast() for _ in range(8)]
        optimizer.zero_grad()
        step(collate_contrasts(batch, pad=PAD), len(batch)).loss.backward()
        optimizer.step()
    assert before < 0.75 and measured() > 0.95


@pytest.mark.parametrize(("tokens", "micro_batches"), [(1, 3), (30, 3), (60, 2), (10_000, 1)])
def test_no_token_budget_changes_loss_or_gradient(tokens, micro_batches):
    """Bug guarded: a worker's whole share at once, 35 GB of activations for a T5-base."""
    contrasts = varied_contrasts()
    step = DiscriminatorStep(tiny_discriminator())
    loss, sums, gradient = run(step, [contrasts], 3)
    batches = split_contrasts(contrasts, tokens=tokens)
    split_loss, split_sums, split_gradient = run(step, batches, 3)
    assert split_loss == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(split_sums, sums, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(split_gradient, gradient, atol=1e-5, rtol=1e-4)
    for batch in batches:
        padded = collate_contrasts(batch, pad=PAD).tokens.numel()
        assert padded <= tokens or len(batch) == 1, "only a question that is larger stands alone"
    assert sum(map(len, batches)) == 3 and len(batches) == micro_batches


def test_a_split_of_nothing_is_one_empty_micro_batch():
    """A worker whose share is empty must still take part in the step."""
    assert split_contrasts([], tokens=8) == [[]]
    assert split_contrasts([Contrast(positives=((5, EOS),), negatives=())], tokens=8) == [[]]
