"""Votes of a student over its own samples: plain, weighed by a judge, or its best sample alone.

Whoever answers a question by a vote comes here: judging, evaluation, comparison, prediction and the
endpoint. All of them read the answers out of the same samples (Wang et al. 2022, arXiv 2203.11171).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qcrd_ray.data.records import Question
from qcrd_ray.inference.base import Engine
from qcrd_ray.inference.evidence import Evidence, EvidenceReader, feature_names
from qcrd_ray.inference.heads import HeadAnswer, head_prompt, read_answer
from qcrd_ray.inference.likelihood import Likelihood
from qcrd_ray.inference.teacher_likelihood import TeacherLikelihood
from qcrd_ray.inference.transformers_engine import TransformersEngine
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.method.judge import POWER, Judge
from qcrd_ray.method.self_consistency import weigh_votes
from qcrd_ray.recipe import Recipe, ServeTeacher
from qcrd_ray.recipe.judge import EvidenceName, JudgeRecipe
from qcrd_ray.tasks.base import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """The samples of the rationale head for one question, with the evidence on each."""

    answers: tuple[HeadAnswer, ...]
    evidence: tuple[Evidence, ...]

    @property
    def tokens(self) -> int:
        """How many tokens were generated for them."""
        return sum(answer.tokens for answer in self.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """How :func:`sample` draws: the number of samples, and the settings of the engine."""

    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int


def ballot_of(recipe: Recipe) -> Ballot:
    """How a run's recipe has a student sample for a vote."""
    return Ballot(
        samples=recipe.judge.samples,
        temperature=recipe.judge.temperature,
        top_p=recipe.judge.top_p,
        max_tokens=recipe.student.max_target_tokens,
        seed=keyed_seed(recipe.seed, "votes"),
    )


def load_reader(
    recipe: Recipe, task: Task, engine: TransformersEngine, *, base: str | Path | None
) -> EvidenceReader:
    """The reader of what any of the recipe's judges sees, on the engine's own model.

    ``base`` and the teacher are loaded where a judge asks for them.
    """
    options = replace(engine.options, batch_size=recipe.judge.batch_size)
    asked, teacher = recipe.judge.evidence, None
    assert base is not None or "base" not in asked
    if "teacher" in asked:
        assert isinstance(recipe.teacher, ServeTeacher)  # the recipe refuses others
        teacher = TeacherLikelihood.load(recipe.teacher, task, options)
    return EvidenceReader(
        task,
        asked,
        student=Likelihood(engine.model, engine.tokenizer, options),
        base=Likelihood.load(base, options) if base is not None and "base" in asked else None,
        teacher=teacher,
    )


def sample(
    engine: Engine,
    reader: EvidenceReader,
    questions: Sequence[Question],
    *,
    ballot: Ballot,
) -> list[Samples]:
    """Sample the rationale head for each question, and read the evidence, in their order."""
    generated = engine.generate(
        [head_prompt(reader.task, question, head="rationale") for question in questions],
        n=ballot.samples,
        temperature=ballot.temperature,
        top_p=ballot.top_p,
        max_tokens=ballot.max_tokens,
        seed=ballot.seed,
    )
    answers = [
        [read_answer(reader.task, question, text, head="rationale") for text in texts]
        for question, texts in zip(questions, generated, strict=True)
    ]
    return [
        Samples(answers=tuple(each), evidence=tuple(evidence))
        for each, evidence in zip(answers, reader.read(questions, answers), strict=True)
    ]


# --- Reading one answer out of the samples ---


def plain_vote(samples: Samples) -> HeadAnswer:
    """The answer that most samples give, by the first sample that gives it.

    A tie goes to the answer that came first. ``confidence`` is its share of the samples.
    """
    return _winner(samples, [1.0] * len(samples.answers), [1.0] * len(samples.answers))


def judged_vote(samples: Samples, scores: Sequence[float], judge: Judge) -> HeadAnswer:
    """The answer with the largest weight, by its best-scored sample.

    A sample weighs its score to the power of :data:`qcrd_ray.method.judge.POWER`. ``confidence`` is
    the calibrated share.
    """
    chosen = _winner(samples, [score**POWER for score in scores], scores)
    if chosen.answer is None or chosen.confidence is None:
        return chosen
    return replace(chosen, confidence=judge.confidence(chosen.confidence))


def best_sample(samples: Samples, scores: Sequence[float]) -> HeadAnswer:
    """The sample with the best score that holds an answer. ``confidence`` is the score."""
    readable = [
        (score, answer)
        for score, answer in zip(scores, samples.answers, strict=True)
        if answer.answer is not None
    ]
    if not readable:
        return _no_answer(samples)
    score, answer = max(readable, key=lambda pair: pair[0])
    return replace(answer, tokens=samples.tokens, confidence=score)


def winner_share(
    answers: Sequence[str | None], scores: Sequence[float]
) -> tuple[str | None, float]:
    """The answer that wins the judged vote, and its share of the weights.

    (None, 0): no sample holds an answer.
    """
    shares = weigh_votes(answers, [score**POWER for score in scores])
    if not shares:
        return None, 0.0
    answer = max(shares, key=lambda each: shares[each])  # the first of equals
    return answer, shares[answer]


def _winner(samples: Samples, weights: Sequence[float], scores: Sequence[float]) -> HeadAnswer:
    """The answer with the largest weight, shown by the best-scored of its samples."""
    answers = [answer.answer for answer in samples.answers]
    shares = weigh_votes(answers, weights)
    if not shares:
        return _no_answer(samples)
    winner = max(shares, key=lambda each: shares[each])  # the first of equals
    voters = [i for i, answer in enumerate(answers) if answer == winner]
    shown = samples.answers[max(voters, key=lambda i: scores[i])]
    return replace(shown, tokens=samples.tokens, confidence=shares[winner])


def _no_answer(samples: Samples) -> HeadAnswer:
    return replace(samples.answers[0], tokens=samples.tokens, confidence=0.0)


# --- The judges of a student ---


class Judges:
    """Judges by name, each with its own part of the evidence."""

    def __init__(self, judges: Mapping[str, Judge], evidence: Sequence[EvidenceName]) -> None:
        """``evidence``: the inputs that the samples' evidence was read with, in its order."""
        names = feature_names(evidence)
        self.judges = dict(judges)
        self._columns = {
            name: [names.index(feature) for feature in judge.features]
            for name, judge in judges.items()
        }

    @classmethod
    def load(cls, folder: Path, recipe: JudgeRecipe) -> Judges:
        """The judges that training has left in ``folder``, one folder each."""
        return cls({name: Judge.load(folder / name) for name in recipe.all_inputs}, recipe.evidence)

    def scores(self, samples: Sequence[Samples]) -> dict[str, list[list[float]]]:
        """Each judge's score of each sample, ``[questions][samples]``, by the judge's name."""
        return {
            name: judge.score(self.evidence(name, samples)) for name, judge in self.judges.items()
        }

    def evidence(self, name: str, samples: Sequence[Samples]) -> list[list[list[float]]]:
        """What a judge sees, ``[questions][samples][features]``."""
        columns = self._columns[name]
        return [[[row[i] for i in columns] for row in each.evidence] for each in samples]
