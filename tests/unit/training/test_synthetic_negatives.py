"""Negatives that are made, and what becomes of a student's right samples: nothing right among what
is made, and the same for ever.
"""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from training_tiny import rationale_set, tiny_recipe, write_run

from qcrd_ray.data.records import Question, StudentNegative
from qcrd_ray.demo.tokenizer import build_tokenizer
from qcrd_ray.doctor import recipe_checks
from qcrd_ray.doctor.questions import Questions
from qcrd_ray.errors import UserError
from qcrd_ray.method.examples import Example, Rationale, Source
from qcrd_ray.method.tokenization import unknown_tokens
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.steps import check_steps, corrupted
from qcrd_ray.tasks.word_problems import generate
from qcrd_ray.training.dataset import Row, TrainingSet, assemble, count_sources
from qcrd_ray.training.start_models import train_tokenizer
from qcrd_ray.training.synthetic_negatives import (
    balancing_numbers,
    check_rows,
    synthesize_negatives,
)
from qcrd_ray.training.trainer import prepare_job

MADE = {"negatives.corrupted": 2, "negatives.evolved": 1}


@cache
def demo_tokenizer():
    return build_tokenizer(ends_input=True, max_tokens=192)


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


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([text for each in ROWS for text in (*each.positives, each.input)], 320)


def test_what_is_made_is_wrong_new_and_as_many_as_asked(tokenizer):
    recipe = tiny_recipe(**MADE)
    task = build_task(recipe.task)
    whole = 0
    for each in ROWS:
        synthetic = synthesize_negatives(recipe, task, tokenizer, each, round=0)
        texts = [text for text, _ in synthetic]
        assert len(set(texts)) == len(texts) and not set(texts) & {*each.positives, *each.negatives}
        for text, source in synthetic:
            assert task.parse(text, each.question).answer not in (each.answer, None)
            steps = check_steps(text)
            assert steps.total - steps.right == (source == Source.CORRUPTED), (text, source)
        whole += [source for _, source in synthetic] == [Source.CORRUPTED] * 2 + [Source.EVOLVED]
    assert whole >= 0.9 * len(ROWS)


def test_it_hangs_on_seed_question_and_round_alone(tokenizer):
    """A resumed round must train on what it trained on; the next round on something else."""
    recipe = tiny_recipe(**MADE)
    task = build_task(recipe.task)
    first, again, later, other = (
        [synthesize_negatives(settings, task, tokenizer, each, round=round) for each in ROWS]
        for settings, round in (
            (recipe, 0),
            (recipe, 0),
            (recipe, 1),
            (tiny_recipe(**MADE, seed=1), 0),
        )
    )
    assert first == again and first != later and first != other
    fewer = synthesize_negatives(
        tiny_recipe(**{"negatives.evolved": 1}), task, tokenizer, ROWS[0], round=0
    )
    assert fewer == first[0][2:], "one source's draws are not the other's"


def test_a_wrong_vote_is_not_corrected_by_accident(tokenizer):
    """The positives say 7, the label 9: a corruption to 9 would teach that the label is wrong."""
    question = Question(id="q", question="Tom has 3 pens and 4 books. How many things?")
    recipe = tiny_recipe(**{"negatives.corrupted": 8})
    task, given = (
        build_task(recipe.task),
        row(question, positives=("3 + 4 = 7 things. So the answer is 7.",), answer="9"),
    )
    synthetic = [text for text, _ in synthesize_negatives(recipe, task, tokenizer, given, round=0)]
    assert len(synthetic) >= 6 and not any(text.endswith(("is 7.", "is 9.")) for text in synthetic)


def test_without_positives_or_without_a_source_nothing_is_made(tokenizer):
    task = build_task(tiny_recipe().task)
    assert (
        synthesize_negatives(
            tiny_recipe(**MADE), task, tokenizer, row(ROWS[0].question, positives=()), round=0
        )
        == []
    )
    assert synthesize_negatives(tiny_recipe(), task, tokenizer, ROWS[0], round=0) == []


@pytest.mark.parametrize("kind", ["multiple_choice", "nli"])
def test_a_task_without_numbers_is_refused_before_anything_is_asked(kind):
    recipe = tiny_recipe(
        **{"negatives.evolved": 1, "task.kind": kind, "data.train": {"path": "q.jsonl"}}
    )
    with pytest.raises(
        UserError, match=rf"negatives.evolved: the answers of {kind} are no numbers"
    ):
        recipe_checks.checks_of(recipe, Questions(recipe))["negatives"]()
    made = tiny_recipe(**MADE)
    told = recipe_checks.checks_of(made, Questions(made))["negatives"]()
    assert told == "positives are also corrupted and evolved"


def test_a_source_that_could_make_nothing_is_refused(tokenizer):
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
        check_rows(recipe, build_task(recipe.task), tokenizer, lambda: iter(bare))
    check_rows(recipe, build_task(recipe.task), tokenizer, lambda: iter([*bare, ROWS[0]]))


def test_the_training_set_is_asked_once_it_is_prepared(tmp_path):
    """Through the trainer: rows are read in order, all of them."""
    job = prepare_job(tiny_recipe(**MADE), write_run(tmp_path), "redi")
    assert [each.question.id for each in TrainingSet(job.data).rows()] == sorted(
        rationale_set(q, 0).question_id for q in generate(24, seed=1)
    )


def test_the_demo_s_vocabulary_is_not_left():
    """Bug guarded: a fifth of the demo's corrupted positives held `<unk>` ("32 / 2 = 96"), and the
    discriminator learnt to see that token instead of the error.
    """
    recipe = tiny_recipe(**{"negatives.corrupted": 4})
    task, demo = build_task(recipe.task), demo_tokenizer()
    assert unknown_tokens(demo, "32 / 2 = 96.") == 1 and unknown_tokens(demo, "32 / 2 = 16.") == 0
    spilt = sum(
        unknown_tokens(demo, corrupted(each.positives[0], None, Random(seed)) or "") > 0
        for each in ROWS
        for seed in range(4)
    )
    assert spilt > 0, "else this test could not fail"
    made = [
        text for each in ROWS for text, _ in synthesize_negatives(recipe, task, demo, each, round=0)
    ]
    assert len(made) >= 3.5 * len(ROWS) and not any(unknown_tokens(demo, text) for text in made)


def test_a_positive_s_own_unknown_words_are_no_reason_to_leave_it_out():
    recipe = tiny_recipe(**{"negatives.corrupted": 1})
    task, demo = build_task(recipe.task), demo_tokenizer()
    each = row(
        Question(id="q", question="Zebedee has 3 pens and 4 books. How many things?", answer="7"),
        positives=("Zebedee: 3 + 4 = 7 things. So the answer is 7.",),
    )
    ((text, _),) = synthesize_negatives(recipe, task, demo, each, round=0)
    assert unknown_tokens(demo, text) == unknown_tokens(demo, each.positives[0]) > 0


# ------------------------------------------------------------------------------
# for the discriminator alone


def balanced(each: Row, positives, negatives, **changes) -> list[str]:
    task = build_task(tiny_recipe().task)
    demo = demo_tokenizer()
    settings = {"seed": 0, "key": ("round 0", 0, each.question.id)} | changes
    return balancing_numbers(positives, negatives, task=task, tokenizer=demo, row=each, **settings)


def test_hard_negatives_balance_the_sides_and_are_wrong_in_every_way():
    """Each is in the vocabulary and ends in a wrong answer; wrong steps and operations occur."""
    task, demo = build_task(tiny_recipe().task), demo_tokenizer()
    wrong_steps, signs, lengths = set(), set(), set()
    for each in ROWS:
        (positive,) = each.positives
        made = balanced(each, [positive, f"There. {positive}"], [])
        lengths.add(len(made))
        for text in made:
            assert task.parse(text, each.question).answer not in (each.answer, None)
            assert not unknown_tokens(demo, text)
            steps = check_steps(text)
            wrong_steps.add(steps.total - steps.right)
            signs.add([c for c in text if c in "+-*/"] == [c for c in positive if c in "+-*/"])
    assert wrong_steps == {0, 1} and signs == {True, False} and lengths <= {1, 2}
    (positive,) = ROWS[0].positives
    assert balanced(ROWS[0], [positive], ["It is 1."]) == []
    assert balanced(ROWS[0], [positive], []) == balanced(ROWS[0], [positive], [])
    assert balanced(ROWS[0], [positive], []) != balanced(ROWS[0], [positive], [], seed=1)


def test_numbers_for_a_task_without_any_are_refused():
    recipe = tiny_recipe(
        **{
            "discriminator.augment": "numbers",
            "task.kind": "nli",
            "data.train": {"path": "q.jsonl"},
        }
    )
    with pytest.raises(UserError, match=r"discriminator.augment: .* set it to words or none"):
        recipe_checks.checks_of(recipe, Questions(recipe))["negatives"]()


# ------------------------------------------------------------------------------
# in a round, beside the student's


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
