"""A student folder in memory: batches of queries in, predictions out. No HTTP here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from qcrd_ray.engines import load_engine
from qcrd_ray.heads import ask
from qcrd_ray.method.discriminator import Discriminator
from qcrd_ray.method.tokenising import tokenise_pairs
from qcrd_ray.model_folder import pick_device
from qcrd_ray.serving.messages import Prediction, Query
from qcrd_ray.student_folder import StudentFolder


class Student:
    """Answers queries with the model, and scores rationales with the discriminator, of ``folder``."""

    def __init__(self, folder: StudentFolder, *, device: str = "auto", batch_size: int = 32) -> None:
        self.folder, self.task = folder, folder.task
        facts = folder.facts
        self.max_tokens: int = facts["max_target_tokens"]
        self.engine = load_engine(folder.path, device=device, batch_size=batch_size, max_input_tokens=facts["max_input_tokens"])
        self.judge = Judge(folder.discriminator, device=device) if folder.discriminator else None

    def refusal(self, query: Query) -> str:
        """Why this query cannot be answered, in words for who sent it; "" where it can."""
        longest = self.task.recipe.max_question_chars
        if len(query.question) > longest:
            return f"the question has {len(query.question):,} characters; at most {longest:,} are taken"
        if query.quality and self.judge is None:
            return "quality: this student folder holds no discriminator, so nothing can score its rationales"
        return self.task.check(query.as_question())

    def answer(self, queries: Sequence[Query]) -> list[Prediction]:
        """One prediction for each query, in their order. Queries must have passed :meth:`refusal`."""
        questions = [query.as_question() for query in queries]
        labels = ask(self.engine, self.task, questions, head="label", max_tokens=self.max_tokens)
        predictions = [Prediction(label=label.answer, text=label.text) for label in labels]
        explained = [i for i, query in enumerate(queries) if query.rationale or query.quality]
        written = ask(self.engine, self.task, [questions[i] for i in explained], head="rationale", max_tokens=self.max_tokens)
        for i, rationale in zip(explained, written, strict=True):
            predictions[i].rationale = rationale.rationale or rationale.text
            predictions[i].rationale_answer = rationale.answer
        judged = [(i, rationale.text) for i, rationale in zip(explained, written, strict=True) if queries[i].quality]
        if judged:
            inputs = [self.task.student_input(questions[i]) for i, _ in judged]
            for (i, _), score in zip(judged, self.judge.score(inputs, [text for _, text in judged]), strict=True):
                predictions[i].quality = score
        return predictions


class Judge:
    """The discriminator of a student folder, with the tokenizer and the limit that it was trained with."""

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        self.discriminator = Discriminator.load(folder, device=pick_device(device))
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.max_tokens: int = json.loads((folder / "config.json").read_text())["max_tokens"]

    def score(self, inputs: Sequence[str], rationales: Sequence[str]) -> list[float]:
        """s in [0, 1] of each rationale, as the student wrote it, for its question as the student read it."""
        return self.discriminator.score(tokenise_pairs(self.tokenizer, inputs, rationales, max_tokens=self.max_tokens).rows)
