"""Whether recipe, questions, task and recording fit together: what a run would find out late.

A check returns lines about what it found, or raises :class:`UserError` with what to do. Lines that
begin with WARNING tell of a run that works, and hardly as it was meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing

from qcrd_ray.data.records import Question
from qcrd_ray.doctor.questions import Questions
from qcrd_ray.errors import UserError, headline
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.recipe import Recipe, RecordedTeacher
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.thinking import read_completion
from qcrd_ray.teacher import RecordingIndex

LOOKED_AT = 2_000  # questions of which a recording is searched
PARSED = 50  # texts of a recording that are read
TRIED = 200  # questions that a task of one's own is tried on


def check_task(recipe: Recipe, questions: Questions) -> str:
    """A task of the user's own takes its own spellings back, and none of its methods fails.

    The built-in kinds have tests for that.
    """
    if ":" not in recipe.task.kind:
        return recipe.task.kind
    task, tried = build_task(recipe.task), questions.first("train", TRIED)
    for question in tried:
        for name, method in _methods(task, question).items():
            try:
                wrong = method()
            except Exception as error:  # whatever the user's own code raises
                raise UserError(
                    f"task.kind: {recipe.task.kind}.{name} fails at question {question.id!r}:"
                    f" {headline(error)}"
                ) from error
            if wrong:
                raise UserError(
                    f"task.kind: {recipe.task.kind}: {wrong} (question {question.id!r})"
                )
    return f"{recipe.task.kind}, tried on {len(tried):,} questions"


def check_recording(recipe: Recipe, questions: Questions) -> str:
    """A recording has enough completions of the questions, and the task can read them.

    Raises:
        UserError: more questions than `generation.max_failed_share` have too few for a vote, or no
            text of a sample can be read.
    """
    if not isinstance(recipe.teacher, RecordedTeacher):
        return "the teacher is none"
    asked = questions.first("train", LOOKED_AT)
    if not asked:
        return "not looked at, since there are no questions"
    try:
        index = RecordingIndex.build(recipe.teacher)
    except UserError:
        return "not looked at, since it cannot be read (teacher)"
    with closing(index):
        return _check_completions(recipe, recipe.teacher.path, index, asked)


def _check_completions(
    recipe: Recipe, file: str, index: RecordingIndex, asked: Sequence[Question]
) -> str:
    counts = [len(index.completions(question.id)) for question in asked]
    k, least = recipe.sampling.k, min(counts)
    recorded = f"{least}" if least == max(counts) else f"{least} to {max(counts)}"
    lines = [f"{recorded} completions a question, of {len(asked):,} questions"]
    missing, few = counts.count(0), sum(0 < count < k for count in counts)
    if missing:
        without = [each.id for each, count in zip(asked, counts, strict=True) if not count]
        lines.append(
            f"WARNING: {missing:,} questions have no completion, and will fail: such as"
            f" {', '.join(map(repr, without[:3]))} (data.columns.id, teacher.columns.id)"
        )
    if few:
        what = "vote over those" if recipe.vote.incomplete == "vote" else "fail (vote.incomplete)"
        lines.append(
            f"WARNING: {few:,} questions have fewer than sampling.k = {k} completions, and will"
            f" {what}"
        )
    failing = missing + (few if recipe.vote.incomplete == "failed" else 0)
    if failing > recipe.generation.max_failed_share * len(asked):
        most = max(counts)
        advice = (
            f"set sampling.k to {most} or less, or vote.incomplete to vote"
            if few and most < k
            else "set vote.incomplete to vote, record more, or see that the ids are the same"
        )
        raise UserError(
            f"teacher.path: {failing:,} of {len(asked):,} questions have fewer than sampling.k ="
            f" {k} completions in {file} (at most {most}), and would fail: {advice}"
        )
    return "\n".join([*lines, *_read_sample(recipe, index, asked)])


def check_plan(recipe: Recipe, questions: Questions) -> str:
    """The numbers of the training fit each other and the data.

    Raises:
        UserError: the method learns from wrong rationales, and the recipe lets none come up.
    """
    count = questions.count("train")
    train, negatives = recipe.train, recipe.negatives
    lines = [f"{train.rounds} rounds of batches of {train.batch_size} out of {count:,} questions"]
    if 0 < count < train.batch_size:
        lines.append(
            f"WARNING: train.batch_size {train.batch_size} is above the {count:,} training"
            " questions: each step reads some of them twice"
        )
    if not OBJECTIVES[recipe.objective.name].uses_negatives:
        return "\n".join(lines)
    made = negatives.student or negatives.corrupted or negatives.evolved
    if recipe.sampling.k == 1 and negatives.teacher:
        said = (
            f"sampling.k: one sample a question has no minority, and {recipe.objective.name} learns"
            " from the teacher's minority (negatives.teacher): ask for 3 or more"
        )
        if not made and recipe.objective.beta:
            raise UserError(f"{said}; there are no other wrong rationales")
        lines.append(f"WARNING: {said}")
    elif not negatives.teacher and not made and recipe.objective.beta:
        raise UserError(
            f"negatives: {recipe.objective.name} learns from wrong rationales, and all sources of"
            " them are off: turn negatives.teacher or negatives.student on, or set objective.beta"
            " to 0"
        )
    if negatives.student and recipe.lag >= train.rounds:
        what = (
            "all are the untrained student's" if negatives.before_lag == "oldest" else "none come"
        )
        lines.append(
            f"WARNING: negatives.lag {recipe.lag} is not below the {train.rounds} train.rounds, so"
            f" of the student's samples {what}: give a smaller lag, or `auto`"
        )
    return "\n".join(lines)


def _methods(task: Task, question: Question) -> dict[str, Callable[[], str]]:
    """Calls of a task's methods by name; each returns what is wrong with the result, or ""."""

    def asks() -> str:
        task.student_input(question)
        task.teacher_prompt(question)
        task.describe()
        return "" if task.teacher_messages(question) else "teacher_messages gives none"

    def parses() -> str:
        task.parse("", question)
        return ""

    calls = {"teacher_messages": asks, "parse": parses}
    if (answer := question.answer) is None:
        return calls

    def spells() -> str:
        again = task.canonical(answer, question)
        return (
            ""
            if again == answer
            else (
                f"canonical must take its own spelling back unchanged, and makes {again!r} of its"
                f" own {answer!r}"
            )
        )

    def labels() -> str:
        label = task.label(answer, question)
        again = task.canonical(label, question)
        return (
            ""
            if again == answer
            else (
                f"canonical must read label back: label({answer!r}) is {label!r}, which it reads as"
                f" {again!r}"
            )
        )

    def explains() -> str:
        text = task.explanation("I think so.", answer, question)
        again = task.parse(text, question).answer
        return (
            ""
            if again == answer
            else (
                f"parse must read explanation back: it reads {again!r} from {text!r}, which was"
                f" made for {answer!r}"
            )
        )

    return calls | {"canonical": spells, "label": labels, "explanation": explains}


def _read_sample(recipe: Recipe, index: RecordingIndex, asked: Sequence[Question]) -> list[str]:
    """How many texts of a sample can be read: one of each of some questions, far apart."""
    task, reasons, texts, example = build_task(recipe.task), Counter[str](), 0, ""
    recorded = (question for question in asked[:: max(1, len(asked) // PARSED)])
    for question in recorded:
        for completion in index.completions(question.id)[:1]:
            texts += 1
            marks = recipe.task.thinking
            _, parsed = read_completion(completion.text, task, question, marks=marks)
            if parsed.answer is None:
                reasons[parsed.reason] += 1
                example = example or completion.text
    unread = reasons.total()
    line = f"of {texts} texts {texts - unread} can be read"
    if not unread:
        return [line]
    said = f"{line}; the others: {reasons.most_common(1)[0][0]}, such as ...{example[-80:]!r}"
    if unread == texts:
        raise UserError(
            f"teacher.path: {said}\nSee that task.kind ({recipe.task.kind}) and"
            " teacher.columns.completion are the right ones; `qcrd parse` shows what is read"
        )
    return [f"WARNING: {said}" if 2 * unread > texts else said]
