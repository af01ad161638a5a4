"""The student's step on real (tiny) students of both kinds: the shortcuts are exact, and no
sharding changes what is learnt.
"""

from __future__ import annotations

import pytest
import torch
from method_tiny import (
    EOS,
    PAD,
    plain_logits,
    plain_nll,
    tiny_gpt2,
    tiny_llama,
    tiny_qwen3,
    tiny_t5,
    varied_examples,
)
from torch.nn import functional as F
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    T5Config,
    T5ForConditionalGeneration,
)

from qcrd_ray.method.batching import shard_batch
from qcrd_ray.method.collation import collate, pad_rows
from qcrd_ray.method.examples import Counts, Example, Rationale
from qcrd_ray.method.losses import IGNORED
from qcrd_ray.method.objectives import OBJECTIVES, ObjectiveConfig, build_objective, total_counts
from qcrd_ray.method.prefix import encode_inputs
from qcrd_ray.method.student import StudentStep, evaluating, load_student

QCRD = build_objective(ObjectiveConfig())
FINETUNE = build_objective(ObjectiveConfig(name="finetune"))
BY_EXAMPLE = build_objective(ObjectiveConfig(prediction_mean="examples"))


def gradients(step: StudentStep) -> torch.Tensor:
    """All of them as one vector, and clear them. A parameter without one is a bug: ZeRO would wait
    for it.
    """
    flat = torch.cat([parameter.grad.flatten().clone() for parameter in step.parameters()])
    step.zero_grad(set_to_none=True)
    return flat


def run(
    step: StudentStep, micro_batches: list[list[Example]], counts: Counts
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Loss, sums and gradients added over micro-batches, as an engine adds them over accumulation
    and workers.
    """
    loss, sums = 0.0, torch.zeros(len(step.objective.sums))
    for examples in micro_batches:
        output = step(collate(examples, step.objective, pad=PAD), counts)
        output.loss.backward()
        loss += output.loss.item()
        sums += output.sums
    return loss, sums, gradients(step)


def whole(step: StudentStep, examples: list[Example]) -> tuple[float, torch.Tensor, torch.Tensor]:
    return run(step, [examples], total_counts(step.objective, examples))


def naive_loss(model, examples: list[Example], *, delta: float = 3.0) -> torch.Tensor:
    """Equations (3) and (6)-(8) pair by pair, everything in the graph."""
    label_nll, label_tokens, contrast, contrasted = 0.0, 0, 0.0, 0
    for example in examples:
        if example.label:
            label_nll = label_nll + plain_nll(model, example.predict, example.label) * len(
                example.label
            )
            label_tokens += len(example.label)
        if example.positives:
            contrasted += 1
            losses = [
                plain_nll(model, example.explain, rationale.tokens)
                for rationale in example.positives
            ]
            best = min(range(len(losses)), key=lambda i: losses[i].item())
            contrast = contrast + example.positives[best].score * losses[best]
            if example.negatives:
                losses = [
                    plain_nll(model, example.explain, rationale.tokens)
                    for rationale in example.negatives
                ]
                worst = max(range(len(losses)), key=lambda i: losses[i].item())
                contrast = contrast + 0.2 * (1 - example.negatives[worst].score) * F.relu(
                    delta - losses[worst]
                )
    return 0.5 * label_nll / label_tokens + 0.5 * contrast / contrasted


# ------------------------------------------------------------------------------
# the shortcuts are exact


def test_encode_once_and_select_without_gradient_equal_the_full_graph(tiny):
    """One reading of a question, padding, candidates scored without gradient: value and gradients
    are those of separate pairs.
    """
    examples, model = varied_examples(), tiny()
    delta = QCRD.metrics(whole(StudentStep(model, QCRD), examples)[1])["negative_nll"]
    objective = build_objective(
        ObjectiveConfig(delta=delta)
    )  # the mean of the chosen negatives: some hinges are on, some off
    loss, sums, gradient = whole(StudentStep(model, objective), examples)
    metrics = objective.metrics(sums)
    assert 0.0 < metrics["active_fraction"] < 1.0
    reference = naive_loss(model, examples, delta=delta)
    reference.backward()
    assert loss == pytest.approx(reference.item(), abs=1e-5)
    assert metrics["loss"] == pytest.approx(reference.item(), abs=1e-5)
    torch.testing.assert_close(
        gradient, gradients(StudentStep(model, objective)), atol=2e-6, rtol=1e-4
    )


def test_selection_uses_no_dropout_and_leaves_train_mode_on(tiny):
    """Candidates are compared by a decoder in eval mode; forgetting to come back would train
    without dropout.
    """
    step = StudentStep(tiny(dropout=0.5), QCRD).train()
    seen = []
    step.student.get_decoder().register_forward_hook(
        lambda module, *_: seen.append((module.training, torch.is_grad_enabled()))
    )
    step(collate(varied_examples(), QCRD, pad=PAD), Counts(1, 1))
    assert (False, False) in seen and (True, True) in seen and len(set(seen)) == 2
    assert step.student.training


def test_the_step_reads_each_question_once(tiny):
    """Labels, all candidates and the chosen ones are three passes over targets, and no input is
    read for each of them.
    """
    step, calls = StudentStep(tiny(), QCRD), []
    student = step.student
    for part in (
        {student.get_encoder(), student.get_decoder()}
        if student.config.is_encoder_decoder
        else {student.get_decoder()}
    ):
        part.register_forward_hook(lambda *_: calls.append(1))
    step(collate(varied_examples(), QCRD, pad=PAD), Counts(1, 1))
    assert len(calls) == 1 + 3


COUNTED = [
    *((name, "minmax") for name in OBJECTIVES),
    *(("qcrd", scheme) for scheme in ("maxmin", "sampling", "mean")),
    ("dpo", "sampling"),
]


@pytest.mark.parametrize(("name", "selection"), COUNTED)
def test_the_tokens_of_a_step_are_those_that_the_student_is_given(tiny, name, selection):
    """Bug guarded: all candidates were counted, once, whatever was drawn, compared, or never looked
    at. Of one question whose parts are of one length there is no padding, so what the student is
    given can be counted as it comes.
    """
    objective = build_objective(
        ObjectiveConfig(name=name, selection=selection, negative_from="difference")
    )
    sides = [
        tuple(Rationale(tokens=(8, 9, i, EOS), weight=1.0, reference=1.0) for i in places)
        for places in ((10, 11, 12), (13, 14))
    ]
    example = Example(
        predict=(5, 6, EOS),
        explain=(6, 7, EOS),
        label=(4, EOS),
        positives=sides[0],
        negatives=sides[1],
        first=(8, EOS),
        single=(9, EOS),
    )
    step, given = StudentStep(tiny(), objective), []
    student = step.student
    for part in (
        {student.get_encoder(), student.get_decoder()}
        if student.config.is_encoder_decoder
        else {student.get_decoder()}
    ):
        part.register_forward_pre_hook(
            lambda _, args, kwargs: given.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
    output = step(collate([example], objective, pad=PAD), total_counts(objective, [example]))
    no_label = (
        1 if name == "single_task" else 0
    )  # the pass over labels is made all the same, over a dummy
    assert output.tokens.item() == sum(given) - no_label


def test_what_has_no_rival_is_not_scored(tiny):
    """A rationale that is alone on its side is chosen whatever its loss is. Scoring it costs as
    much as any other: bug guarded, a side of two that lost one of them.
    """
    one, two, three = (
        Rationale(tokens=(8, 9, i, EOS), score=0.5, weight=1.0) for i in (10, 11, 12)
    )
    sides = [((one,), (two,)), ((one, two), (three,)), ((one,), ()), ((three,), (one, two))]
    examples = [
        Example(predict=(5, EOS), explain=(6, EOS), positives=positives, negatives=negatives)
        for positives, negatives in sides
    ]
    batch = collate(examples, QCRD, pad=PAD)
    assert batch.rivals.tolist() == [2, 3, 7, 8]
    step, scored = StudentStep(tiny(), QCRD), []
    step.student.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: scored.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    step(batch, Counts(0, len(examples)))
    assert 4 in scored and len(batch.candidates) not in scored


@pytest.mark.parametrize("name", ["qcrd", "single_task"])
@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_do_not_change_how_many_tokens_are_read(tiny, name, size):
    """Padding and dummy rows, of which an empty micro-batch has nothing else, would make the count
    depend on the number of workers.
    """
    examples, objective = varied_examples(), build_objective(ObjectiveConfig(name=name))
    step, counts = StudentStep(tiny(), objective), total_counts(objective, examples)

    def tokens(batch):
        return step(collate(batch, objective, pad=PAD), counts).tokens

    assert tokens([]) == 0 and not tokens([]).dtype.is_floating_point
    assert (
        sum(tokens(examples[i : i + size]) for i in range(0, len(examples), size))
        == tokens(examples)
        > 0
    )


def test_finetune_is_the_models_own_loss(tiny):
    examples = [example for example in varied_examples() if example.label]
    model = tiny()
    loss, sums, gradient = whole(StudentStep(model, FINETUNE), examples)
    width = max(len(example.label) for example in examples)
    labels = [[*example.label, *[-100] * (width - len(example.label))] for example in examples]
    inputs = [example.predict for example in examples]
    if not model.config.is_encoder_decoder:
        inputs = [(*example.predict, *example.label) for example in examples]
        labels = [[-100] * len(example.predict) + [*example.label] for example in examples]
    longest = max(map(len, inputs))
    reference = model(
        input_ids=torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in inputs]),
        attention_mask=torch.tensor(
            [[1] * len(row) + [0] * (longest - len(row)) for row in inputs]
        ),
        labels=torch.tensor(
            labels
            if model.config.is_encoder_decoder
            else [[*row, *[-100] * (longest - len(row))] for row in labels]
        ),
    ).loss
    reference.backward()
    assert loss == pytest.approx(reference.item(), abs=1e-5)
    assert FINETUNE.metrics(sums) == {"prediction": pytest.approx(reference.item(), abs=1e-5)}
    torch.testing.assert_close(
        gradient, gradients(StudentStep(model, FINETUNE)), atol=2e-6, rtol=1e-4
    )


def test_prediction_mean_over_examples(tiny):
    examples = [example for example in varied_examples() if example.label]
    model = tiny()
    with torch.no_grad():
        means = [plain_nll(model, example.predict, example.label).item() for example in examples]
    _, sums, _ = whole(StudentStep(model, BY_EXAMPLE), examples)
    assert BY_EXAMPLE.metrics(sums)["prediction"] == pytest.approx(
        sum(means) / len(means), abs=1e-5
    )


# ------------------------------------------------------------------------------
# no sharding changes it


@pytest.mark.parametrize(
    "objective", [QCRD, FINETUNE, BY_EXAMPLE], ids=["qcrd", "finetune", "mean-over-examples"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_micro_batches_do_not_change_loss_or_gradient(tiny, objective, size):
    """1 x 8 = 2 x 4 = 8 x 1: dividing by local counts gave cosine 0.988 and another loss."""
    examples = varied_examples()
    step = StudentStep(tiny(), objective)
    loss, sums, gradient = whole(step, examples)
    split = [examples[i : i + size] for i in range(0, len(examples), size)]
    split_loss, split_sums, split_gradient = run(step, split, total_counts(objective, examples))
    assert split_loss == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(split_sums, sums, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(split_gradient, gradient, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("micro_batch_size", [None, 1, 2])
def test_the_number_of_workers_does_not_change_the_gradient(tiny, workers, micro_batch_size):
    """With 11 workers some have an empty micro-batch."""
    examples = varied_examples()
    step = StudentStep(tiny(), QCRD)
    loss, _, gradient = whole(step, examples)
    lengths = [len(example.predict) for example in examples]
    shards = shard_batch(
        examples, workers=workers, micro_batch_size=micro_batch_size, lengths=lengths
    )
    shares = [run(step, share, total_counts(QCRD, examples)) for share in shards]
    assert sum(share[0] for share in shares) == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(sum(share[2] for share in shares), gradient, atol=2e-6, rtol=1e-4)


def calls_of(step: StudentStep, examples: list[Example]) -> list[str]:
    names = {module: name for name, module in step.named_modules()}
    calls: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: calls.append(names[module]))
        for module in step.modules()
    ]
    output = step(collate(examples, step.objective, pad=PAD), Counts(1, 1))
    output.loss.backward()
    for hook in hooks:
        hook.remove()
    return calls


@pytest.mark.parametrize("objective", [QCRD, FINETUNE], ids=["qcrd", "finetune"])
def test_every_micro_batch_makes_the_same_module_calls(tiny, objective):
    """ZeRO 3 gathers parameters call by call on all workers: one call less on one of them hangs the
    job.
    """
    examples = varied_examples()
    step = StudentStep(tiny(), objective)
    usual = calls_of(step, examples)
    for other in ([], examples[:1], [examples[1]], [examples[2]], [examples[3]], [examples[4]]):
        assert calls_of(step, other) == usual


@pytest.mark.parametrize("objective", [QCRD, FINETUNE], ids=["qcrd", "finetune"])
def test_an_empty_micro_batch_weighs_nothing_and_is_connected(tiny, objective):
    step = StudentStep(tiny(), objective)
    loss, sums, gradient = run(step, [[]], Counts(5, 5))
    assert loss == 0.0 and not gradient.any() and not sums.any()


def test_a_batch_without_anything_to_learn_is_zero_not_nan(tiny):
    examples = [Example(predict=(5, EOS), explain=(6, EOS))] * 2
    loss, sums, gradient = whole(StudentStep(tiny(), QCRD), examples)
    assert loss == 0.0 and not gradient.any() and QCRD.metrics(sums) == {"loss": 0.0}


# ------------------------------------------------------------------------------
# what it means


def test_a_question_without_positives_adds_l_pred_only(tiny):
    example = varied_examples()[2]
    assert example.negatives and not example.positives
    model = tiny()
    loss, sums, _ = whole(StudentStep(model, QCRD), [example])
    with torch.no_grad():
        assert loss == pytest.approx(
            0.5 * plain_nll(model, example.predict, example.label).item(), abs=1e-5
        )
    assert "contrast" not in QCRD.metrics(sums)


def test_a_step_makes_the_positive_likelier_and_the_negative_less_likely(tiny):
    """The sign of the whole: one small step on L_cl of a single question."""
    torch.manual_seed(0)
    example = Example(
        predict=(5, EOS),
        explain=(6, 7, EOS),
        positives=(Rationale(tokens=(8, 9, EOS), score=0.9, weight=0.9),),
        negatives=(Rationale(tokens=(20, 21, 22, EOS), score=0.1, weight=0.9),),
    )
    objective = build_objective(ObjectiveConfig(delta=100.0, beta=1.0))
    model = tiny()
    step = StudentStep(model, objective)
    before, after = [], []
    for losses in (before, after):
        output = step(collate([example], objective, pad=PAD), total_counts(objective, [example]))
        losses.extend(
            objective.metrics(output.sums)[name] for name in ("positive_nll", "negative_nll")
        )
        output.loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 1e-2 * parameter.grad
        model.zero_grad()
    assert after[0] < before[0] and after[1] > before[1]


def test_metrics_say_who_was_chosen_and_what_the_scores_were(tiny):
    examples = varied_examples()
    _, sums, _ = whole(StudentStep(tiny(), QCRD), examples)
    metrics = QCRD.metrics(sums)
    contrasted = [example for example in examples if example.positives]
    scores = [rationale.score for example in contrasted for rationale in example.positives]
    assert metrics["score_positive"] == pytest.approx(sum(scores) / len(scores), abs=1e-5)
    assert metrics["two_sided"] == sum(bool(example.negatives) for example in contrasted) / len(
        contrasted
    )
    assert 0.0 <= metrics["negative_from_student"] <= 1.0
    assert metrics["contrast"] == pytest.approx(
        metrics["l_pos"] - 0.2 * metrics["l_neg"] * metrics["two_sided"], abs=1e-5
    ), "every question here has a positive, so the means combine"


@pytest.mark.parametrize("field", ["label", "positives"])
def test_an_empty_target_is_refused(field):
    """Its mean would be 0 / 0."""
    empty = () if field == "label" else (Rationale(tokens=(), score=0.5, weight=0.5),)
    with pytest.raises(ValueError, match="no token"):
        collate([Example(predict=(5, EOS), explain=(5, EOS), **{field: empty})], QCRD, pad=PAD)


def test_an_unweighed_candidate_is_refused():
    """A default score would silently weigh every negative the same."""
    example = Example(predict=(5, EOS), explain=(5, EOS), positives=(Rationale(tokens=(6, EOS)),))
    with pytest.raises(ValueError, match="no weight"):
        collate([example], QCRD, pad=PAD)
    collate([example], FINETUNE, pad=PAD)


# ------------------------------------------------------------------------------
# shared prompts, exactly


@pytest.mark.parametrize(
    "make", [tiny_llama, tiny_qwen3, tiny_gpt2], ids=["llama", "qwen3", "gpt2"]
)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["shared", "checkpointing"])
def test_targets_that_share_a_prompt_are_read_as_if_alone(make, side, checkpointing):
    """Logits and gradients of prompts of three lengths (one of a single token), two targets each,
    against plain runs without padding.
    In float64, though norms and rotations are computed in float32.
    """
    model = make().double()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    prompts, rows = [(7, 8, 9, 10, 11), (12,), (13, 14, 15)], [0, 2, 1, 0, 2, 1]
    targets = [(20, 21, EOS), (22, EOS), (23, 24, 25, 26, EOS), (EOS,), (27, 28, EOS), (29, EOS)]
    inputs, mask = torch.full((3, 6), PAD), torch.zeros(3, 6, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        place = slice(0, len(prompt)) if side == "right" else slice(6 - len(prompt), 6)
        inputs[i, place], mask[i, place] = torch.tensor(prompt), 1
    labels = pad_rows(targets, IGNORED)[0]
    logits = encode_inputs(model, inputs, mask).logits(labels, torch.tensor(rows))
    weights = (
        torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
        * (labels != IGNORED)[..., None]
    )
    (logits * weights).sum().backward()
    ours = gradients(StudentStep(model, QCRD))
    model.gradient_checkpointing_disable()
    total = 0.0
    for i, (row, target) in enumerate(zip(rows, targets, strict=True)):
        plain = plain_logits(model, prompts[row], target)
        torch.testing.assert_close(logits[i, : len(target)], plain, atol=1e-6, rtol=1e-6)
        total = total + (plain * weights[i, : len(target)]).sum()
    total.backward()
    torch.testing.assert_close(ours, gradients(StudentStep(model, QCRD)), atol=3e-6, rtol=1e-5)


def test_gradient_checkpointing_learns_the_same(tiny):
    """Also where a decoder-only student then cannot keep a prompt's keys and values, in a
    micro-batch that holds nothing as well.
    """
    model, examples = tiny(), varied_examples()
    loss, sums, gradient = whole(StudentStep(model, QCRD), examples)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    again = run(StudentStep(model, QCRD), [examples, []], total_counts(QCRD, examples))
    assert again[0] == pytest.approx(loss, abs=1e-5)
    torch.testing.assert_close(again[1], sums, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(again[2], gradient, atol=2e-6, rtol=1e-4)


# ------------------------------------------------------------------------------
# other students, loading


def test_another_encoder_decoder_works():
    """Nothing in the step is T5's own: BART shifts and embeds otherwise."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=40,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=64,
        dropout=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=1,
    )
    model = BartForConditionalGeneration(config).train()
    loss, _, _ = whole(StudentStep(model, QCRD), varied_examples())
    assert loss == pytest.approx(naive_loss(model, varied_examples()).item(), abs=1e-4)


def test_bf16_trains_in_a_float32_loss():
    step = StudentStep(tiny_t5().bfloat16(), QCRD)
    loss, _, gradient = whole(step, varied_examples())
    reference, _, _ = whole(StudentStep(tiny_t5(), QCRD), varied_examples())
    assert loss == pytest.approx(reference, rel=0.03) and torch.isfinite(gradient.float()).all()


def test_load_student_sets_dropout_and_float32(tmp_path):
    tiny_t5(dropout=0.3).bfloat16().save_pretrained(tmp_path)
    assert {
        module.p
        for module in load_student(tmp_path).modules()
        if isinstance(module, torch.nn.Dropout)
    } == {0.3}
    student = load_student(tmp_path, dropout=0.0)
    assert {module.p for module in student.modules() if isinstance(module, torch.nn.Dropout)} == {
        0.0
    }
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


def test_load_student_refuses_what_writes_nothing(tmp_path):
    BertModel(
        BertConfig(
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="bert model writes no text"):
        load_student(tmp_path)


def test_evaluating_restores_a_module_that_was_in_eval_mode():
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).eval()
    with evaluating(model):
        pass
    assert not model.training
