"""What training keeps in memory, by arithmetic alone."""

import pytest

from qcrd_ray.doctor.cluster_checks import _model, count_parameters, training_bytes
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe, TrainRecipe


@pytest.mark.parametrize(
    ("train", "each"),
    [
        ({"zero_stage": 0}, 16),
        ({"zero_stage": 0, "precision": "bf16"}, 16),
        ({"zero_stage": 1, "workers": 4}, 4 + 4 + 8 / 4),
        ({"zero_stage": 2, "workers": 4}, 4 + (4 + 8) / 4),
        ({"zero_stage": 3, "workers": 4, "precision": "bf16"}, 16 / 4),
    ],
)
def test_zero_shares_out_what_its_stage_says(train, each):
    assert training_bytes(TrainRecipe(**train), student=1_000, encoder=0) == 1_000 * each


def test_the_discriminator_is_whole_on_every_worker():
    assert training_bytes(TrainRecipe(workers=8, zero_stage=3), student=0, encoder=10) == 160
    assert (
        training_bytes(TrainRecipe(workers=8, zero_stage=3), student=0, encoder=0, reference=10)
        == 40
    )
    assert (
        training_bytes(TrainRecipe(workers=8, zero_stage=1), student=10, encoder=0, frozen=True)
        == 40
    ), "adapters alone have moments"


def test_parameters_are_counted_from_the_configuration(tiny_student):
    """Without the weights: a student of billions must not be read to be counted."""
    from transformers import AutoModelForSeq2SeqLM

    tree = {
        "name": "x",
        "run": "runs/x",
        "task": {"kind": "word_problems"},
        "data": {split: {"generate": 3} for split in ("train", "validation", "test")},
        "teacher": {"source": "recording", "path": "gone.jsonl"},
        "student": {"model": str(tiny_student)},
    }
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_student)
    assert count_parameters(Recipe.model_validate(tree)) == (
        model.num_parameters(),
        model.get_encoder().num_parameters(),
    )
    assert (
        count_parameters(Recipe.model_validate(tree | {"objective": {"name": "finetune"}}))[1] == 0
    )


def test_a_model_that_cannot_be_read_is_the_users_to_mend(tmp_path):
    """Bug guarded: a traceback out of `qcrd doctor` where a hub id cannot be reached, or a folder's
    config is damaged.
    """
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot read it"):
        _model(str(tmp_path), False)
