"""From rationale sets to the training set: which texts become targets, what is cut, and what is
left out with which reason.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_tiny import rationale_set, tiny_recipe
from transformers import AutoTokenizer

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA
from qcrd_ray.errors import UserError
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.word_problems import generate
from qcrd_ray.training import prepare as module
from qcrd_ray.training.dataset import (
    TrainingSet,
    assemble,
    read_validation,
    rounds_of,
)
from qcrd_ray.training.prepare import prepare


@pytest.fixture
def tokenizer(tiny_student):
    return AutoTokenizer.from_pretrained(tiny_student)


def table(rows):
    return pa.Table.from_pylist(rows, schema=RATIONALE_SET_SCHEMA)


def sets(count=4):
    return [rationale_set(question, i).row() for i, question in enumerate(generate(count, seed=1))]


def prepared(rows, tmp_path, tokenizer, **changes):
    recipe = tiny_recipe(
        **{"student.max_input_tokens": 500, "student.max_target_tokens": 200, **changes}
    )
    folder = tmp_path / "train" / "data"
    manifest = prepare(
        recipe, [table(rows)], folder, task=build_task(recipe.task), tokenizer=tokenizer
    )
    training_set = TrainingSet(folder)
    return manifest, list(training_set.read(range(len(training_set))).values()), folder


def test_targets_are_explanations_and_labels(tmp_path, tokenizer):
    """Targets close with their own answer and with EOS, each text once; teacher negatives keep the
    wrong answer that made them one.
    """
    rows = sets(1)
    _, (row,), _ = prepared(rows, tmp_path, tokenizer)
    answer = rows[0]["gold"]
    assert len(row.positives) == 2 and len(row.negatives) == 2, (
        "the third positive was a repetition"
    )
    assert all(text.endswith(f"So the answer is {answer}.") for text in row.positives)
    assert all(text.endswith(f"So the answer is {int(answer) + 1}.") for text in row.negatives)
    for text, rationale in zip(row.positives, row.example.positives, strict=True):
        assert tokenizer.decode(rationale.tokens, skip_special_tokens=True) == text
        assert rationale.tokens[-1] == tokenizer.eos_token_id
    assert (
        tokenizer.decode(row.example.predict, skip_special_tokens=True) == "predict: " + row.input
    )
    assert (
        tokenizer.decode(row.example.explain, skip_special_tokens=True) == "explain: " + row.input
    )
    assert tokenizer.decode(row.example.label, skip_special_tokens=True) == row.answer == answer


def test_the_first_readable_sample_is_kept_whatever_the_vote_said(tmp_path, tokenizer):
    """Distilling Step-by-Step has no vote: its one sample keeps its own answer; the single-task
    target closes with the label.
    """
    rows = sets(3)
    unread = {**rows[0]["completions"][0], "rationale": " ", "answer": None, "role": "abstained"}
    wrong = next(c for c in rows[0]["completions"] if c["role"] == "negative")
    rows[0]["completions"] = [unread, wrong, *rows[0]["completions"]]
    rows[1] |= {"gold": None}
    rows[2]["completions"] = [unread]
    manifest, kept, _ = prepared(rows, tmp_path, tokenizer)
    told = [
        [
            tokens and tokenizer.decode(tokens, skip_special_tokens=True)
            for tokens in (r.example.first, r.example.single)
        ]
        for r in kept
    ]
    assert told[0][0].endswith(f"So the answer is {wrong['answer']}.") and told[0][1].endswith(
        f"So the answer is {rows[0]['gold']}."
    )
    assert told[0][0].split("So the")[0] == told[0][1].split("So the")[0]
    assert told[1][0] and told[1][1] is None, "no label, nothing to close with"
    assert told[2] == [None, None]
    assert (manifest["with_first"], manifest["with_single"]) == (2, 1)


def test_every_question_is_trained_on_or_dropped_with_a_reason(tmp_path, tokenizer):
    """Counts add up: no gold and no vote, a gold answer that is none, and a rejected row are named;
    a vote alone still teaches L_cl.
    """
    rows = sets(6)
    nothing = {"completions": [], "vote": None, "outcome": "unparsed"}
    rows[0] |= {"gold": None, **nothing}
    rows[1] |= {"gold": "many", **nothing}
    rows[2] |= {"outcome": "rejected_input", "reason": "too long"}
    rows[3] |= {"gold": None}
    rows[4] |= nothing
    manifest, kept, folder = prepared(rows, tmp_path, tokenizer)
    assert manifest["rows"] == 6 == len(kept) + sum(manifest["dropped"].values())
    dropped = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    assert {row["question_id"]: row["reason"] for row in dropped} == {
        rows[0]["question_id"]: "no gold answer and no voted rationale",
        rows[1]["question_id"]: "the gold answer cannot be read and no voted rationale",
        rows[2]["question_id"]: "rejected: too long",
    }
    assert kept[0].example.label is None and kept[0].example.positives, (
        "a vote without gold: L_cl alone"
    )
    assert kept[1].example.label and not kept[1].example.positives, (
        "gold without a vote: L_pred alone"
    )
    assert (manifest["labelled"], manifest["with_positives"]) == (2, 2)


def test_questions_without_any_label_can_still_be_learnt_from(tmp_path, tokenizer):
    """Guards a manifest that lacks the longest label where there is none."""
    manifest, kept, _ = prepared([row | {"gold": None} for row in sets(2)], tmp_path, tokenizer)
    assert (manifest["labelled"], manifest["longest_label"], len(kept)) == (0, 0, 2)


def test_labels_can_be_the_vote(tmp_path, tokenizer):
    rows = sets(1)
    rows[0]["gold"] = "17"
    _, (row,), _ = prepared(rows, tmp_path, tokenizer, **{"objective.labels": "vote"})
    assert row.answer == rows[0]["vote"]


def test_positives_can_be_those_that_agree_with_the_label(tmp_path, tokenizer):
    """The vote is wrong: by the label its samples are the negatives. One that could not vote stays
    out; without a label the vote rules.
    """
    wrong, unlabelled = sets(1)[0], sets(2)[1] | {"gold": None}
    wrong["gold"] = str(int(wrong["vote"]) + 1)
    wrong["completions"][-1].update(role="abstained", reason="cut off by the token limit")
    _, kept, _ = prepared(
        [wrong, unlabelled], tmp_path, tokenizer, **{"objective.positives": "label"}
    )
    rows = {row.question.id: row for row in kept}
    by_label, by_vote = rows[wrong["question_id"]], rows[unlabelled["question_id"]]
    assert len(by_label.positives) == 1 and by_label.positives[0].endswith(
        f"So the answer is {wrong['gold']}."
    )
    assert len(by_label.negatives) == 2 and all(
        text.endswith(f"So the answer is {wrong['vote']}.") for text in by_label.negatives
    )
    assert by_vote.positives and all(
        text.endswith(f"So the answer is {unlabelled['vote']}.") for text in by_vote.positives
    )


def test_the_teachers_minority_can_be_left_out(tmp_path, tokenizer):
    manifest, kept, _ = prepared(sets(2), tmp_path, tokenizer, **{"negatives.teacher": False})
    assert manifest["negatives"] == 0 and not any(row.negatives for row in kept)


def test_cut_texts_are_counted_and_keep_their_end(tmp_path, tokenizer):
    manifest, kept, _ = prepared(
        sets(2),
        tmp_path,
        tokenizer,
        **{"student.max_input_tokens": 8, "student.max_target_tokens": 6},
    )
    assert (
        manifest["truncated_inputs"] == 4
        and manifest["truncated_positives"] == 4
        and manifest["truncated_negatives"] == 2
    )
    for row in kept:
        assert len(row.example.explain) == 8 and {len(r.tokens) for r in row.example.positives} == {
            6
        }
        assert row.example.positives[0].tokens[-1] == tokenizer.eos_token_id


def test_a_text_is_counted_once_whoever_learns_it(tmp_path, tokenizer):
    """Bug guarded: the targets of dss, mi and single_task were not counted where they are neither
    positives nor negatives.
    """
    rows = sets(3)
    guess = next(c for c in rows[0]["completions"] if c["role"] == "negative")
    for row, answer in (
        (rows[1], guess["answer"]),
        (rows[2], rows[2]["gold"]),
    ):  # two texts with the label's answer, one that is both
        row["completions"] = [guess | {"role": "abstained", "answer": answer}, *row["completions"]]
    manifest, _, _ = prepared(rows, tmp_path, tokenizer, **{"student.max_target_tokens": 6})
    assert (manifest["with_first"], manifest["with_single"], manifest["others"]) == (3, 3, 3)
    assert manifest["truncated_others"] == 3
    without, _, _ = prepared(sets(3), tmp_path / "without", tokenizer)
    assert (without["others"], without["truncated_others"]) == (
        0,
        0,
    ), "each `first` and `single` is a positive"


def test_nothing_to_train_on_says_why(tmp_path, tokenizer):
    rows = [row | {"gold": None, "completions": []} for row in sets(2)]
    with pytest.raises(
        UserError,
        match=(
            r"none of the 2 questions .*no gold answer and no voted rationale: 2.*objective.labels"
            r" to `vote`"
        ),
    ):
        prepared(rows, tmp_path, tokenizer)
    with pytest.raises(UserError, match="qcrd generate"):
        prepared([], tmp_path, tokenizer)


def test_changed_rationales_are_refused_once_training_began(tmp_path, tokenizer):
    """Guards a training that goes on with other data than it started with; before that, new
    rationales are simply prepared.
    """
    rows = sets(3)
    first, _, _ = prepared(rows, tmp_path, tokenizer)
    assert prepared(rows, tmp_path, tokenizer)[0] == first
    rows[0]["vote"] = "99"
    second, _, _ = prepared(rows, tmp_path, tokenizer)
    assert second["source"] != first["source"]
    (tmp_path / "train" / "qcrd" / "checkpoints" / "round-00001").mkdir(parents=True)
    with pytest.raises(
        UserError, match="the rationales or gold answers have changed since training in"
    ):
        prepared(sets(3), tmp_path, tokenizer)


def test_a_training_set_is_named_by_all_that_it_is_made_of(tmp_path, tokenizer):
    """Guards a training set that is kept where a teacher wrote other rationales under the same ids,
    or a gold answer was mended; and one that is made anew because a row failed again.
    """
    rows = sets(2)
    first, _, _ = prepared(rows, tmp_path, tokenizer)
    completion = rows[0]["completions"][0]
    for change in (
        {"rationale": "Count them."},
        {"role": "negative"},
        {"answer": "8"},
        {"reason": "cut off by the token limit"},
    ):
        other = rows[0] | {"completions": [completion | change, *rows[0]["completions"][1:]]}
        assert prepared([other, rows[1]], tmp_path, tokenizer)[0]["source"] != first["source"], (
            change
        )
    for change in (
        {"gold": "17"},
        {"vote": "17"},
        {"question": "Why?"},
        {"choices": ["a"]},
        {"outcome": "failed"},
        {"question_id": "b"},
    ):
        assert (
            prepared([rows[0] | change, rows[1]], tmp_path, tokenizer)[0]["source"]
            != first["source"]
        ), change
    again = rows[0] | {
        "attempts": 3,
        "completions": [each | {"tokens": 9, "thinking": None} for each in rows[0]["completions"]],
    }
    assert prepared([again, rows[1]], tmp_path, tokenizer)[0]["source"] == first["source"]


def test_a_round_knows_its_questions_and_the_students_words_on_them(tmp_path, tokenizer):
    """Student negatives join the teacher's, once each; a text that says nothing is dropped; the
    right ones are remembered.
    """
    from qcrd_ray.data.records import StudentNegative
    from qcrd_ray.method.examples import Source

    _, kept, _ = prepared(sets(2), tmp_path, tokenizer)
    name = kept[0].question.id
    said = [
        ("It is 5.", True),
        ("It is 5.", True),
        ("  ", None),
        (kept[0].negatives[0], False),
        ("No.", None),
    ]
    negatives = [
        StudentNegative(question_id=name, round=0, snapshot=0, text=text, right=right)
        for text, right in said
    ]
    assembled = assemble(dict(enumerate(kept)), negatives, tokenizer=tokenizer, max_tokens=200)
    example = assembled[0].example
    texts = [assembled[0].texts[r.tokens] for r in example.negatives]
    assert texts == [*kept[0].negatives, "It is 5.", "No."]
    assert [r.source for r in example.negatives] == [Source.TEACHER] * 2 + [Source.STUDENT] * 2
    assert [assembled[0].right.get(r.tokens) for r in example.negatives[2:]] == [True, None]
    assert assembled[1].example == kept[1].example


def test_a_round_samples_only_the_questions_of_its_batches():
    recipe = tiny_recipe(**{"train.round.size": 2, "train.batch_size": 4})
    rounds = rounds_of(recipe, 100)
    assert [len(rounds.question_indices(round)) for round in range(2)] == [8, 8]
    epochs = tiny_recipe(
        **{"train.round.unit": "epochs", "train.round.size": 1, "train.batch_size": 4}
    )
    assert rounds_of(epochs, 10).question_indices(0) == list(range(10))


def test_a_round_of_a_large_set_is_bounded_unless_the_recipe_says_how_long_it_is():
    """Bug guarded: each worker held a whole epoch, 44 GB at a million questions."""
    size = {"train.round.unit": "epochs", "train.batch_size": 64}
    default, epoch = (tiny_recipe(**size, **{"train.round.size": n}) for n in (None, 1))
    assert rounds_of(default, 10_000).steps_per_round == 157  # all of them
    assert rounds_of(default, 10**6).steps_per_round == 157
    assert rounds_of(epoch, 10**6).steps_per_round == 15_625
    with pytest.raises(ValueError, match="how many steps a round has"):
        tiny_recipe(**{"train.round.unit": "steps", "train.round.size": None})


def test_validation_questions_need_a_readable_answer(tmp_path):
    from qcrd_ray.data.records import QUESTION_SCHEMA

    rows = [
        {"id": str(i), "question": "q", "choices": [], "answer": answer}
        for i, answer in enumerate(["12.0", None, "none", "7"])
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=QUESTION_SCHEMA), tmp_path / "v.parquet")
    questions = read_validation(tmp_path / "v.parquet", build_task(tiny_recipe().task), limit=None)
    assert [(question.id, question.answer) for question in questions] == [("0", "12"), ("3", "7")]
    assert (
        len(read_validation(tmp_path / "v.parquet", build_task(tiny_recipe().task), limit=1)) == 1
    )


def test_parts_give_what_one_table_gives(tmp_path, tokenizer, monkeypatch):
    """Shards are prepared apart, in files or in memory: every row, count and reason is as if they
    were one table, and a part of which nothing is left harms nothing.
    """
    rows = sets(7)
    rows[6] = {**rows[6], "gold": None, "vote": None, "completions": []}
    rows[0] = {**rows[0], "outcome": "rejected_input", "reason": "too long"}
    whole, read, folder = prepared(rows, tmp_path / "whole", tokenizer)
    monkeypatch.setattr(module, "map_tasks", lambda f, items, **_: [(i, f(i)) for i in items])
    parts = []
    for place, of_part in enumerate((rows[:1], rows[1:4], rows[4:])):
        parts.append(tmp_path / f"{place}.parquet")
        pq.write_table(table(of_part), parts[-1], row_group_size=2)
    recipe = tiny_recipe(**{"student.max_input_tokens": 500, "student.max_target_tokens": 200})
    apart = tmp_path / "apart" / "train" / "data"
    manifest = prepare(recipe, parts, apart, task=build_task(recipe.task), tokenizer=tokenizer)
    assert {**manifest, "source": ""} == {**whole, "source": ""}
    assert manifest["dropped"] == {
        "rejected: too long": 1,
        "no gold answer and no voted rationale": 1,
    }
    assert list(TrainingSet(apart).rows()) == read and len(read) == 5
    dropped = (apart / "dropped.jsonl").read_text()
    assert dropped == (folder / "dropped.jsonl").read_text() and dropped.count("\n") == 2
    assert sorted(file.name for file in apart.iterdir()) == [
        "dropped.jsonl",
        "manifest.json",
        *(f"train-0000{place}.arrow" for place in range(3)),
    ]
