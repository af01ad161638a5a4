"""What a report says, counted by hand on a folder of known numbers
(tests/support/report_tiny.py).
"""

import json

import pytest
from report_tiny import add_rows, add_training, begin, whole_run

from qcrd_ray.data.records import Outcome, Role, ScoredAs
from qcrd_ray.evaluation.predictions import mcnemar, pair
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.report.effort import stage_seconds, work
from qcrd_ray.report.examples import differences, extremes
from qcrd_ray.report.judge import read_judges, reliability
from qcrd_ray.report.measured import (
    GivenAnswer,
    Measured,
    agreements,
    comparisons,
    opponents,
    read_measured,
)
from qcrd_ray.report.rationales import bins, read_rows, rows_section
from qcrd_ray.report.rounds import read_training
from qcrd_ray.report.scores import percentiles, score_boxes
from qcrd_ray.report.summary import asked_lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return whole_run(tmp_path_factory.mktemp("report") / "run")


def rows_of(folder):
    return read_rows(load_recipe(folder.recipe), folder, "train")


def test_the_funnel_adds_up(folder):
    rows = rows_of(folder)
    assert rows.read == 22 and rows.pending == 3
    assert sum(rows.outcomes.values()) + rows.pending == rows.read
    assert rows.outcomes[Outcome.REJECTED_INPUT] == 6, (
        "five could not be read, one was refused by the teacher"
    )
    assert rows.steps == [
        ("read", 22),
        ("asked", 13),
        ("answered", 11),
        ("parsed", 10),
        ("voted", 6),
    ]
    assert rows.outcomes[Outcome.ACCEPTED] == 6
    assert (
        rows.roles == {Role.POSITIVE: 12, Role.NEGATIVE: 6, Role.ABSTAINED: 15}
        and rows.tokens == 330
    )


def test_samples_asked_are_told_where_they_are_fewer(folder, tmp_path):
    """11 questions have 3 samples each, of 5; failed and refused ones do not count."""
    assert rows_of(folder).asked == ""
    adaptive = begin(tmp_path / "run", **{"sampling.adaptive": {}})
    add_rows(adaptive)
    said = "33 of 5 x 11 samples asked (60 %), since a settled vote needs no more"
    assert rows_of(adaptive).asked == said
    assert said in rows_section([rows_of(adaptive)])
    counts = {"samples_asked": 33, "samples_saved": 22}
    (adaptive.rationales("train") / "manifest.json").write_text(json.dumps(counts))
    assert asked_lines(load_recipe(adaptive.recipe), adaptive) == [said]


def test_a_file_that_a_killed_run_was_writing_is_not_read(tmp_path):
    """Bug guarded: a report on a folder whose generation was killed died of half a Parquet file."""
    folder = begin(tmp_path / "run")
    add_rows(folder)
    home = folder.rationales("train")
    (home / "rows" / "00000").mkdir()
    (home / "rows" / "00000" / ".000000.parquet.writing").write_bytes(b"PAR1 half a file")
    assert rows_of(folder).pending == 3


def test_votes_by_share(folder):
    found = bins(rows_of(folder).votes)
    assert [(round(each.high, 1), each.right, each.wrong) for each in found] == [
        (0.6, 1, 2),
        (0.7, 0, 0),
        (0.8, 0, 0),
        (0.9, 0, 0),
        (1.0, 3, 0),
    ]
    assert found[0].measured.total == 3 and found[0].measured.low < 1 / 3 < found[0].measured.high
    assert found[1].measured is None


def test_a_share_on_a_bin_s_edge_belongs_below_it():
    """Bug guarded: 3/5 is 0.6 and 0.1 * 6 is not."""
    assert [round(bins([(share, None)])[0].high, 1) for share in (0.2, 0.1 * 3, 0.6, 0.7, 1.0)] == [
        0.2,
        0.3,
        0.6,
        0.7,
        1.0,
    ]
    assert bins([]) == []


def test_curves_count_rounds_from_one_and_leave_out_what_is_not_there(folder):
    own = read_training(folder, "qcrd")
    assert own.curve("student", "prediction") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert own.curve("student", "nothing") == [] and own.curve("nothing", "at", "all") == []
    assert read_training(folder, "another") is None


def test_score_boxes_are_the_teacher_s_last_and_the_student_s_by_round(folder):
    boxes = score_boxes(read_training(folder, "qcrd").scores)
    assert [(box.scored_as, box.round, box.count) for box in boxes] == [
        (ScoredAs.TEACHER_POSITIVE, None, 3),
        (ScoredAs.TEACHER_MINORITY, None, 3),
        (ScoredAs.STUDENT, 1, 3),
        (ScoredAs.STUDENT, 2, 3),
        (ScoredAs.STUDENT, 3, 3),
    ]
    assert boxes[0].percentiles[2] == pytest.approx(0.7), "the median of 1.0, 0.7 and 0.4"


def test_many_rounds_give_few_boxes_and_the_last_is_among_them(tmp_path):
    folder = begin(tmp_path / "run")
    add_training(folder, rounds=31)
    rounds = [box.round for box in score_boxes(read_training(folder, "qcrd").scores) if box.round]
    assert len(rounds) <= 12 and rounds[-1] == 31 and rounds == sorted(rounds)


def test_percentiles():
    assert percentiles([4.0]) == (4.0,) * 5
    assert percentiles(list(range(101))) == (5, 25, 50, 75, 95)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),
        (5, 0, 0.0625),
        (0, 5, 0.0625),
        (1, 1, 1.0),
        (10, 2, 0.03857421875),
        (600, 600, 1.0),
    ],
)
def test_mcnemar_s_exact_test(only_first, only_second, p):
    assert mcnemar(only_first, only_second) == pytest.approx(p)


def test_pairs_are_counted_and_must_be_of_the_same_questions():
    assert pair(
        {"a": True, "b": True, "c": False, "d": False},
        {"d": False, "c": True, "b": False, "a": True},
    )[:4] == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="2 questions"):
        pair({"a": True}, {"b": True})


def test_models_are_compared_on_the_same_questions(folder):
    found = {(each.first, each.second): each.counts for each in comparisons(read_measured(folder))}
    counts = found[("student", "rationale"), ("finetune", "label")]
    assert counts[:4] == (2, 5, 2, 1)
    assert (
        ("student", "rationale"),
        ("student base", "rationale"),
    ) not in found, "the base was not measured"


def test_every_baseline_is_an_opponent_by_the_same_head_or_the_only_one_it_has():
    rows = [
        {"name": name, "head": head}
        for name, head in (("finetune", "label"), ("dss", "label"), ("dss", "rationale"))
    ]
    rows += [{"name": "student", "head": head} for head in ("label", "rationale")] + [
        {"name": "teacher, voted", "head": "vote"}
    ]
    found = opponents(Measured(results={"rows": rows}, answers={}))
    assert found == [
        (("student", "label"), ("finetune", "label")),
        (("student", "rationale"), ("finetune", "label")),
        (("student", "label"), ("dss", "label")),
        (("student", "rationale"), ("dss", "rationale")),
        (("student", "rationale"), ("student", "label")),
    ]


def test_the_judged_vote_is_compared_with_what_it_must_beat(folder):
    """Its plain vote and the greedy rationale; never the ceiling, which is no result."""
    measured = read_measured(folder)
    assert (measured.samples, measured.judged_vote) == (4, "judged vote of 4")
    votes = [each for each in opponents(measured) if each[0][1] == "judged vote of 4"]
    assert [second for _, (_, second) in votes] == ["rationale", "vote of 4"]
    found = {
        each.second[1]: each.counts for each in comparisons(measured) if each.first[1][0] == "j"
    }
    assert found["rationale"][:4] == (7, 1, 0, 2) and found["vote of 4"][:4] == (6, 2, 0, 2)
    assert not any("any of" in head for pair in opponents(measured) for _, head in pair)


def test_votes_by_confidence(folder):
    """Eight at 95 % are all right, two at 15 % both wrong; the plain vote says 65 % of all ten."""
    answers = read_measured(folder).answers
    low, high = reliability(answers["student", "judged vote of 4", "test"].values())
    assert (low.low, low.high, low.right.correct, low.right.total) == (0.1, 0.2, 0, 2)
    assert (high.low, high.high, high.right.correct, high.right.total) == (0.9, 1.0, 8, 8)
    assert high.confidence == pytest.approx(0.95)
    (plain,) = reliability(answers["student", "vote of 4", "test"].values())
    assert plain.confidence == pytest.approx(0.65) and plain.right.accuracy == 0.6
    assert reliability(answers["student", "rationale", "test"].values()) == [], "no vote"


def test_a_certain_vote_is_in_the_last_bin():
    """Bug guarded: 1.0 in a bin of its own beyond the axis."""
    answer = GivenAnswer(answer="7", gold="7", right=True, text=None, confidence=1.0)
    assert [(each.low, each.high) for each in reliability([answer])] == [(0.9, 1.0)]


def test_agreement_of_the_heads(folder):
    (found,) = agreements(read_measured(folder))
    assert (
        found.total,
        found.alike,
        found.alike_right,
        found.only_rationale_right,
        found.only_label_right,
    ) == (10, 6, 3, 4, 0)


def test_examples_of_both_ends_of_the_scale(folder):
    round, best, worst = extremes(read_training(folder, "qcrd"))
    assert round == 3
    assert [scored.question_id for scored in best] == ["q0", "q1", "q2", "q3", "q4"]
    assert [scored.question_id for scored in worst] == ["q8", "q7", "q6", "q5", "q4"]


def test_differing_questions_are_drawn_alike_every_time(folder):
    measured = read_measured(folder)
    ask = {"first": ("student", "rationale"), "second": ("finetune", "label")}
    first, second = differences(folder, measured, seed=0, **ask)
    assert {each.question_id for each in first} == {f"t{i}" for i in range(5)}
    assert {each.question_id for each in second} == {"t7", "t8"}
    assert differences(folder, measured, seed=0, **ask) == (first, second)


def test_time_and_tokens(folder):
    assert stage_seconds(folder) == {"rationales": 30.0, "qcrd": 90.0}
    done = {(each.stage, each.part): each for each in work(folder, [read_training(folder, "qcrd")])}
    asking = done["rationales", "asking train"]
    assert (asking.seconds, asking.tokens_in, asking.tokens_out) == (4.0, 200, 120), "two calls"
    assert (done["qcrd", "student"].seconds, done["qcrd", "student"].tokens_in) == (6.0, 300)
    judged = work(folder, [], read_judges(folder.training("qcrd")))[-1]
    assert (judged.stage, judged.seconds) == ("judge", 12.0)
