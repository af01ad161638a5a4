"""The scores that a round leaves for the report: whose they are, the same questions every round,
and nothing of what was not scored.
"""

from dataclasses import replace

import pytest

from qcrd_ray.data.records import Question, ScoredAs
from qcrd_ray.method.examples import Example, Rationale, Source
from qcrd_ray.training.dataset import RoundQuestion, Row
from qcrd_ray.training.discriminator_learner import score_metrics
from qcrd_ray.training.metrics import KEPT_QUESTIONS, keep_scores, read_scores


def round_question(number, *, shift=0.0):
    """One positive, one of the teacher's minority, one of the student's that is right."""
    positive = Rationale(tokens=(1,), score=0.9 - shift)
    minority = Rationale(tokens=(2,), score=0.5 - shift)
    student = Rationale(tokens=(3,), source=Source.STUDENT, score=0.25 - shift)
    example = Example(
        predict=(7,), explain=(8,), positives=(positive,), negatives=(minority, student)
    )
    question = Question(id=f"q{number}", question=f"How many, {number}?")
    row = Row(
        question=question,
        input="",
        answer="1",
        example=example,
        positives=("yes",),
        negatives=("no",),
    )
    return RoundQuestion(
        row=row,
        example=example,
        texts={(1,): "yes", (2,): "no", (3,): "perhaps"},
        right={(3,): True},
    )


def test_scores_are_read_back_by_round_with_their_source(tmp_path):
    keep_scores(tmp_path, 0, [round_question(0)], seed=0)
    keep_scores(tmp_path, 3, [round_question(0, shift=0.125)], seed=0)
    found = read_scores(tmp_path)
    assert list(found) == [0, 3]
    assert [(each.scored_as, each.text, each.right) for each in found[0]] == [
        (ScoredAs.TEACHER_POSITIVE, "yes", None),
        (ScoredAs.TEACHER_MINORITY, "no", None),
        (ScoredAs.STUDENT, "perhaps", True),
    ]
    assert found[3][2].score == 0.125 and found[0][0].question == "How many, 0?"
    assert read_scores(tmp_path / "nothing") == {}


def test_aucs_within_a_source_and_within_a_question():
    """Scores that follow the question's difficulty alone rank well over all questions and not at
    all within one.
    """

    def question(easy, *, student_right):
        scores = {
            "positive": 0.9,
            "minority": 0.9,
            "corrupted": 0.6,
            "student": 0.8 if student_right else 0.3,
        }
        made = {
            name: Rationale(tokens=(i,), score=score - 0.5 * (not easy))
            for i, (name, score) in enumerate(scores.items())
        }
        corrupted, student = (
            replace(made["corrupted"], source=Source.CORRUPTED),
            replace(made["student"], source=Source.STUDENT),
        )
        sides = ((made["positive"],), (made["minority"], corrupted, student))
        example = Example(predict=(7,), explain=(8,), positives=sides[0], negatives=sides[1])
        return replace(round_question(0), example=example, right={student.tokens: student_right})

    found = score_metrics(
        [
            question(True, student_right=True),
            question(False, student_right=False),
            question(False, student_right=True),
        ]
    )
    assert found["auc_teacher"] == found["auc_teacher_within_question"] == 0.5
    assert (
        found["auc_corrupted"] == pytest.approx(7 / 9)
        and found["auc_corrupted_within_question"] == 1.0
    )
    assert found["auc_student"] == 1.0 and "auc_student_within_question" not in found, (
        "one sample a question"
    )
    assert found["auc_teacher_against_student_within_question"] == 1.0
    assert not {"auc_evolved", "auc_evolved_within_question"} & found.keys()


def test_a_students_right_sample_is_judged_on_either_side():
    """Bug guarded: where right samples are positives, the teacher's AUC took them for the
    teacher's.
    """
    question = round_question(0)
    minority, student = question.example.negatives
    moved = replace(
        question,
        example=replace(
            question.example,
            positives=(*question.example.positives, student),
            negatives=(minority,),
        ),
    )
    assert score_metrics([question]) == score_metrics([moved])


def test_the_same_sample_of_questions_is_kept_whatever_their_order(tmp_path):
    """Bug guarded: boxes that move from round to round because other questions are in them."""
    questions = [round_question(number) for number in range(KEPT_QUESTIONS + 100)]
    keep_scores(tmp_path, 0, questions, seed=0)
    keep_scores(tmp_path, 1, questions[::-1], seed=0)
    keep_scores(tmp_path / "other", 0, questions, seed=1)
    kept = {
        round: {scored.question_id for scored in rows}
        for round, rows in read_scores(tmp_path).items()
    }
    assert kept[0] == kept[1] and len(kept[0]) == KEPT_QUESTIONS
    assert kept[0] != {scored.question_id for scored in read_scores(tmp_path / "other")[0]}
