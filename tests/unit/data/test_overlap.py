"""Test questions that were trained on and texts that were cut are told wherever the numbers are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_tiny import tiny_recipe

from qcrd_ray.data.overlap import overlap_note, same_questions
from qcrd_ray.data.records import Question
from qcrd_ray.evaluation.stage import _data_notes
from qcrd_ray.recipe import StudentRecipe
from qcrd_ray.report.summary import data_lines
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.manifests import truncation_counts, truncation_note

MANIFEST = {
    **{"questions": 10, "labelled": 9, "positives": 30, "negatives": 5},
    **{
        "truncated_inputs": 4,
        "truncated_labels": 0,
        "truncated_positives": 2,
        "truncated_negatives": 1,
        "truncated_first": 7,
    },
}
STUDENT = StudentRecipe(model="demo", max_input_tokens=1024, max_target_tokens=64)


def asked(text, *choices, id="x"):
    return Question(id=id, question=text, choices=choices)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (asked("How many?"), asked("how  many"), True),
        (asked("“Why?” he said."), asked('"Why?" he said.'), True),
        (asked("Ｈｏｗ ｍａｎｙ?"), asked("How many?"), True),
        (asked("What is 3.5 + 1?"), asked("What is 35 + 1?"), False),
        (asked("What is 3 + 1?"), asked("What is 3 - 1?"), False),
        (asked("Which?", "a", "b"), asked("Which?", "B", "a"), True),
        (asked("Which?", "a", "b"), asked("Which?", "a", "c"), False),
    ],
)
def test_the_same_question_in_other_dress(one, other, same):
    assert bool(same_questions([one], [other])) == same


@given(
    st.lists(st.sampled_from("abcdef"), max_size=6), st.lists(st.sampled_from("abcdef"), max_size=6)
)
def test_what_is_found_is_the_intersection(measured, training):
    found = same_questions(
        [asked(text, id=f"{n}{text}") for n, text in enumerate(measured)],
        [asked(text) for text in training],
    )
    assert found == [f"{n}{text}" for n, text in enumerate(measured) if text in training]


def test_the_note_names_the_first_and_says_that_there_are_more():
    assert (
        overlap_note("test", list("abcdefg"), of=1_200)
        == "7 of the 1,200 questions of test stand in train too, so what is measured on test is not"
        " new to it: a, b, c, d, e, ..."
    )


def test_what_was_cut_is_counted_once():
    """Most of `first` and `single` are positives or negatives too: only the others are counted
    beside them. A question is two inputs.
    """
    assert truncation_counts(MANIFEST) == {
        "inputs": (4, 20),
        "targets": (3, 44),
    }, "an older version did not count the others"
    assert truncation_counts(MANIFEST | {"others": 6, "truncated_others": 5}) == {
        "inputs": (4, 20),
        "targets": (8, 50),
    }
    assert (
        truncation_note(MANIFEST, STUDENT)
        == "4 of 20 inputs of the training set were cut at student.max_input_tokens (1,024); "
        "3 of 44 targets of the training set were cut at student.max_target_tokens (64)"
    )
    whole = {name: 0 if name.startswith("truncated") else count for name, count in MANIFEST.items()}
    assert truncation_note(whole, STUDENT) == ""


def test_both_reach_the_results_and_the_end_of_a_run(tmp_path):
    folder, recipe = RunFolder(tmp_path), tiny_recipe()
    assert _data_notes(recipe, folder) == [], "a run of an older version has no such counts"
    for file, content in (
        (
            folder.rationales("train") / "manifest.json",
            {"overlap": {"test": {"ids": ["t-1"], "of": 8}}},
        ),
        (folder.root / "train" / "data" / "manifest.json", MANIFEST),
    ):
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(content))
    overlap, cut = _data_notes(recipe, folder)
    assert overlap.startswith("1 of the 8 questions of test stand in train too") and cut.startswith(
        "4 of 20 inputs"
    )
    assert data_lines(folder) == [
        "  trained on 10 questions, 30 positives, 5 negatives of the teacher; cut for their length:"
        " 4 of 20 inputs, 3 of 44 targets"
    ]
