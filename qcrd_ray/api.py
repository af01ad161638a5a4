"""The package from Python, for a notebook or a script of one's own:

    import qcrd_ray

    recipe = qcrd_ray.load_recipe("recipe.yaml", train={"rounds": 4})
    result = qcrd_ray.run(recipe)
    student = qcrd_ray.load_student(result.folder.student)
    student.predict(["What is 3 + 4?"], rationale=True)

`import qcrd_ray` alone costs no time: Ray, torch and the rest are imported when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe, Section
from qcrd_ray.recipe.file import build_recipe

if TYPE_CHECKING:
    from qcrd_ray.inference import EngineName
    from qcrd_ray.inference.answering import Student
    from qcrd_ray.report.summary import RunResult


def load_recipe(source: str | Path | Mapping[str, Any] | Recipe, /, **changes: Any) -> Recipe:
    """A recipe out of a YAML file, a mapping or another recipe, with some keys changed.

    A section is changed key by key: ``train={"rounds": 4}`` leaves its other keys as they are.
    ``train__rounds=4`` is the same, and so is ``**{"train.rounds": 4}``.

    Raises:
        UserError: names each wrong key, where it stands, and what was expected.
    """
    tree = source.model_dump(mode="json", by_alias=True) if isinstance(source, Recipe) else source
    return build_recipe(
        tree, {key.replace("__", "."): _plain(value) for key, value in changes.items()}
    )


def run(recipe: Recipe | str | Path | Mapping[str, Any], /) -> RunResult:
    """Run all stages, as `qcrd run` does; what is finished in the run folder is not done again.

    Ray stays connected, so that the next call need not start it.

    Returns:
        The run folder, the measured accuracies, and one answered question.

    Raises:
        UserError: a mistake in the recipe, the data, the models or the cluster's size.
    """
    from qcrd_ray import pipeline
    from qcrd_ray.runs.progress import Stages

    return pipeline.run(load_recipe(recipe), Stages())


def load_student(
    folder: str | Path,
    /,
    *,
    engine: EngineName | Literal["auto"] = "auto",
    trust_task: bool = False,
) -> LoadedStudent:
    """The student of a folder that a run exported, in this process and without Ray.

    Args:
        engine: what generates the texts; auto: what fits the model.
        trust_task: import the module of a task of the student's own.

    Raises:
        UserError: it is no student folder, or the engine cannot run it.
    """
    from qcrd_ray.inference.answering import Student
    from qcrd_ray.models.student_folder import StudentFolder

    return LoadedStudent(Student(StudentFolder.open(folder, trust_task=trust_task), engine=engine))


class LoadedStudent:
    """A student in memory. ``student`` is what the endpoint works with too."""

    def __init__(self, student: Student) -> None:
        self.student = student

    def predict(
        self,
        questions: Sequence[str | Mapping[str, Any]],
        /,
        *,
        rationale: bool = False,
        quality: bool = False,
        samples: int | None = None,
        vote: Literal["plain", "judged"] | None = None,
    ) -> list[dict[str, Any]]:
        """The answer to each question, with the names that `qcrd predict` writes.

        Args:
            questions: texts, or rows with `question`, and `choices` and `id` where there are some.
            rationale: also write the reasoning, and the answer that it ends in.
            quality: also score the reasoning by the discriminator; it is then written too.
            samples: let so many sampled rationales vote.
            vote: plain or judged; None: judged where the folder has a judge.

        Raises:
            UserError: a question cannot be used (names its place and why), or the folder lacks the
                discriminator or the judge that is asked for.
        """
        from qcrd_ray.data.json_lines import Line
        from qcrd_ray.prediction.worker import PredictOptions, answer, read_question
        from qcrd_ray.tasks.spool import Rejected

        if isinstance(questions, str | Mapping):
            raise UserError("predict takes a list of questions; put the one into brackets")
        if quality and self.student.scorer is None:
            raise UserError("quality: the student's folder holds no discriminator")
        if vote == "judged" and self.student.judge is None:
            raise UserError("vote='judged': the student's folder holds no judge")
        options = PredictOptions(rationale=rationale, quality=quality, samples=samples, vote=vote)
        read = []
        for place, each in enumerate(questions):
            row = {"question": each} if isinstance(each, str) else dict(each)
            question = read_question(Line(place, row, "", ""), self.student.folder, options)
            if isinstance(question, Rejected):
                raise UserError(f"questions[{place}]: {question.reason}")
            read.append(question)
        return answer(self.student, read, options)


def _plain(value: Any) -> Any:
    """A section or a path as a recipe's file holds it."""
    if isinstance(value, Section):
        return value.model_dump(mode="json", by_alias=True)
    return str(value) if isinstance(value, Path) else value
