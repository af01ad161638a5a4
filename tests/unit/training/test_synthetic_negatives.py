"""Negatives that are made, and what becomes of a student's right samples: nothing right among what
is made, and the same for ever.
"""

from __future__ import annotations

import pytest
from training_tiny import rationale_set, tiny_recipe, write_run

from qcrd_ray.data.records import Question, StudentNegative
from qcrd_ray.doctor import recipe_checks
from qcrd_ray.errors import UserError
from qcrd_ray.method.examples import Example, Rationale, Source
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.steps import check_steps
from qcrd_ray.tasks.word_problems import generate
from qcrd_ray.training.dataset import Row, TrainingSet, assemble, count_sources
from qcrd_ray.training.start_models import train_tokenizer
from qcrd_ray.training.synthetic_negatives import check_rows, synthesize_negatives
from qcrd_ray.training.trainer import prepare_job

MADE = {"negatives.corrupted": 2, "negatives.evolved": 1}


def row(
    question: Question, *, positives: tuple[str, ...] | None = None, answer: str | None = None
) -> Row:
    texts = (
        (f"{question.rationale} So the answer is {question.answer}.",)
        if positives is None
        else positives
    )
    return Row(
        question=question,
        input=question.question,
        answer=answer or question.answer,
        example=Example(
            predict=(1,),
            explain=(1,),
            positives=tuple(Rationale(tokens=(i + 2, 1)) for i in range(len(texts))),
        ),
        positives=texts,
        negatives=(),
    )


ROWS = [row(question) for question in generate(40, seed=1)]


def test_what_is_made_is_wrong_new_and_as_many_as_asked():
    recipe = tiny_recipe(**MADE)
    task = build_task(recipe.task)
    whole = 0
    for each in ROWS:
        synthetic = synthesize_negatives(recipe, task, each, round=0)
        texts = [text for text, _ in synthetic]
        assert len(set(texts)) == len(texts) and not set(texts) & {*each.positives, *each.negatives}
        for text, source in synthetic:
            assert task.parse(text, each.question).answer not in (each.answer, None)
            steps = check_steps(text)
            assert steps.total - steps.right == (source == Source.CORRUPTED), (text, source)
        whole += [source for _, source in synthetic] == [Source.CORRUPTED] * 2 + [Source.EVOLVED]
    assert whole >= 0.9 * len(ROWS)


def test_it_hangs_on_seed_question_and_round_alone():
    """A resumed round must train on what it trained on; the next round on something else."""
    recipe = tiny_recipe(**MADE)
    task = build_task(recipe.task)
    first, again, later, other = (
        [synthesize_negatives(settings, task, each, round=round) for each in ROWS]
        for settings, round in (
            (recipe, 0),
            (recipe, 0),
            (recipe, 1),
            (tiny_recipe(**MADE, seed=1), 0),
        )
    )
    assert first == again and first != later and first != other
    fewer = synthesize_negatives(tiny_recipe(**{"negatives.evolved": 1}), task, ROWS[0], round=0)
    assert fewer == first[0][2:], "one source's draws are not the other's"


def test_a_wrong_vote_is_not_corrected_by_accident():
    """The positives say 7, the label 9: a corruption to 9 would teach that the label is wrong."""
    question = Question(id="q", question="Tom has 3 pens and 4 books. How many things?")
    recipe = tiny_recipe(**{"negatives.corrupted": 8})
    task, given = (
        build_task(recipe.task),
        row(question, positives=("3 + 4 = 7 things. So the answer is 7.",), answer="9"),
    )
    synthetic = [text for text, _ in synthesize_negatives(recipe, task, given, round=0)]
    assert len(synthetic) >= 6 and not any(text.endswith(("is 7.", "is 9.")) for text in synthetic)


def test_without_positives_or_without_a_source_nothing_is_made():
    task = build_task(tiny_recipe().task)
    assert (
        synthesize_negatives(
            tiny_recipe(**MADE), task, row(ROWS[0].question, positives=()), round=0
        )
        == []
    )
    assert synthesize_negatives(tiny_recipe(), task, ROWS[0], round=0) == []


@pytest.mark.parametrize("kind", ["multiple_choice", "nli"])
def test_a_task_without_numbers_is_refused_before_anything_is_asked(kind):
    recipe = tiny_recipe(
        **{"negatives.evolved": 1, "task.kind": kind, "data.train": {"path": "q.jsonl"}}
    )
    with pytest.raises(
        UserError, match=rf"negatives.evolved: the answers of {kind} are no numbers"
    ):
        recipe_checks.RECIPE_CHECKS["negatives"](recipe)
    assert (
        recipe_checks.RECIPE_CHECKS["negatives"](tiny_recipe(**MADE))
        == "positives are also corrupted and evolved"
    )


def test_a_source_that_could_make_nothing_is_refused():
    """Else a variant would be the method that it varies, under another name."""
    recipe = tiny_recipe(**{"negatives.evolved": 1})
    bare = [
        row(each.question, positives=(f"So the answer is {each.question.answer}.",))
        for each in ROWS
    ]
    with pytest.raises(
        UserError,
        match=r"negatives.evolved: no positive of the training questions can be rewritten",
    ):
        check_rows(recipe, build_task(recipe.task), lambda: iter(bare))
    check_rows(recipe, build_task(recipe.task), lambda: iter([*bare, ROWS[0]]))


def test_the_training_set_is_asked_once_it_is_prepared(tmp_path):
    """Through the trainer: rows are read in order, all of them."""
    job = prepare_job(tiny_recipe(**MADE), write_run(tmp_path), "redi")
    assert [each.question.id for each in TrainingSet(job.data).rows()] == sorted(
        rationale_set(q, 0).question_id for q in generate(24, seed=1)
    )


# ------------------------------------------------------------------------------
# in a round, beside the student's


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([text for each in ROWS for text in (*each.positives, each.input)], 320)


def ids(tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text)["input_ids"])


def one_row(tokenizer) -> Row:
    question = ROWS[0].question
    positive, minority = ROWS[0].positives[0], "It is 1."
    example = Example(
        predict=(1,),
        explain=(1,),
        positives=(Rationale(tokens=ids(tokenizer, positive)),),
        negatives=(Rationale(tokens=ids(tokenizer, minority)),),
    )
    return Row(
        question=question,
        input="",
        answer=question.answer,
        example=example,
        positives=(positive,),
        negatives=(minority,),
    )


@pytest.mark.parametrize(
    ("right", "positives", "negatives"),
    [
        ("keep", ["teacher"], ["teacher", "student right", "student wrong", "student silent"]),
        ("drop", ["teacher"], ["teacher", "student wrong", "student silent"]),
        ("positive", ["teacher", "student right"], ["teacher", "student wrong", "student silent"]),
    ],
)
def test_right_samples_are_negatives_nothing_or_positives(tokenizer, right, positives, negatives):
    each = one_row(tokenizer)
    said = {"right one": True, "wrong one": False, "silent one": None}
    written = [
        StudentNegative(question_id=each.question.id, round=0, snapshot=0, text=text, right=truth)
        for text, truth in said.items()
    ]
    question = assemble({0: each}, written, right=right, tokenizer=tokenizer, max_tokens=100)[0]

    def by_source(side):
        return [
            (
                f"{r.source} {question.texts[r.tokens].split()[0]}"
                if r.source == Source.STUDENT
                else r.source.value
            )
            for r in side
        ]

    assert (
        by_source(question.example.positives) == positives
        and by_source(question.example.negatives) == negatives
    )
    assert question.right == {
        ids(tokenizer, text): truth for text, truth in said.items() if right != "drop" or not truth
    }
    assert count_sources([question])["student_positives"] == (right == "positive")


def test_a_text_is_not_on_both_sides_where_right_samples_are_positives(tokenizer):
    """The label can side with the minority; the student then says what the teacher's negative
    says.
    """
    each = one_row(tokenizer)
    written = [
        StudentNegative(
            question_id=each.question.id, round=0, snapshot=0, text=each.negatives[0], right=True
        )
    ]
    question = assemble({0: each}, written, right="positive", tokenizer=tokenizer, max_tokens=100)[
        0
    ]
    assert len(question.example.positives) == 2 and question.example.negatives == ()


def test_made_negatives_join_the_others_and_a_cut_one_that_is_the_positive_does_not(tokenizer):
    each = one_row(tokenizer)
    other = each.positives[0][:-1] + " or so."
    synthetic = {0: [("It is 2.", Source.CORRUPTED), (other, Source.EVOLVED)]}
    written = [
        StudentNegative(question_id=each.question.id, round=0, snapshot=0, text="No.", right=False)
    ]
    question = assemble(
        {0: each}, written, synthetic=synthetic, tokenizer=tokenizer, max_tokens=200
    )[0]
    assert [r.source for r in question.example.negatives] == [
        Source.TEACHER,
        Source.STUDENT,
        Source.CORRUPTED,
        Source.EVOLVED,
    ]
    assert question.texts[question.example.negatives[-1].tokens] == other
    assert count_sources([question]) == {
        "from_teacher": 1,
        "from_student": 1,
        "from_corrupted": 1,
        "from_evolved": 1,
        "student_positives": 0,
    }
    short = Row(
        question=each.question,
        input="",
        answer=each.answer,
        example=Example(
            predict=(1,),
            explain=(1,),
            positives=(Rationale(tokens=(*ids(tokenizer, each.positives[0])[:4], 1)),),
        ),
        positives=each.positives,
        negatives=(),
    )
    cut = assemble({0: short}, [], synthetic=synthetic, tokenizer=tokenizer, max_tokens=5)[0]
    assert [r.source for r in cut.example.negatives] == [Source.CORRUPTED]
