"""A student folder in memory: what is asked of it in batches, and what it writes. No HTTP here."""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import AutoTokenizer

from qcrd_ray.data.records import Question
from qcrd_ray.inference import EngineName, load_engine
from qcrd_ray.inference.base import UNLIMITED
from qcrd_ray.inference.heads import Head, HeadAnswer, prompt_of, read
from qcrd_ray.method.discriminator import Discriminator
from qcrd_ray.method.tokenization import tokenise_inputs, tokenise_pairs
from qcrd_ray.models.pretrained import pick_device
from qcrd_ray.models.student_folder import StudentFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How texts are drawn. ``temperature`` 0 is greedy; ``seed`` None draws differently each
    time.
    """

    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequest:
    """One question put to one head, which writes ``sampling.n`` texts. What is batched."""

    question: Question
    head: Head
    sampling: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """One text that the rationale head wrote about a question, for the discriminator."""

    question: Question
    text: str


class Student:
    """The model and the discriminator of ``folder``. Threads may share it; each of the two does one
    thing at a time.
    """

    def __init__(
        self,
        folder: StudentFolder,
        *,
        engine: EngineName | Literal["auto"] = "auto",
        device: str = "auto",
        batch_size: int = 32,
        max_tokens: int | None = None,
    ) -> None:
        """``max_tokens``: the longest text that anybody may ask for; None: what the student was
        trained to write.
        """
        self.folder, self.task = folder, folder.task
        facts = folder.facts
        self.max_tokens: int = max_tokens or facts["max_target_tokens"]
        self.max_input_tokens: int = facts["max_input_tokens"]
        self.engine = load_engine(
            folder.path,
            engine=engine,
            device=device,
            batch_size=batch_size,
            max_input_tokens=self.max_input_tokens,
        )
        self.judge = (
            RationaleScorer(folder.discriminator, device=device) if folder.discriminator else None
        )
        # not the engine's, which may be at work in another thread
        self._tokenizer = AutoTokenizer.from_pretrained(folder.path)
        self._writing, self._judging = threading.Lock(), threading.Lock()

    def refusal(self, question: Question) -> str:
        """Why this question cannot be answered, in words for who sent it; "" where it can."""
        longest = self.task.recipe.max_question_chars
        if len(question.question) > longest:
            return (
                f"the question has {len(question.question):,} characters; at most {longest:,} are"
                " taken"
            )
        return self.task.check(question)

    def prompt_tokens(self, question: Question, *, head: Head) -> int:
        """How long the question is for this head; what is over ``max_input_tokens`` is not read."""
        prompt = prompt_of(self.task, question, head=head)
        return len(tokenise_inputs(self._tokenizer, [prompt], max_tokens=UNLIMITED).rows[0])

    def write(self, asks: Sequence[AnswerRequest]) -> list[list[HeadAnswer]]:
        """The texts of each ask, in their order. Both heads and all asks of one sampling are
        written together.
        """
        groups: dict[tuple, list[int]] = {}
        repeats: Counter = Counter()
        prompts = [prompt_of(self.task, ask.question, head=ask.head) for ask in asks]
        for i, (ask, prompt) in enumerate(zip(asks, prompts, strict=True)):
            repeat = 0
            # under one seed equal prompts get equal texts: each repeat is drawn under another
            if ask.sampling.seed is None:
                repeat = repeats[ask.sampling, prompt]
                repeats[ask.sampling, prompt] += 1
            groups.setdefault((ask.sampling, repeat), []).append(i)
        answers: list[list[HeadAnswer]] = [[] for _ in asks]
        for (sampling, _), members in groups.items():
            with self._writing:
                written = self.engine.generate(
                    [prompts[i] for i in members],
                    n=sampling.n,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_tokens,
                    seed=secrets.randbits(32) if sampling.seed is None else sampling.seed,
                )
            for i, texts in zip(members, written, strict=True):
                answers[i] = [
                    read(self.task, asks[i].question, text, head=asks[i].head) for text in texts
                ]
        return answers

    def score(self, judged: Sequence[ScoreRequest]) -> list[float]:
        """s in [0, 1] of each text, for its question as the student read it. The folder must hold a
        discriminator.
        """
        assert self.judge is not None
        with self._judging:
            return self.judge.score(
                [self.task.student_input(one.question) for one in judged],
                [one.text for one in judged],
            )

    def warm_up(self) -> None:
        """Run everything once, so that the first caller does not pay for it. What is broken raises
        here.
        """
        question = Question(
            id="warm-up",
            question=self.folder.facts["example"]["question"],
            choices=("this", "that"),
        )
        sampling = Sampling(max_tokens=self.max_tokens)
        _, (rationale,) = self.write(
            [
                AnswerRequest(question=question, head=head, sampling=sampling)
                for head in ("label", "rationale")
            ]
        )
        if self.judge:
            self.score([ScoreRequest(question=question, text=rationale.text)])


class RationaleScorer:
    """The discriminator of a student folder, with the tokenizer and the limit that it was trained
    with.
    """

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        self.discriminator = Discriminator.load(folder, device=pick_device(device))
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.max_tokens: int = json.loads((folder / "config.json").read_text())["max_tokens"]

    def score(self, inputs: Sequence[str], rationales: Sequence[str]) -> list[float]:
        """s in [0, 1] of each rationale, as the student wrote it, for its question as the student
        read it.
        """
        return self.discriminator.score(
            tokenise_pairs(self.tokenizer, inputs, rationales, max_tokens=self.max_tokens).rows
        )
