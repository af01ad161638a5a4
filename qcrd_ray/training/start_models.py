"""Where a training starts: a pretrained student, or a small random T5 with a tokenizer trained on the questions (`student.scratch`).

Either is written to one folder of the run, so that workers and samplers on any node, both objectives, and the evaluation of the base
read the same weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from qcrd_ray.errors import UserError
from qcrd_ray.method.randomness import keyed_seed
from qcrd_ray.method.student import load_student
from qcrd_ray.model_folder import TOKENIZER_FILES, check_student, resolve
from qcrd_ray.recipe import DiscriminatorRecipe, ScratchRecipe, StudentRecipe

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2 as in T5
_SENTINELS = tuple(f"<extra_id_{i}>" for i in range(4))  # T5's blanks; the first masks words for the discriminator


def check_start(student: StudentRecipe, discriminator: DiscriminatorRecipe) -> None:
    """Refuse models that cannot be trained, before anything is started.

    Raises:
        UserError: no such model, no tokenizer, or a tokenizer that does not belong to the student.
    """
    if student.model is not None:
        check_student(student.model, trust_remote_code=student.trust_remote_code)
    if discriminator.model is not None:
        _check_tokenizer(resolve(discriminator.model))


def _check_tokenizer(name: str) -> None:
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(f"discriminator.model: {name} has no tokenizer: save one there with `tokenizer.save_pretrained`")
    try:
        AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"discriminator.model: {name} gives no tokenizer: {error}") from error


def write_start(student: StudentRecipe, folder: Path, *, texts: Iterable[str], seed: int) -> PreTrainedTokenizerBase:
    """Write the student that training starts from (model, tokenizer, the recipe's dropout) to ``folder``; keep what lies there whole.

    ``texts`` train the tokenizer of a `scratch` student. Returns the tokenizer.
    """
    if not (folder / "config.json").exists():
        writing = folder.with_name(f".{folder.name}.writing")
        shutil.rmtree(writing, ignore_errors=True)
        if student.model is not None:
            name = resolve(student.model)
            _, tokenizer = check_student(name, trust_remote_code=student.trust_remote_code)
            model = load_student(name, dropout=student.dropout, trust_remote_code=student.trust_remote_code)
        else:
            tokenizer = train_tokenizer(texts, student.scratch.vocabulary)
            model = scratch_model(student.scratch, tokenizer, dropout=student.dropout, seed=seed)
        model.save_pretrained(writing)
        tokenizer.save_pretrained(writing)
        shutil.rmtree(folder, ignore_errors=True)
        writing.rename(folder)  # a killed run never leaves half a model behind
    _, tokenizer = check_student(folder, trust_remote_code=student.trust_remote_code)
    return tokenizer


def scratch_model(
    recipe: ScratchRecipe, tokenizer: PreTrainedTokenizerBase, *, dropout: float | None, seed: int
) -> T5ForConditionalGeneration:
    """A random T5 of the recipe's size; the same weights for the same seed, and the global random state untouched."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=recipe.d_model,
        d_kv=max(1, recipe.d_model // recipe.heads),
        d_ff=recipe.d_ff,
        num_layers=recipe.layers,
        num_decoder_layers=recipe.layers,
        num_heads=recipe.heads,
        dropout_rate=0.1 if dropout is None else dropout,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_seed(seed, "scratch student"))
        return T5ForConditionalGeneration(config)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer on ``texts``: digits stand alone (arithmetic), any text decodes back exactly, EOS closes every text."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, EOS, UNKNOWN, *_SENTINELS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, extra_special_tokens=list(_SENTINELS)
    )
