"""The comparison's statistics, its methods by name, and the table: a claim must be neither made by
chance nor lost.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_tiny import tiny_recipe

from qcrd_ray.comparison.files import kept_table, write_tables
from qcrd_ray.comparison.fingerprints import data_key, method_key
from qcrd_ray.comparison.methods import METHODS, read_methods
from qcrd_ray.comparison.notes import data_notes
from qcrd_ray.comparison.statistics import (
    Spread,
    holm,
    spread_of,
    student_t_95,
    summarise,
    two_sided_p,
)
from qcrd_ray.comparison.table import markdown
from qcrd_ray.comparison.trials import rationale_quality
from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Outcome, Question, RationaleSet
from qcrd_ray.errors import UserError
from qcrd_ray.evaluation.predictions import Prediction
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.tasks.steps import check_steps
from qcrd_ray.training.job import TrainingJob


def drawn(share, *, seed, seeds=5, questions=400, spread=1.5):
    """Scores of a method that is right on ``share`` of the questions, the same ones more often than
    others.
    """
    random = np.random.default_rng(seed)
    ease = np.random.default_rng(99).normal(
        0, spread, questions
    )  # questions differ, and alike for all methods
    level = np.log(share / (1 - share))
    return random.random((seeds, questions)) < 1 / (1 + np.exp(-(level + ease)))


# --------------------------------------------------------------------------------------------------------------------------
# statistics


def test_the_same_runs_under_two_names_differ_by_nothing():
    scores = drawn(0.5, seed=1)
    _, (pair,) = summarise({"a": scores, "b": scores.copy()}, resamples=1_000)
    assert (pair.difference, pair.p, pair.better, pair.worse) == (0.0, 1.0, 0, 0)


@pytest.mark.parametrize(
    ("of_seeds", "of_questions"), [(0.0, 0.0), (0.06, 0.0), (0.0, 0.3), (0.04, 0.2)], ids=str
)
def test_a_null_is_found_as_often_as_it_says(of_seeds, of_questions):
    """Two methods that are equal, up to how each happens to do with a seed and with a question. p <
    0.05 much more often than once in twenty makes every table hold a discovery, and much less often
    hides real ones, as a bootstrap's does (up to 1.7 times too wide).
    """
    random = np.random.default_rng(0)
    apart, spreads = [], []
    for _ in range(400):
        shift = random.normal(0, of_seeds, (2, 8, 1)) + random.normal(0, of_questions, (2, 1, 150))
        first, second = random.random((2, 8, 150)) < 0.5 + shift
        apart.append(second.mean() - first.mean())
        spreads.append(spread_of(second.astype(float) - first))
    errors = np.array([spread.error for spread in spreads])
    assert 0.93 < np.sqrt((errors**2).mean()) / np.std(apart) < 1.12
    found = np.mean(
        [
            two_sided_p(difference, spread) < 0.05
            for difference, spread in zip(apart, spreads, strict=True)
        ]
    )
    assert 0.02 < found < 0.085


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062), (4, 2.7764), (9, 2.2622), (30, 2.0423), (100_000, 1.9600)]
)
def test_students_t_is_the_textbooks(freedom, t):
    assert student_t_95(freedom) == pytest.approx(t, rel=1e-3)
    assert two_sided_p(t, Spread(1.0, freedom)) == pytest.approx(0.05, rel=2e-3)
    assert two_sided_p(-3 * t, Spread(1.0, freedom)) < 0.02


def test_one_seed_is_judged_over_its_questions():
    scores = drawn(0.5, seed=1, seeds=1, questions=100)
    means, (pair,) = summarise(
        {"a": scores, "b": drawn(0.7, seed=2, seeds=1, questions=100)}, resamples=1_000
    )
    share = means["a"].mean
    assert (means["a"].high - means["a"].low) / 2 == pytest.approx(
        1.984 * (share * (1 - share) / 99) ** 0.5, rel=1e-2
    )
    assert 0 < pair.p < 0.05


def test_a_real_difference_is_found_and_has_its_sign():
    means, (pair,) = summarise(
        {"worse": drawn(0.4, seed=1), "better": drawn(0.6, seed=2)}, resamples=2_000
    )
    assert pair.difference > 0 and pair.low > 0 and pair.p < 0.01 and pair.better > pair.worse
    assert means["worse"].low < means["worse"].mean < means["worse"].high < means["better"].low
    assert means["better"].sd > 0 and (means["better"].seeds, means["better"].questions) == (5, 400)


def test_pairing_by_question_is_worth_something():
    """The interval of a difference on the same questions must be narrower than that of two
    independent means.
    """
    means, (pair,) = summarise(
        {"a": drawn(0.5, seed=1, spread=4), "b": drawn(0.55, seed=2, spread=4)}, resamples=2_000
    )
    apart = sum((mean.high - mean.low) ** 2 for mean in means.values()) ** 0.5
    assert pair.high - pair.low < 0.7 * apart


def test_one_lucky_seed_does_not_make_a_claim():
    """Pooling questions over seeds would: 2,000 answers, of which one seed's are all right."""
    base = drawn(0.5, seed=1, seeds=3, questions=600)
    lucky = base.copy()
    lucky[0] = True
    _, (pair,) = summarise({"base": base, "lucky": lucky}, resamples=2_000)
    assert pair.difference > 0.1 and pair.p > 0.05


def test_methods_must_have_been_asked_the_same():
    with pytest.raises(ValueError, match="different seeds or questions"):
        summarise({"a": np.ones((2, 3)), "b": np.ones((2, 4))}, resamples=1_000)


def test_holm_is_the_textbooks():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_helps_and_keeps_the_order(p_values):
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert all(corrected[a] <= corrected[b] for a, b in pairwise(ranked))


# ------------------------------------------------------------------------------------------------------------------------------
# methods


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


def test_a_method_twice_has_other_seeds(recipe):
    """With the same seeds a planted null would be the same runs, and could not fail."""
    once, again = read_methods(recipe, [], ["dss", "again=dss"])
    assert once.recipe == again.recipe and once.shift != again.shift


def test_a_control_is_no_other_cell(recipe):
    """`x=control` and then `x=dss` are the same keys of a recipe on other data: the second must not
    find the first's cells; nor must a control on new data find those on the old.
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


# ----------------------------------------------------------------------------------------------------------
# the notes, and what is kept


MANIFEST = {
    **{"questions": 10, "labelled": 9, "positives": 30, "negatives": 5},
    **{
        "truncated_inputs": 0,
        "truncated_labels": 0,
        "truncated_positives": 0,
        "truncated_negatives": 0,
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
        "beside": [],
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


# -------------------------------------------------------------------------------------------------------------------
# steps and the table


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


def test_the_table_shows_every_method_and_pair():
    means, pairs = summarise(
        {"dss": drawn(0.4, seed=1), "qcrd": drawn(0.6, seed=2)}, resamples=1_000
    )
    cost = {
        "questions_seen": 100.0,
        "tokens": 5_000.0,
        "seconds": 9.0,
        "rationales": {"test": {"parsable": 1.0}},
        "discriminator": {},
    }
    cost |= {"student": {}, "negatives": {}}
    shares = {"negative_nll": 0.5, "active_fraction": 1.0, "negative_from_evolved": 0.25}
    text = markdown(
        {
            "call": {"commit": "abc"},
            "seeds": 5,
            "rationales": 48,
            "notes": ["qcrd: 4 of 20 inputs were cut", "1 of 8 questions"],
            "measured": [
                {
                    "split": "test",
                    "head": "rationale",
                    "means": {k: v._asdict() for k, v in means.items()},
                    "pairs": [p._asdict() for p in pairs],
                }
            ],
            "cost": {
                "dss": cost,
                "qcrd": cost | {"student": shares, "negatives": {"right_share": 0.375}},
            },
            "beside": [],
        }
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
