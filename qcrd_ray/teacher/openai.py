"""A teacher behind an OpenAI-compatible endpoint: a hosted model, or a vLLM server.

Plain HTTP by httpx: the stage has its own bounded retry (`generation.*`), and a client library's
would multiply it. The stage also bounds how many requests are in flight.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import ray
from ray.actor import ActorProxy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qcrd_ray.data.records import Completion, Question
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import OpenAITeacher, SamplingRecipe
from qcrd_ray.runs.files import read_json, write_text
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.runs.secrets import without_key
from qcrd_ray.tasks.base import Task
from qcrd_ray.teacher.base import (
    Prompt,
    Stopped,
    TeacherAnswer,
    TeacherAway,
    TeacherError,
    TeacherRefusal,
    TeacherRequest,
)
from qcrd_ray.teacher.openai_protocol import (
    Samples,
    describe_key,
    raise_error,
    read_key,
    read_models,
    read_samples,
    request_body,
    url_of,
)
from qcrd_ray.teacher.reply_body import ACCEPTED, ReplyBody

CONNECT_TIMEOUT_S = 30.0
CLIENTS = 16  # of one process that asks: a client takes as long as the square of its connections
PROBE_TIMEOUT_S = 60.0
SPENT = "spent.json"  # in the run folder's rationales/


@dataclass
class _PartialAnswer:
    """The samples of a question so far; they are kept when a request for the rest fails."""

    completions: list[Completion] = field(default_factory=list)
    prompt_tokens: int = 0


class OpenAICompatible:
    """See :class:`qcrd_ray.teacher.base.Teacher`.

    Copies of it are sent without the key: each process reads its own. ``ledger`` is the file that
    keeps what the run folder has cost.
    """

    def __init__(self, recipe: OpenAITeacher, sampling: SamplingRecipe, *, ledger: Path):
        self._recipe = recipe
        self._sampling = sampling
        self._ledger = ledger
        self._spending: ActorProxy[Spending] | None = None  # counts tokens, from start() on
        self._clients: deque[httpx.AsyncClient] = deque()
        self._key: str | None = None
        self._partial: dict[str, _PartialAnswer] = {}
        self._stopped = ""

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_clients": deque(), "_key": None, "_partial": {}}

    def identity(self) -> dict[str, Any]:
        shown = self._recipe.model_dump(
            mode="json", include={"base_url", "model", "endpoint", "extra_body"}
        )
        return {"source": "openai", **shown}

    def prompt(self, task: Task, question: Question) -> Prompt:
        return (
            task.teacher_messages(question)
            if self._recipe.endpoint == "chat"
            else task.teacher_prompt(question)
        )

    def check(self, questions: Iterable[Question]) -> None:
        """Checks nothing: it would have to ask the endpoint, and only start() may do that."""

    def start(self, report: Report = no_progress) -> None:
        """Check that the endpoint takes our key and has the model; begin to count tokens.

        Raises UserError as :func:`probe` does.
        """
        if self._spending is not None:
            return
        report(0, 0, "asking the endpoint for its models")
        probe(self._recipe)
        self._spending = share_spending(self._ledger)

    def stop(self) -> None:
        self._spending = None  # the actor goes with its last handle

    async def complete(self, requests: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        return [await self._answer(request) for request in requests]

    async def _answer(self, request: TeacherRequest) -> TeacherAnswer:
        """The samples that are asked for, in as many HTTP requests as it takes.

        An endpoint may return fewer choices than it was asked for.
        """
        answer = self._partial.setdefault(request.question.id, _PartialAnswer())
        while (missing := request.samples - len(answer.completions)) > 0:
            samples = await self._request(
                request.prompt, n=min(missing, self._recipe.samples_per_request or missing)
            )
            answer.completions += samples.completions
            answer.prompt_tokens += samples.prompt_tokens or 0
        del self._partial[request.question.id]
        return TeacherAnswer(tuple(answer.completions[: request.samples]), answer.prompt_tokens)

    async def _request(self, prompt: Prompt, *, n: int) -> Samples:
        await self._check_limit()
        try:
            asked = request_body(self._recipe, self._sampling, prompt, n=n)
            async with self._connect().stream("POST", url_of(self._recipe), json=asked) as response:
                body = ReplyBody(response.headers)
                async for piece in response.aiter_raw():
                    body.add(piece)
            text = without_key(body.text(), self._key)
            if response.status_code != 200:
                raise_error(response.status_code, response.headers, text, self._recipe)
            samples = read_samples(text)
        except httpx.HTTPError as error:
            raise TeacherAway(
                f"{type(error).__name__}: {without_key(str(error), self._key)}"
            ) from error
        except (Stopped, UserError) as error:
            self._stopped = str(error)
            raise Stopped(self._stopped) from error
        await self._count(samples, prompt, n=n)
        return samples

    async def _check_limit(self) -> None:
        """Raise Stopped once `teacher.max_spent_tokens` is reached, or after an earlier stop.

        Requests in flight at that moment are still paid for: their cost is known only afterwards.
        """
        limit = self._recipe.max_spent_tokens
        if not self._stopped and limit is not None:
            assert self._spending is not None, "start() comes before complete()"
            spent = await self._spending.spent.remote()
            if spent >= limit:
                self._stopped = (
                    f"{spent:,} tokens are spent, and teacher.max_spent_tokens is {limit:,}; raise"
                    " it to go on"
                )
        if self._stopped:
            raise Stopped(self._stopped)

    async def _count(self, samples: Samples, prompt: Prompt, *, n: int) -> None:
        """Add what a reply took; where it does not say, the most that it can have taken.

        A token of the prompt has a byte at least. So `teacher.max_spent_tokens` is kept by an odd
        reply too, and by an endpoint that never tells.
        """
        if self._spending is None:
            return
        read, written = samples.prompt_tokens, samples.completion_tokens
        if read is None:
            read = len((prompt if isinstance(prompt, str) else json.dumps(prompt)).encode())
        if written is None:
            written = n * self._sampling.max_tokens
        await self._spending.add.remote(read, written)

    def _connect(self) -> httpx.AsyncClient:
        """A client, each in turn: httpx looks through all connections of one at each request."""
        if not self._clients:
            self._key = read_key(self._recipe)
            trusted = httpx.create_ssl_context()
            self._clients.extend(
                httpx.AsyncClient(
                    headers=_headers(self._key),
                    verify=trusted,
                    # none but for connecting: the stage has generation.request_timeout_s
                    timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                )
                for _ in range(CLIENTS)
            )
        self._clients.rotate()
        return self._clients[0]


def describe(recipe: OpenAITeacher) -> str:
    """The endpoint in words, without its key."""
    return f"{recipe.model} at {recipe.base_url}, asked {describe_key(recipe)}"


def probe(recipe: OpenAITeacher) -> str:
    """Ask the endpoint whether it takes our key and has the model; return its answer in words.

    `GET /models` costs nothing. Some gateways do not list their models; those are asked for one
    token.

    Raises:
        UserError: nobody answers at the URL, the key is refused, or there is no such model.
    """
    key = read_key(recipe)
    url = recipe.base_url.rstrip("/") + "/models"
    with httpx.Client(headers=_headers(key), timeout=PROBE_TIMEOUT_S) as client:
        try:
            status, text = _fetch(client, "GET", url)
            if status == 200 and recipe.model in (names := read_models(text)):
                return f"{recipe.base_url} has {recipe.model}, one of {len(names)} models"
            if status in (200, 404, 405):
                status, text = _fetch(client, "POST", url_of(recipe), _smallest_request(recipe))
        except (httpx.HTTPError, httpx.InvalidURL, TeacherError) as error:
            raise UserError(
                f"teacher.base_url: nobody answers at {recipe.base_url}: {type(error).__name__}:"
                f" {without_key(str(error), key)}"
            ) from error
    if status in (401, 402, 403, 404):
        _refuse(status, without_key(text, key), recipe)
    return f"{recipe.base_url} answers (HTTP {status})"


def _fetch(
    client: httpx.Client, method: str, url: str, body: dict | None = None
) -> tuple[int, str]:
    """The status and the text of an endpoint's answer."""
    with client.stream(method, url, json=body) as response:
        read = ReplyBody(response.headers)
        for piece in response.iter_raw():
            read.add(piece)
    return response.status_code, read.text()


def _refuse(status: int, text: str, recipe: OpenAITeacher) -> None:
    try:
        raise_error(status, {}, text, recipe)
    except (Stopped, TeacherRefusal, TeacherError) as error:
        raise UserError(f"teacher: {error}") from error


def _headers(key: str | None) -> dict[str, str]:
    return ACCEPTED | ({"Authorization": f"Bearer {key}"} if key else {})


def _smallest_request(recipe: OpenAITeacher) -> dict:
    """A request for one token, by whichever field limits them."""
    prompt = [{"role": "user", "content": "1"}] if recipe.endpoint == "chat" else "1"
    body = request_body(recipe, SamplingRecipe(), prompt, n=1)
    return {
        name: 1 if name in ("max_tokens", "max_completion_tokens") else value
        for name, value in body.items()
    }


# --- Spent tokens ---


class Spending:
    """An actor that counts the tokens of all calls on one run folder, those of failed rows too.

    The file is rewritten with every answer, so neither a killed driver nor a killed actor loses the
    count.
    """

    def __init__(self, path: Path):
        self._path = path
        self._tokens = read_json(path, {"prompt": 0, "completion": 0})

    @ray.method
    def add(self, prompt: int, completion: int) -> None:
        """Count the tokens of one response, and write the sum to the file."""
        self._tokens["prompt"] += prompt
        self._tokens["completion"] += completion
        write_text(self._path, json.dumps(self._tokens) + "\n", durable=False)

    @ray.method
    def spent(self) -> int:
        """All tokens so far, of prompts and completions."""
        return sum(self._tokens.values())


def share_spending(path: Path) -> ActorProxy[Spending]:
    """Start one :class:`Spending` for all actors that ask.

    It runs on the driver's node, which has the run folder, or a URI's work folder. Restarted, it
    reads its file again; a call that was under way then may be counted twice, and is never lost.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Spending)
    return actor.options(scheduling_strategy=here).remote(path)
