"""A teacher behind an OpenAI-compatible endpoint that somebody else runs: a hosted model, or a vLLM
server.

Plain HTTP by httpx: the road has its own bounded retry (`generation.*`), and a client library's
would count double. How many requests
are in flight is bounded by who asks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qcrd_ray.data.records import Completion, Question
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import OpenAITeacher, Recipe, SamplingRecipe
from qcrd_ray.run.files import write_text
from qcrd_ray.run.folder import resolve
from qcrd_ray.run.progress import Report, no_progress
from qcrd_ray.tasks.base import Task
from qcrd_ray.teacher.api_key import describe_key, read_key
from qcrd_ray.teacher.base import (
    Prompt,
    Stopped,
    TeacherAnswer,
    TeacherError,
    TeacherRefusal,
    TeacherRequest,
)
from qcrd_ray.teacher.openai_protocol import (
    Samples,
    raise_error,
    read_samples,
    request_body,
    url_of,
)

CONNECT_TIMEOUT_S = 30.0
PROBE_TIMEOUT_S = 60.0
SPENT = "spent.json"  # in the run folder's rationales/


@dataclass
class _Gathered:
    """The samples of a question so far: what was paid for is kept when a later request for the rest
    fails.
    """

    completions: list[Completion] = field(default_factory=list)
    prompt_tokens: int = 0


class OpenAICompatible:
    """See :class:`qcrd_ray.teacher.base.Teacher`. Copies of it travel without the key: each process
    reads its own.
    """

    def __init__(self, recipe: Recipe):
        self._recipe: OpenAITeacher = recipe.teacher
        self._sampling = recipe.sampling
        self._ledger = resolve(recipe.run) / "rationales" / SPENT
        self._spending: ActorHandle | None = None  # counts tokens, from start() on
        self._client: httpx.AsyncClient | None = None
        self._key: str | None = None
        self._gathered: dict[str, _Gathered] = {}
        self._stopped = ""

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_client": None, "_key": None, "_gathered": {}}

    def identity(self) -> dict:
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

    def check(self, questions: Sequence[Question]) -> None:
        """Nothing: an endpoint must be asked to be known, and only start() may do that."""

    def start(self, report: Report = no_progress) -> None:
        """Find out whether the endpoint takes our key and has the model, and begin to count tokens.
        Raises UserError as :func:`probe`.
        """
        if self._spending is not None:
            return
        report(0, 0, "asking the endpoint for its models")
        probe(self._recipe)
        self._spending = share_spending(self._ledger)

    def stop(self) -> None:
        self._spending = None  # the actor goes with its last handle

    async def complete(self, asks: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        return [await self._answer(ask) for ask in asks]

    async def _answer(self, ask: TeacherRequest) -> TeacherAnswer:
        """K samples, in as many requests as it takes: an endpoint may give fewer choices than it
        was asked for.
        """
        k = self._sampling.k
        gathered = self._gathered.setdefault(ask.question.id, _Gathered())
        while (missing := k - len(gathered.completions)) > 0:
            samples = await self._request(
                ask.prompt, n=min(missing, self._recipe.samples_per_request or missing)
            )
            gathered.completions += samples.completions
            gathered.prompt_tokens += samples.prompt_tokens or 0
        del self._gathered[ask.question.id]
        return TeacherAnswer(tuple(gathered.completions[:k]), gathered.prompt_tokens)

    async def _request(self, prompt: Prompt, *, n: int) -> Samples:
        await self._may_spend()
        try:
            client = self._connected()
            response = await client.post(
                url_of(self._recipe), json=request_body(self._recipe, self._sampling, prompt, n=n)
            )
            if response.status_code != 200:
                raise_error(
                    response.status_code,
                    response.headers,
                    self._without_key(response.text),
                    self._recipe,
                )
            samples = read_samples(self._without_key(response.text))
        except httpx.HTTPError as error:
            raise TeacherError(f"{type(error).__name__}: {error}") from error
        except (Stopped, UserError) as error:
            self._stopped = str(error)
            raise Stopped(self._stopped) from error
        await self._count(samples)
        return samples

    async def _may_spend(self) -> None:
        """Requests in flight when the limit is reached are still paid for: what they cost is known
        only afterwards.
        """
        limit = self._recipe.max_spent_tokens
        if (
            not self._stopped
            and limit is not None
            and (spent := await self._spending.spent.remote()) >= limit
        ):
            self._stopped = (
                f"{spent:,} tokens are spent, and teacher.max_spent_tokens is {limit:,}; raise it"
                " to go on"
            )
        if self._stopped:
            raise Stopped(self._stopped)

    async def _count(self, samples: Samples) -> None:
        unknown = samples.prompt_tokens is None or samples.completion_tokens is None
        if unknown and self._recipe.max_spent_tokens is not None:
            self._stopped = (
                "the endpoint does not say how many tokens it took, so teacher.max_spent_tokens"
                " cannot be kept; leave it out"
            )
            raise Stopped(self._stopped)
        if self._spending is not None:
            await self._spending.add.remote(
                samples.prompt_tokens or 0, samples.completion_tokens or 0
            )

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            self._key = read_key(self._recipe)
            # No time limit but for connecting: who asks gives a request up
            # (generation.request_timeout_s).
            timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
            self._client = httpx.AsyncClient(
                headers=_headers(self._key),
                timeout=timeout,
                limits=httpx.Limits(max_connections=None),
            )
        return self._client

    def _without_key(self, text: str) -> str:
        """Some servers put the key that they refuse into their error."""
        return text.replace(self._key, "<key>") if self._key else text


def describe(recipe: OpenAITeacher) -> str:
    return f"{recipe.model} at {recipe.base_url}, asked {describe_key(recipe)}"


def probe(recipe: OpenAITeacher) -> str:
    """Ask the endpoint whether it takes our key and has the model, in words.

    `GET /models` costs nothing. Where it leaves the model open (some gateways do not list theirs),
    one token is asked for.

    Raises:
        UserError: nobody answers at the URL, the key is refused, or there is no such model.
    """
    key = read_key(recipe)
    url = recipe.base_url.rstrip("/") + "/models"
    with httpx.Client(headers=_headers(key), timeout=PROBE_TIMEOUT_S) as client:
        try:
            response = client.get(url)
            if response.status_code == 200 and recipe.model in (names := _names(response)):
                return f"{recipe.base_url} has {recipe.model}, one of {len(names)} models"
            if response.status_code in (200, 404, 405):
                response = client.post(url_of(recipe), json=_smallest_request(recipe))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UserError(
                f"teacher.base_url: nobody answers at {recipe.base_url}: {type(error).__name__}:"
                f" {error}"
            ) from error
    text = response.text.replace(key, "<key>") if key else response.text
    if response.status_code in (401, 402, 403, 404):
        _refuse(response.status_code, text, recipe)
    return f"{recipe.base_url} answers (HTTP {response.status_code})"


def _refuse(status: int, text: str, recipe: OpenAITeacher) -> None:
    try:
        raise_error(status, {}, text, recipe)
    except (Stopped, TeacherRefusal, TeacherError) as error:
        raise UserError(f"teacher: {error}") from error


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _smallest_request(recipe: OpenAITeacher) -> dict:
    """One token, by whichever name the endpoint limits them."""
    prompt = [{"role": "user", "content": "1"}] if recipe.endpoint == "chat" else "1"
    body = request_body(recipe, SamplingRecipe(), prompt, n=1)
    return {
        name: 1 if name in ("max_tokens", "max_completion_tokens") else value
        for name, value in body.items()
    }


def _names(response: httpx.Response) -> list[str]:
    """The models that an endpoint lists; [] where its list has another form."""
    try:
        body = response.json()
    except ValueError:
        return []
    listed = body.get("data") if isinstance(body, dict) else body
    return (
        [model["id"] for model in listed if isinstance(model, dict) and "id" in model]
        if isinstance(listed, list)
        else []
    )


# MERGED teacher.spending: What a run folder has cost in tokens of a paid endpoint, kept where
# neither a killed driver nor a killed actor can forget it.


class Spending:
    """Prompt and completion tokens of all calls on one run folder, failed rows' included, in a file
    that is rewritten with every answer.
    """

    def __init__(self, path: Path):
        self._path = path
        self._tokens = (
            json.loads(path.read_text()) if path.exists() else {"prompt": 0, "completion": 0}
        )

    def add(self, prompt: int, completion: int) -> None:
        self._tokens["prompt"] += prompt
        self._tokens["completion"] += completion
        write_text(self._path, json.dumps(self._tokens) + "\n")

    def spent(self) -> int:
        return sum(self._tokens.values())


def share_spending(path: Path) -> ActorHandle:
    """One :class:`Spending` for all actors that ask, on the driver's node, where a URI's work
    folder lies.

    Restarted, it reads its file again; a call that was under way then may be counted twice, and is
    never lost.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(
        Spending
    )
    return actor.remote(path)
