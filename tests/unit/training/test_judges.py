"""Which questions a judge learns from, what self-training makes of votes, and what is refused."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from training_tiny import tiny_recipe, write_run

from qcrd_ray.data.records import Outcome, Question, Role
from qcrd_ray.errors import UserError
from qcrd_ray.inference.evidence import feature_names
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.voting import Judges, Samples
from qcrd_ray.method.judge import Judge
from qcrd_ray.training.dataset import TrainingSet
from qcrd_ray.training.judges import check_heads, fit_judges, judge_questions
from qcrd_ray.training.self_training import own_rationales, second_recipe
from qcrd_ray.training.trainer import prepare_job

VOTES = {"judge.samples": 2, "judge.inputs": ["student"]}


def test_the_judge_learns_from_validation_unless_a_share_is_kept(tmp_path):
    folder, recipe = write_run(tmp_path / "run"), tiny_recipe(**VOTES)
    job = prepare_job(recipe, folder, "dss")
    asked = judge_questions(recipe, job.home, job.validation)
    assert len(asked) == 8 and len(TrainingSet(job.data)) == 24


@pytest.mark.parametrize("labels", ["gold", "vote"])
def test_no_question_is_both_the_students_and_the_judges(tmp_path, labels):
    # guards against a judge that reads samples of questions which the student has learnt
    recipe = tiny_recipe(**VOTES, **{"judge.share": 0.4, "judge.labels": labels})
    folder = write_run(tmp_path / "run")
    job = prepare_job(recipe, folder, "dss")
    asked = {each.id for each in judge_questions(recipe, job.home, job.validation)}
    trained = {row.question.id for row in TrainingSet(job.data).rows()}
    assert asked and trained and not asked & trained and len(asked | trained) == 24
    assert len(asked) in range(4, 16), "0.4 of 24"
    dropped = [json.loads(line) for line in (job.home / "data" / "dropped.jsonl").open()]
    assert {row["question_id"] for row in dropped} == asked
    kept = pq.read_table(job.home / "data" / "judge.parquet").column("answer")
    assert None not in kept.to_pylist()


def test_a_share_of_nothing_is_told(tmp_path):
    recipe = tiny_recipe(**VOTES, **{"judge.share": 0.000001})
    job = prepare_job(recipe, write_run(tmp_path / "run"), "dss")
    with pytest.raises(UserError, match=r"judge\.share: 1e-06 of the training questions"):
        judge_questions(recipe, job.home, job.validation)


def test_a_judge_needs_the_heads_it_reads():
    with pytest.raises(UserError, match=r"judge\.samples: finetune trains no rationale head"):
        check_heads(tiny_recipe(**VOTES), "finetune")
    with pytest.raises(UserError, match=r"judge\.inputs: single_task trains no label head"):
        check_heads(tiny_recipe(**VOTES | {"judge.inputs": ["student", "label"]}), "single_task")
    check_heads(tiny_recipe(**VOTES), "single_task")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge.samples": 1}, "one sample is no vote"),
        ({"judge.samples": 4, "judge.labels": "vote"}, "needs a share"),
        ({"judge.samples": 4, "judge.inputs": []}, "a judge without inputs"),
        ({"judge.samples": 4, "judge.others": {"judge": ["steps"]}}, "name it otherwise"),
        ({"self_training.vote": "judged", "judge.samples": 4}, "data.unlabelled"),
        ({"self_training.judge": "sums"}, r"no judge 'sums'; expected one of judge"),
        ({"judge.inputs": ["student", "teacher"]}, "served without its teacher"),
        ({"judge.others": {"it": ["teacher"]}}, "a teacher of source recording gives none"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_recipe(**changes)


def sampled(*answers: str | None, evidence: float = 0.0) -> Samples:
    return Samples(
        answers=tuple(
            HeadAnswer(text=f"{i}: {a}", rationale=f"{i}", answer=a, tokens=2)
            for i, a in enumerate(answers)
        ),
        evidence=tuple((evidence + i, 0.0, 0.0, 0.0) for i in range(len(answers))),
    )


def test_judges_are_saved_with_what_serving_must_know(tmp_path):
    recipe = tiny_recipe(**VOTES, **{"judge.others": {"length": ["student"]}})
    questions = [Question(id=str(i), question="?", answer="1") for i in range(12)]
    samples = [sampled("1", "2", evidence=0.1 * i) for i in range(12)]
    quality = fit_judges(recipe, questions, samples, tmp_path)
    assert set(quality["judges"]) == {"judge", "length"} and quality["questions"] == 12
    assert quality["judges"]["judge"]["auc_within_question"] == 1.0, "the first is always right"
    config = json.loads((tmp_path / "judge" / "config.json").read_text())
    assert config["inputs"] == ["student"] and config["samples"] == 2
    assert config["temperature"] == 1.0
    loaded = Judges.load(tmp_path, recipe.judge)
    (first, second), *_ = loaded.scores(samples)["judge"]
    assert first > second


class Chooses(Judge):
    """Scores a question's samples by hand."""

    def __init__(self, scores):
        super().__init__(feature_names(["student"]), hidden=1)
        self.by_hand = scores

    def score(self, evidence):
        return [list(self.by_hand) for _ in evidence]


def self_training(vote: str, **more):
    return tiny_recipe(
        **VOTES,
        **{"self_training.vote": vote, "data.unlabelled": {"generate": 4}},
        **{"judge.others": {"other": ["student"]}},
        **{f"self_training.{key}": value for key, value in more.items()},
    )


def own(recipe, samples, scores=(0.9, 0.1, 0.1), **others):
    judges = {name: Chooses(by_hand) for name, by_hand in {"judge": scores, **others}.items()}
    judges = Judges(judges, recipe.judge.evidence)
    question = Question(id="q", question="?", answer="8")
    (row,) = own_rationales(recipe, [question], [samples], judges=judges).to_pylist()
    return row


def test_the_votes_winner_makes_the_positives():
    samples = sampled("7", "8", "8")
    judged, plain = own(self_training("judged"), samples), own(self_training("plain"), samples)
    assert (judged["vote"], plain["vote"]) == ("7", "8")
    assert [c["role"] for c in judged["completions"]] == [
        Role.POSITIVE,
        Role.NEGATIVE,
        Role.NEGATIVE,
    ]
    assert [c["role"] for c in plain["completions"]] == [
        Role.NEGATIVE,
        Role.POSITIVE,
        Role.POSITIVE,
    ]
    assert judged["gold"] is None and plain["gold"] is None, "the answer of the data is not read"


def test_another_judge_may_weigh_the_votes_that_are_learnt_from():
    recipe = self_training("judged", judge="other")
    assert own(recipe, sampled("7", "8", "8"), other=(0.1, 0.9, 0.1))["vote"] == "8"


def test_an_unsure_vote_teaches_nothing():
    row = own(self_training("plain", least_confidence=0.9), sampled("7", "8", "8"))
    assert row["outcome"] == Outcome.NO_CONSENSUS and row["vote"] is None and row["reason"]
    assert {c["role"] for c in row["completions"]} == {Role.ABSTAINED}
    silent = own(self_training("plain"), sampled(None, None))
    assert silent["outcome"] == Outcome.NO_CONSENSUS


def test_the_second_training_starts_where_it_is_told(tmp_path):
    recipe = self_training("judged", rounds=3)
    second = second_recipe(recipe, tmp_path)
    assert (second.student.model, second.student.scratch) == (str(tmp_path), None)
    assert second.train.rounds == 3
    assert second_recipe(self_training("judged", start="base"), tmp_path).student == recipe.student
