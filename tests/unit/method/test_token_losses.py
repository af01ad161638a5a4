"""Losses from chunks of logits: exact, whatever the chunk, and never all logits at once."""

from __future__ import annotations

import pytest
import torch
from method_tiny import EOS, PAD, VOCABULARY, tiny_gpt2, tiny_llama, tiny_t5
from transformers import BartConfig, BartForConditionalGeneration, Gemma2Config, Gemma2ForCausalLM

from qcrd_ray.method.collation import pad_rows
from qcrd_ray.method.losses import IGNORED, token_nll
from qcrd_ray.method.prefix import encode_inputs
from qcrd_ray.method.token_losses import chunked_losses, ends_in_head

TARGETS = [(20, 21, EOS), (22, EOS), (23, 24, 25, 26, EOS), (27, 28, EOS)]
ROWS = torch.tensor([0, 1, 1, 0])


def softcapped() -> Gemma2ForCausalLM:
    """Its head is not its last word: the logits are squashed afterwards."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=VOCABULARY,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=12,
            final_logit_softcapping=0.5,
        )
    ).train()


def biased() -> BartForConditionalGeneration:
    """It adds a bias to its logits."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=24,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        dropout=0.0,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=EOS,
    )
    return BartForConditionalGeneration(config).train()


def losses_of(model, chunk: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of the targets, and the gradient of a weighted sum of them; None: whole logits."""
    model.zero_grad()
    inputs, mask = pad_rows([(7, 8, 9, 10), (12, 13)], PAD)
    labels = pad_rows(TARGETS, IGNORED)[0]
    counted = labels.clone()
    counted[2, 0] = IGNORED  # read and not counted
    encoded = encode_inputs(model, inputs, mask)
    if chunk is None:
        losses = token_nll(encoded.logits(labels, ROWS), counted)
    else:
        losses = encoded.losses(labels, ROWS, counted, chunk=chunk)
    weights = torch.arange(labels.numel()).view(labels.shape) / 10
    (losses * weights).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return losses.detach(), gradient


@pytest.mark.parametrize("make", [tiny_t5, tiny_llama, tiny_gpt2, softcapped, biased])
@pytest.mark.parametrize("tokens", [1, 7, 1000])
def test_chunks_change_neither_losses_nor_gradients(make, tokens):
    """Twenty places in chunks of 1, of 7 (the last is smaller), and all together."""
    model = make()
    losses, gradient = losses_of(model, chunk=tokens * VOCABULARY)
    expected, expected_gradient = losses_of(model, chunk=None)
    torch.testing.assert_close(losses, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-5)
    assert losses[2, 0] == 0 and (losses[0, :3] > 0).all() and losses[0, 3:].sum() == 0


def test_the_head_is_as_it_was_afterwards():
    model = tiny_t5()
    losses_of(model, chunk=VOCABULARY)
    logits = model(input_ids=torch.tensor([[5]]), labels=torch.tensor([[6]])).logits
    assert logits.shape == (1, 1, VOCABULARY) and "forward" not in vars(model.lm_head)


def test_a_student_that_changes_its_logits_has_them_made_whole():
    """Bug guarded: a head's losses squashed as if they were logits, without an error."""
    assert ends_in_head(tiny_t5()) and ends_in_head(tiny_llama())
    assert not ends_in_head(softcapped()) and not ends_in_head(biased())


@pytest.mark.parametrize("grad", [True, False])
def test_no_more_than_a_chunk_of_logits_is_made_at_a_time(grad):
    """In the forward pass and, where they are made again, in the backward pass."""
    made = []
    head = torch.nn.Linear(4, 50, bias=False)

    def project(hidden):
        made.append(hidden.shape[:-1].numel())
        return head(hidden)

    hidden = torch.randn(3, 10, 4, requires_grad=grad)
    labels = torch.randint(50, (3, 10))
    with torch.set_grad_enabled(grad):
        losses = chunked_losses(hidden, project, labels, tokens=8)
    assert made == [8, 8, 8, 6]
    if grad:
        losses.sum().backward()
        assert sorted(made) == sorted([8, 8, 8, 6] * 2)
