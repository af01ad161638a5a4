"""The comparison's methods by name, its notes, its kept files and its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from training_tiny import tiny_recipe

from qcrd_ray.comparison.files import data_key, kept_table, method_key, write_tables
from qcrd_ray.comparison.methods import METHODS, read_methods
from qcrd_ray.comparison.notes import data_notes
from qcrd_ray.comparison.statistics import (
    summarise,
)
from qcrd_ray.comparison.table import markdown
from qcrd_ray.comparison.trials import rationale_quality
from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Outcome, Question, RationaleSet
from qcrd_ray.errors import UserError
from qcrd_ray.evaluation.predictions import Prediction
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.tasks.steps import check_steps
from qcrd_ray.training.job import TrainingJob

# --- methods ---


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: small\nrun: runs/small\ntask: {kind: word_problems}\ndata: {train: {generate: 9},"
        " validation: {generate: 9}, test: {generate: 9}}\nteacher: {source: serve, model:"
        " demo}\nstudent: {model: demo}\ncompare:\n  variants:\n    kinder: {set: {negatives.right:"
        " drop}}\n    kindest: {like: kinder, set: {objective.beta: 0.1}}\n"
    )
    return path


def test_a_method_is_its_keys(recipe):
    settings = ["seed=7", "compare.control={generate: 5, kind: plain}"]
    methods = {
        m.name: m.recipe for m in read_methods(recipe, settings, [*METHODS, "kinder", "kindest"])
    }
    assert methods["finetune"].objective.name == "finetune" and methods["mi"].objective.name == "mi"
    assert methods["dss_voted"].objective.beta == 0 and not methods["dss_voted"].negatives.student
    assert (
        methods["qcrd_no_discriminator"].objective.weights == "none"
        and methods["qcrd"].objective.weights == "score"
    )
    assert methods["kindest"].negatives.right == "drop" and methods["kindest"].objective.beta == 0.1
    assert methods["qcrd"].negatives.right == "keep"
    assert all(r.train.workers == 1 and r.seed == 7 for r in methods.values())


def test_the_benchs_recipe_reads_with_all_its_methods():
    bench = Path(__file__).resolve().parents[3] / "jobs/recipes/compare_word_problems.yaml"
    methods = {
        m.name: m.recipe
        for m in read_methods(bench, [], [*METHODS, *load_recipe(bench).compare.variants])
    }
    assert (
        methods["qcrd_corrupted"].negatives.corrupted
        == methods["qcrd_evolved"].negatives.evolved
        == 1
    )
    assert (
        methods["qcrd_drop_right"].negatives.right == "drop"
        and methods["qcrd_no_discriminator_sampling"].objective.selection == "sampling"
    )
    papers = {name: methods[f"{name}_paper"] for name in ("orpo_distill", "redi", "dpo")}
    assert all(recipe.objective.name == name for name, recipe in papers.items())
    assert {name: recipe.objective.sft_rounds for name, recipe in papers.items()} == {
        "orpo_distill": 0,
        "redi": 7,
        "dpo": 4,
    }
    sources = {
        name: (recipe.negatives.teacher, recipe.negatives.student, recipe.negatives.right)
        for name, recipe in papers.items()
    }
    own = (False, True, "drop")
    assert sources == {"orpo_distill": own, "redi": (True, False, "keep"), "dpo": own}


def test_a_method_twice_has_other_seeds(recipe):
    """With the same seeds a planted null would be the same runs, and could not fail."""
    once, again = read_methods(recipe, [], ["dss", "again=dss"])
    assert once.recipe == again.recipe and once.shift != again.shift


def test_a_control_is_no_other_trial(recipe):
    """`x=control` and then `x=dss` are the same keys of a recipe on other data: the second must not
    find the first's trials; nor must a control on new data find those on the old.
    """
    control = {
        seed: f"compare.control={{generate: 5, seed: {seed}, kind: plain}}" for seed in (1, 2)
    }
    (first,), (other,) = (read_methods(recipe, [control[seed]], ["x=control"]) for seed in (1, 2))
    (dss,), (same,) = (read_methods(recipe, [control[seed]], ["x=dss"]) for seed in (1, 2))
    for key in (method_key, data_key):
        assert len({key(first), key(other), key(dss)}) == 3
        assert key(dss) == key(same)


@pytest.mark.parametrize(
    ("names", "variant", "message"),
    [
        (["dss", "dss"], "", "a name occurs twice; to run a method twice"),
        (["dsss"], "", "--methods: dsss: unknown; known are control,"),
        (["a"], "{a: {like: b}, b: {like: a}}", "goes in a circle"),
        (["a"], "{a: {like: qcrd, set: {objective.betta: 1}}}", "objective.betta"),
        (["control"], "", "compare.control: is missing"),
        (["qcrd"], "{qcrd: {set: {seed: 2}}}", "that is the name of a method"),
    ],
)
def test_a_mistaken_method_is_named(recipe, names, variant, message):
    with pytest.raises(UserError, match=message):
        read_methods(recipe, [f"compare.variants={variant}"] if variant else [], names)


# --- the notes, and what is kept ---


MANIFEST = {
    **{"questions": 10, "labelled": 9, "positives": 30, "negatives": 5, "others": 0},
    **{
        "truncated_inputs": 0,
        "truncated_labels": 0,
        "truncated_positives": 0,
        "truncated_negatives": 0,
        "truncated_others": 0,
    },
}


def job(**counts):
    files = dict.fromkeys(("home", "folder", "validation"), Path("nowhere"))
    return TrainingJob(
        recipe=tiny_recipe(), objective_name="dss", manifest=MANIFEST | counts, **files
    )


def trained_on(*texts):
    sets = [
        RationaleSet(id=text, question_id=text, question=text, outcome=Outcome.ACCEPTED)
        for text in texts
    ]
    return pa.Table.from_pylist([each.row() for each in sets], schema=RATIONALE_SET_SCHEMA)


def test_a_comparison_tells_what_training_tells():
    """Guards a table of numbers whose inputs were cut, or whose test questions were trained on, and
    which does not say so.
    """
    questions = {
        "test": [Question(id="t-1", question="how many?"), Question(id="t-2", question="Why?")]
    }
    tables = {"train": trained_on("Who?", "How many?"), "compare.control": trained_on("why?")}
    first, second, cut = data_notes(
        tables, {"dss": job(), "qcrd": job(truncated_inputs=4)}, questions
    )
    assert first.startswith("1 of the 2 questions of test stand in train too") and first.endswith(
        ": t-1"
    )
    assert second.startswith(
        "1 of the 2 questions of test stand in compare.control too"
    ) and second.endswith(": t-2")
    assert cut.startswith(
        "qcrd: 4 of 20 inputs of the training set were cut at student.max_input_tokens"
    )
    (alike,) = data_notes(
        {}, {"dss": job(truncated_inputs=4), "qcrd": job(truncated_inputs=4)}, questions
    )
    assert alike.startswith("4 of 20 inputs"), (
        "what holds for all methods is told once, without names"
    )
    assert data_notes({"train": trained_on("Who?")}, {"dss": job()}, questions) == []


def test_a_table_survives_another_comparison(recipe, tmp_path):
    """Guards an earlier table against a call with other methods, other seeds, or other keys for the
    same methods.
    """
    folder = RunFolder(tmp_path / "run")
    told = {
        "call": {"commit": "abc"},
        "rationales": 48,
        "measured": [],
        "cost": {},
        "baselines": [],
        "fraction": 1.0,
    }
    calls = [
        (["dss", "qcrd"], 5, None),
        (["dss", "qcrd"], 2, None),
        (["dss", "mi"], 5, None),
        (["dss", "qcrd"], 5, "vote"),
    ]
    kept = []
    for names, seeds, labels in calls:
        methods = read_methods(recipe, [], names, labels=labels)
        write_tables(told | {"seeds": seeds}, folder, methods)
        kept.append(kept_table(folder, methods, seeds=seeds, fraction=1.0))
    assert len(set(kept)) == len(calls) and all(
        file.exists() and file.with_suffix(".json").exists() for file in kept
    )
    assert (
        kept[0].name.startswith("2-methods-5-seeds-")
        and kept[0].parent == folder.root / "compare" / "all" / "tables"
    )
    assert (
        (folder.root / "compare" / "all" / "table.md").read_text()
        == kept[-1].read_text()
        != kept[1].read_text()
    )
    assert (
        kept_table(folder, read_methods(recipe, [], ["dss", "qcrd"]), seeds=5, fraction=1.0)
        == kept[0]
    ), "the same call, the same file"


# --- steps and the table ---


@pytest.mark.parametrize(
    ("text", "right", "total"),
    [
        ("That is 5 - 2 = 3 plums. Then 3 x 4 = 13.", 1, 2),
        ("$1,200 / 4 = $300 and 7 / 2 = 3.5", 2, 2),
        ("10 / 3 = 3.33, 4 / 0 = 0", 1, 2),
        ("3 + 4 + 5 = 12, and 2 + 3 x 4 = 14, not 2 + 3 x 4 = 20.", 2, 3),
        ("12 pens - 3 pens = 9 pens, 5 - 7 = -2", 2, 2),
        ("no step = none, 5 = 5", 0, 0),
        ("__import__('os') * 2 = 4", 0, 0),
    ],
)
def test_steps_are_checked_without_evaluating_anything(text, right, total):
    assert check_steps(text) == (right, total)


def test_rationales_are_judged_by_what_they_say():
    def said(question, head, text, answer):
        return Prediction(
            name="m",
            head=head,
            split="test",
            question_id=question,
            gold="3",
            text=text,
            answer=answer,
            tokens=4,
        )

    facts = rationale_quality(
        [
            said("1", "label", "3", "3"),
            said("2", "label", "4", "4"),
            said("1", "rationale", "5 - 2 = 3", "3"),
            said("2", "rationale", "so so so so so so so so", None),
        ],
        split="test",
    )
    assert facts == {
        "parsable": 0.5,
        "tokens": 4.0,
        "repetition": pytest.approx(0.4),
        "steps_right": 1.0,
        "agreement": 0.5,
    }
    assert rationale_quality([], split="test") == {}


def table_of(seeds, cost):
    """The means of dss and qcrd, which is far better, over some seeds; and their table."""
    random = np.random.default_rng(1)
    scores = {
        name: random.random((seeds, 400)) < share for name, share in [("dss", 0.4), ("qcrd", 0.6)]
    }
    means, pairs = summarise(scores, resamples=1_000)
    measured = {
        "split": "test",
        "head": "rationale",
        "means": {name: mean._asdict() for name, mean in means.items()},
        "pairs": [pair._asdict() for pair in pairs],
    }
    return means, markdown(
        {
            "call": {"commit": "abc"},
            "seeds": seeds,
            "rationales": 48,
            "notes": ["qcrd: 4 of 20 inputs were cut", "1 of 8 questions"],
            "measured": [measured],
            "cost": cost,
            "baselines": [],
        }
    )


def test_the_table_shows_every_method_and_pair():
    cost = {
        "questions_seen": 100.0,
        "tokens": 5_000.0,
        "seconds": 9.0,
        "rationales": {"test": {"parsable": 1.0}},
        "discriminator": {},
    }
    cost |= {"student": {}, "negatives": {}}
    shares = {"negative_nll": 0.5, "active_fraction": 1.0, "negative_from_evolved": 0.25}
    means, text = table_of(
        5, {"dss": cost, "qcrd": cost | {"student": shares, "negatives": {"right_share": 0.375}}}
    )
    assert text.index("\n- qcrd: 4 of 20 inputs were cut\n- 1 of 8 questions\n\n") < text.index(
        "\n## "
    )
    assert (
        "| qcrd - dss | +" in text
        and f"| dss | {100 * means['dss'].mean:.1f} |" in text
        and "| 5,000 |" in text
    )
    assert (
        "| qcrd |  | 0.50 | 1.00 |  |  |  | 0.25 | 0.38 |"
        in text.split("## Negatives in the last round")[1]
    ), "dss has none"


@pytest.mark.parametrize(
    ("seeds", "note"),
    [
        (2, " Fewer than 3 seeds have no p-values"),
        (3, " With 3 seeds a p-value keeps its level only roughly"),
        (4, ""),
    ],
)
def test_the_table_says_what_few_seeds_leave_of_a_p_value(seeds, note):
    """Guards a p-value of two seeds in a table, and one of three that stands there like one of
    ten.
    """
    _, text = table_of(seeds, {})
    caption = text.splitlines()[2]
    assert note in caption and (bool(note) == (" seeds have " in caption or " keeps " in caption))
    (row,) = (line for line in text.splitlines() if line.startswith("| qcrd - dss | +"))
    p_values = [cell.strip() for cell in row.split("|")[4:7]]
    assert not any(p_values) if seeds < 3 else all(p_values), row
