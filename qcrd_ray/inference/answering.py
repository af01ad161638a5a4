"""A student folder in memory: batches of questions in, answers and scores out. No HTTP here."""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import AutoTokenizer

from qcrd_ray.data.records import Question
from qcrd_ray.inference import EngineName, load_engine
from qcrd_ray.inference.base import UNLIMITED, EngineOptions, Listener
from qcrd_ray.inference.heads import Head, HeadAnswer, head_prompt, read_answer
from qcrd_ray.inference.sample_judge import SampleJudge
from qcrd_ray.inference.vote_result import VoteKind, VoteResult, judged_result, plain_result
from qcrd_ray.method.discriminator import Discriminator
from qcrd_ray.method.tokenization import tokenize_inputs, tokenize_pairs
from qcrd_ray.models.pretrained import pick_device, read_tokenizer
from qcrd_ray.models.student_folder import StudentFolder

VOTE_TEMPERATURE = 0.7  # of a vote without a judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How texts are sampled.

    ``temperature`` 0 is greedy; ``seed`` None gives other samples each time.
    """

    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequest:
    """One question for one head, to be answered by ``sampling.n`` texts; the unit of a batch.

    ``listener`` hears the texts while they are written.
    """

    question: Question
    head: Head
    sampling: Sampling
    listener: Listener | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """One text of the rationale head about a question, to be scored by the discriminator."""

    question: Question
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRequest:
    """The samples of the rationale head for one question, to be scored beside each other."""

    question: Question
    samples: tuple[HeadAnswer, ...]


class Student:
    """The engine, the discriminator and the judge of a student folder.

    Threads may share it; each of the three serves one call at a time, but an engine that is
    concurrent.
    """

    def __init__(
        self,
        folder: StudentFolder,
        *,
        engine: EngineName | Literal["auto"] = "auto",
        device: str = "auto",
        batch_size: int = 32,
        max_tokens: int | None = None,
        gpu_memory_utilization: float | None = None,
        judged: bool = True,
    ) -> None:
        """Load the folder.

        Args:
            max_tokens: the longest text to generate; None: the student's training limit.
            gpu_memory_utilization: see :class:`EngineOptions`.
            judged: load the judge too, where there is one.
        """
        self.folder, self.task = folder, folder.task
        self.max_tokens = max_tokens or folder.facts["max_target_tokens"]
        self.max_input_tokens = folder.facts["max_input_tokens"]
        self.engine = load_engine(
            folder.path,
            engine=engine,
            device=device,
            batch_size=batch_size,
            max_input_tokens=self.max_input_tokens,
            trust_remote_code=folder.trust_remote_code,
            gpu_memory_utilization=gpu_memory_utilization,
        )
        self.scorer = None
        if folder.discriminator:
            self.scorer = RationaleScorer(
                folder.discriminator, device=device, trust_remote_code=folder.trust_remote_code
            )
        self.judge = None
        if folder.judge and judged:
            options = EngineOptions(
                device=pick_device(device),
                batch_size=batch_size,
                max_input_tokens=self.max_input_tokens,
                trust_remote_code=folder.trust_remote_code,
            )
            self.judge = SampleJudge.load(folder, self.engine, options)
        # not the engine's, which may be at work in another thread
        self._tokenizer = read_tokenizer(folder.path, trust_remote_code=folder.trust_remote_code)
        # a concurrent engine takes what several threads ask for at once
        self._engine_lock = nullcontext() if self.engine.concurrent else threading.Lock()
        self._scorer_lock = threading.Lock()
        shared = self.judge is not None and self.judge.uses_engine
        self._judge_lock = self._engine_lock if shared else threading.Lock()

    def refusal(self, question: Question) -> str:
        """Why this question cannot be answered, in words for its sender; "" where it can."""
        limit = self.folder.task_recipe.max_question_chars
        if len(question.question) > limit:
            return (
                f"the question has {len(question.question):,} characters; at most {limit:,} are"
                " taken"
            )
        return self.task.check(question)

    def prompt_tokens(self, question: Question, *, head: Head) -> int:
        """The length of the prompt; what is over ``max_input_tokens`` is cut before it is read."""
        prompt = head_prompt(self.task, question, head=head)
        return len(tokenize_inputs(self._tokenizer, [prompt], max_tokens=UNLIMITED).rows[0])

    def generate(self, requests: Sequence[AnswerRequest]) -> list[list[HeadAnswer]]:
        """Generate the answers to each request, in the order of the requests.

        Requests with equal sampling share a batch, whatever their head.
        """
        groups: dict[tuple[Sampling, int], list[int]] = {}
        repeats: Counter[tuple[Sampling, str]] = Counter()
        prompts = [
            head_prompt(self.task, request.question, head=request.head) for request in requests
        ]
        for i, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            repeat = 0
            # Under one seed equal prompts get equal texts. Without a seed each repeat of a prompt
            # is sampled in a group, and so under a seed, of its own.
            if request.sampling.seed is None:
                repeat = repeats[request.sampling, prompt]
                repeats[request.sampling, prompt] += 1
            groups.setdefault((request.sampling, repeat), []).append(i)
        answers: list[list[HeadAnswer]] = [[] for _ in requests]
        for (sampling, _), members in groups.items():
            listeners = [requests[i].listener for i in members]
            with self._engine_lock:
                generated = self.engine.generate(
                    [prompts[i] for i in members],
                    n=sampling.n,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_tokens,
                    seed=secrets.randbits(32) if sampling.seed is None else sampling.seed,
                    listeners=listeners if any(listeners) else None,
                )
            for i, texts in zip(members, generated, strict=True):
                request = requests[i]
                answers[i] = [
                    read_answer(self.task, request.question, text, head=request.head)
                    for text in texts
                ]
        return answers

    def score(self, requests: Sequence[ScoreRequest]) -> list[float]:
        """The discriminator's score s in [0, 1] of each text. The folder must hold one."""
        assert self.scorer is not None
        with self._scorer_lock:
            return self.scorer.score(
                [self.task.student_input(request.question) for request in requests],
                [request.text for request in requests],
            )

    def vote_kind(self, asked: VoteKind | None) -> VoteKind:
        """``asked``; None: judged where there is a judge."""
        return asked or ("judged" if self.judge else "plain")

    def vote_sampling(
        self,
        n: int,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = 0,
    ) -> Sampling:
        """How a vote's samples are drawn: by default as the folder's judge has learnt to judge
        them, without one at :data:`VOTE_TEMPERATURE` and from the whole distribution.
        """
        judge = self.folder.judge
        usual = (judge.temperature, judge.top_p) if judge else (VOTE_TEMPERATURE, 1.0)
        return Sampling(
            max_tokens=self.max_tokens,
            n=n,
            temperature=usual[0] if temperature is None else temperature,
            top_p=usual[1] if top_p is None else top_p,
            seed=seed,
        )

    def judge_samples(self, requests: Sequence[JudgeRequest]) -> list[list[float]]:
        """The judge's score of each sample of each request. The folder must hold a judge.

        The samples of all requests are read in one pass.
        """
        assert self.judge is not None
        with self._judge_lock:
            return self.judge.score(
                [request.question for request in requests],
                [request.samples for request in requests],
            )

    def vote(
        self, samples: Sequence[HeadAnswer], scores: Sequence[float] | None = None
    ) -> VoteResult:
        """The vote of one question's samples: judged by their ``scores``, plain without them."""
        if scores is None:
            return plain_result(samples)
        assert self.judge is not None
        return judged_result(samples, scores, self.judge.judge)

    def warm_up(self) -> None:
        """Run each part once, so that no caller waits for it; what is broken raises here."""
        question = Question(
            id="warm-up",
            question=self.folder.facts["example"]["question"],
            choices=("this", "that"),
        )
        sampling = Sampling(max_tokens=self.max_tokens)
        heads: tuple[Head, ...] = ("label", "rationale")
        _, (rationale,) = self.generate(
            [AnswerRequest(question=question, head=head, sampling=sampling) for head in heads]
        )
        if self.scorer:
            self.score([ScoreRequest(question=question, text=rationale.text)])
        if self.judge:
            request = AnswerRequest(
                question=question, head="rationale", sampling=self.vote_sampling(2)
            )
            (samples,) = self.generate([request])
            self.judge_samples([JudgeRequest(question=question, samples=tuple(samples))])


class RationaleScorer:
    """The discriminator of a student folder, with its own tokenizer and length limit."""

    def __init__(
        self, folder: Path, *, device: str = "auto", trust_remote_code: bool = False
    ) -> None:
        self.discriminator = Discriminator.load(
            folder, device=pick_device(device), trust_remote_code=trust_remote_code
        )
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        self.max_tokens: int = json.loads((folder / "config.json").read_text())["max_tokens"]

    def score(self, inputs: Sequence[str], rationales: Sequence[str]) -> list[float]:
        """s in [0, 1] of each rationale (as generated) for its input (as the student reads it)."""
        pairs = tokenize_pairs(self.tokenizer, inputs, rationales, max_tokens=self.max_tokens)
        return self.discriminator.score(pairs.rows)
