"""The recipe: one typed tree that says which task, which teacher, which student and which objective.

Every number that the paper leaves open is a field here, with the paper's value (or the house's, where it has none) as its default.
``qcrd_ray.recipe_file`` reads recipes from YAML; this file only says what a recipe is and which values can make sense.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1, strict=True)]  # strict: `true` is no 1
NotNegativeCount = Annotated[int, Field(ge=0, strict=True)]
KINDS = ("word_problems", "arithmetic", "multiple_choice", "nli", "short_text")
ObjectiveName = Literal["qcrd", "finetune", "single_task", "dss", "mi", "orpo_distill", "redi", "dpo"]


class Section(BaseModel):
    """A part of the recipe: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


# ------------------------------------------------------------------------------------------------------------------ task and data


class Example(Section):
    """A worked example shown to the teacher before the question (few-shot)."""

    question: str
    choices: tuple[str, ...] = ()
    rationale: str
    answer: str


class TaskRecipe(Section):
    """What kind of question is asked. A prompt field left empty takes the kind's own text."""

    kind: str = Field(description=f"{' | '.join(KINDS)} | package.module:Class, a task of your own (see qcrd_ray/tasks/base.py)")
    options: dict[str, Any] = Field({}, description="settings of a task of your own, which it finds in recipe.options")
    system: str | None = None
    instruction: str | None = Field(None, description="what the teacher is told to do with the question")
    examples: tuple[Example, ...] = ()
    thinking: tuple[str, str] | None = Field(
        ("<think>", "</think>"), description="the marks around a reasoning model's thinking, which is kept apart from the rationale"
    )
    closing: str = Field("So the answer is {answer}.", description="how the student's explanations end; must hold {answer}")
    max_question_chars: Count = 20_000

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS and not (":" in kind and all(part.isidentifier() for part in re.split("[.:]", kind))):
            raise ValueError(f"expected {', '.join(KINDS)}, or a task of your own as package.module:Class, not {kind!r}")
        return kind

    @model_validator(mode="after")
    def _read_options(self):
        if self.options and ":" not in self.kind:
            raise ValueError(f"options: only a task of your own has them, and {self.kind} does not read {', '.join(self.options)}")
        return self

    @model_validator(mode="after")
    def _marks_can_be_found(self):
        if "{answer}" not in self.closing:
            raise ValueError("closing must hold {answer}, e.g. 'So the answer is {answer}.'")
        if self.thinking is not None and not all(mark.strip() for mark in self.thinking):
            raise ValueError("thinking must be two marks, e.g. ['<think>', '</think>'], or null where the teacher does not think aloud")
        return self


class Split(Section):
    """Where the questions of one split come from: a file, a Hugging Face data set, or the task's own generator."""

    path: str | None = Field(None, description="a .jsonl, .csv, .tsv or .parquet file; ${VARIABLES} of the environment are expanded")
    dataset: str | None = Field(None, description="a Hugging Face data set: a hub id, or a folder")
    config: str | None = Field(None, description="which configuration of the data set; none: its only or default one")
    split: str | None = Field(None, description="which of the data set's own splits: train, or several as train+test")
    revision: str | None = Field(None, description="branch, tag or commit of the data set on the hub")
    rows: tuple[int, int] | None = Field(None, description="[first, past the last] of the rows, after the shuffle")
    shuffle: int | None = Field(None, description="seed to shuffle the rows with before `rows` is taken; none: as they stand")
    generate: Count | None = Field(None, description="how many questions the task's generator makes")
    seed: int = Field(0, description="the generator's seed")
    kind: str | None = Field(None, description="the generator's kind of question: word_problems has `seen` and `held_out`")

    @model_validator(mode="after")
    def _one_source(self):
        if sum(source is not None for source in (self.path, self.dataset, self.generate)) != 1:
            raise ValueError("give exactly one of `path` (a file), `dataset` (of Hugging Face) and `generate` (how many questions to make)")
        if self.dataset is None and (stray := [key for key in ("config", "split", "revision") if getattr(self, key) is not None]):
            raise ValueError(f"{', '.join(stray)}: only a `dataset` has that")
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1]:
            raise ValueError(f"rows must be [first, past the last] with 0 <= first < past the last, not {list(self.rows)}")
        return self

    @property
    def origin(self) -> str | None:
        """The file or data set without the folders of the machine that it is read on; None: the questions are generated."""
        if self.path is not None:
            return PurePath(self.path).name
        if self.dataset is None:
            return None
        local = self.dataset.startswith(("/", ".", "~", "$"))
        return " ".join(filter(None, (PurePath(self.dataset).name if local else self.dataset, self.config, self.split)))


def _spelt(values: Any) -> Any:
    """YAML's 0 and true as the texts that they are looked up by."""
    if not isinstance(values, dict):
        return values
    return {str(key).lower() if isinstance(key, bool) else str(key): value for key, value in values.items()}


class DataRecipe(Section):
    """The splits. ``columns`` says where our fields are found in a row: a column (`Body`), a path into one (`choices.text`,
    `answers.0`), a text around several (`"{Body} {Question}"`), or a list of these."""

    train: Split
    validation: Split
    test: Split
    held_out: Split | None = Field(None, description="a second, harder test split, reported beside `test`")
    columns: dict[Literal["id", "question", "choices", "answer", "rationale"], str | tuple[str, ...]] = {}
    values: Annotated[dict[str, str], BeforeValidator(_spelt)] = Field(
        {}, description="what the answer column's values mean: {0: entailment, 1: neutral, 2: contradiction}; class names are known"
    )


# ------------------------------------------------------------------------------------------------------------ teacher and rationales


class ServeTeacher(Section):
    """A Ray Serve deployment that hosts the teacher in vLLM."""

    source: Literal["serve"]
    model: str = Field(description="hub id, folder, or `demo` for the shipped teacher")
    accelerator: str = Field("auto", description="auto, cpu, gpu, or a Ray accelerator type such as A100")
    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Count = 1
    cpus_per_replica: NotNegative = 1.0
    resources_per_replica: dict[str, float] = {}
    max_ongoing_requests: Count = 64
    engine_kwargs: dict[str, Any] = Field({}, description="passed to vLLM as they are: tensor_parallel_size, quantization, ...")
    env: dict[str, str] = Field({}, description="environment of the replicas (no secrets: it enters the job's metadata)")
    chat: Literal["auto", "always", "never"] = Field("auto", description="use the model's chat template: auto = where it has one")
    ready_timeout_s: Positive = 900.0
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _replicas(self):
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) is below min_replicas ({self.min_replicas})")
        return self


class RecordedTeacher(Section):
    """Completions that somebody has already paid for: JSON Lines with `id` and `completion`, several rows a question."""

    source: Literal["recording"]
    path: str
    columns: dict[Literal["id", "completion", "finish_reason"], str] = {}


class OpenAITeacher(Section):
    """An OpenAI-compatible endpoint that somebody else runs: a hosted model, or a vLLM server. How many requests are in flight, and how
    often one is tried, stands in ``generation``."""

    source: Literal["openai"]
    base_url: str = Field("https://api.openai.com/v1", description="up to and with /v1")
    model: str = Field(description="as the endpoint calls it")
    endpoint: Literal["chat", "completions"] = Field("chat", description="/chat/completions with messages, or /completions with plain text")
    api_key_env: str = Field("OPENAI_API_KEY", description="the variable that holds the key; unset = no key is sent")
    api_key_file: str | None = Field(None, description="a file that holds the key, on every node that asks; it goes before the variable")
    samples_per_request: Count | None = Field(None, description="for endpoints that refuse n > 1, say 1; none: all k in one request")
    max_spent_tokens: Count | None = Field(
        None, description="prompt and completion tokens of this run folder, after which it stops in order"
    )
    extra_body: dict[str, Any] = Field(
        {}, description="further fields of the request: top_k, reasoning_effort, ...; null leaves one of ours out (max_tokens: null)"
    )

    @model_validator(mode="after")
    def _request(self):
        if "@" in self.base_url.split("://", 1)[-1].split("/", 1)[0] or "?" in self.base_url:
            raise ValueError("base_url must hold neither a user nor a query: a key there would be written into the run folder")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with https:// or http://, not {self.base_url!r}")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env must be the name of a variable, such as OPENAI_API_KEY, and not the key itself")
        if taken := sorted(self.extra_body.keys() & {"model", "messages", "prompt", "n", "stream"}):
            raise ValueError(f"extra_body cannot hold {', '.join(taken)}: the request sets them itself")
        if ours := [key for key in ("temperature", "top_p", "max_tokens", "stop") if self.extra_body.get(key) is not None]:
            raise ValueError(f"extra_body cannot set {', '.join(ours)}: say it under sampling (null leaves it out of the request)")
        if "seed" in self.extra_body and self.samples_per_request is not None:
            raise ValueError("extra_body.seed with samples_per_request would give the same samples again and again: leave one of them out")
        return self


TeacherRecipe = Annotated[ServeTeacher | OpenAITeacher | RecordedTeacher, Field(discriminator="source")]


class SamplingRecipe(Section):
    """How the teacher is sampled. K = 5 at T = 0.7 are the paper's, as its summaries give them."""

    k: Count = 5
    temperature: NotNegative = 0.7
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: Count = 256
    stop: tuple[str, ...] = ()


class GenerationRecipe(Section):
    """How the teacher is asked: requests in flight, retries, and how often finished rows reach the disk."""

    actors: Count = Field(1, description="Ray Data actors that ask the teacher")
    resources_per_actor: dict[str, float] = Field({}, description="custom resources that tie the actors to a group of nodes")
    requests_in_flight: Count = Field(64, description="per actor")
    questions_per_request: Count = 1
    attempts: Count = Field(4, description="how often one request is tried before its rows end as `failed`")
    backoff_s: NotNegative = 0.5
    request_timeout_s: Positive = 600.0
    rows_per_block: Count = Field(64, description="rows that are written, and so can be resumed, together")


class VoteRecipe(Section):
    """Self-consistency, and what becomes of the cases that the paper does not name."""

    incomplete: Literal["failed", "vote"] = "failed"
    truncated: Literal["abstain", "vote"] = "abstain"
    tie: Literal["no_consensus", "first"] = "no_consensus"


# ---------------------------------------------------------------------------------------------------------- student, judge, objective


class ScratchRecipe(Section):
    """A small random student and a tokenizer trained on the questions: for trying the road on one's own data, not for accuracy."""

    kind: Literal["t5", "llama"] = Field("t5", description="an encoder-decoder, or a decoder-only model")
    d_model: Count = 64
    d_ff: Count = 128
    layers: Count = 2
    heads: Count = 4
    vocabulary: Count = 2_000


class LoraRecipe(Section):
    """Low-rank adapters (arXiv 2106.09685) instead of training all weights; needs the peft package. Written students have them merged."""

    rank: Count = 16
    alpha: Positive = Field(32.0, description="the adapters count alpha / rank")
    dropout: Share = 0.0
    targets: tuple[str, ...] = Field((), description="names of linear layers, such as q_proj; none: all but the output's")


class StudentRecipe(Section):
    """The student: a T5-family encoder-decoder or a decoder-only model (Llama, Qwen), pretrained (`model`) or random (`scratch`)."""

    model: str | None = Field(None, description="hub id, folder, or `demo` for the shipped base")
    scratch: ScratchRecipe | None = None
    max_input_tokens: Count = 1024
    max_target_tokens: Count = 256
    dropout: Share | None = Field(None, description="none: the model's own")
    chat: Literal["auto", "always", "never"] = Field(
        "auto", description="decoder-only: put questions in the model's chat template: auto = where it has one"
    )
    lora: LoraRecipe | None = Field(
        None, description="{rank: 16, alpha: 32, dropout: 0, targets: []}: train adapters alone; none: all weights are trained"
    )
    gradient_checkpointing: bool = Field(False, description="compute activations again in the backward pass, which saves memory for time")
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_start(self):
        if (self.model is None) == (self.scratch is None):
            raise ValueError("give exactly one of `model` (a pretrained student) and `scratch` (a random one)")
        return self


class DiscriminatorRecipe(Section):
    """D(question, rationale) -> [0, 1]: an encoder, max pooling over tokens, two linear layers (section 2 of the paper)."""

    model: str | None = Field(
        None, description="an encoder, an encoder-decoder whose encoder is used, or a decoder; none: the student's own start"
    )
    hidden: Count = 256
    max_tokens: Count = 512
    dropout: Share = 0.1
    loss: Literal["paper", "cross_entropy", "bradley_terry"] = Field(
        "paper", description="paper: equation (2); the others are proper scores"
    )
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = Field(
        0.0, description="cross_entropy: its targets are this far from 1 and 0, against scores that are all too sure"
    )
    replay: NotNegativeCount = Field(0, description="D's steps of a round read the student samples of as many older rounds as well")
    pretrain_steps: Annotated[int, Field(ge=0)] = 500
    steps_per_round: Annotated[int, Field(ge=0)] = 20
    batch_size: Count = Field(32, description="questions per step, over all workers")
    learning_rate: Positive = 1e-4
    learning_rate_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.9, description="per round: the paper's alpha3 *= 0.9")
    clip: Positive = 1.0
    mask_share: Share = Field(0.15, description="words masked in an augmented negative")
    replace_share: Share = Field(0.15, description="words replaced in an augmented negative")

    @model_validator(mode="after")
    def _targets(self):
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(f"label_smoothing: only the loss cross_entropy has targets to smooth, and this is {self.loss}; set it to 0")
        return self


class ObjectiveRecipe(Section):
    """Equations (2)-(8). `qcrd` is the paper's method, the others are what it is compared with: `finetune` (question -> label),
    `single_task` (one target: rationale, then label), `dss` (Distilling Step-by-Step), `mi` (dss and mutual information);
    `orpo_distill`, `redi` and `dpo` learn from pairs of a right and a wrong rationale."""

    name: ObjectiveName = "qcrd"
    alpha_pred: NotNegative = 0.5
    alpha_cl: NotNegative = 0.5
    beta: NotNegative = 0.2
    delta: Positive = 3.0
    selection: Literal["minmax", "maxmin", "sampling", "mean", "weighted_mean"] = Field(
        "minmax", description="which positive and negative of a question are trained on; the last two take all"
    )
    weights: Literal["score", "normalised", "none"] = Field(
        "score", description="score: D's s and 1 - s; normalised: these with mean 1; none: no discriminator at all"
    )
    labels: Literal["gold", "vote"] = Field("gold", description="what L_pred is trained on; gold falls back on nothing")
    positives: Literal["vote", "label"] = Field(
        "vote", description="vote: samples that agree with the vote, the paper's; label: those that agree with `labels`, where there is one"
    )
    prediction_mean: Literal["tokens", "examples"] = "tokens"
    mi_weight: NotNegative = Field(0.1, description="mi: weight of the cross-entropy between the heads")
    mi_double_softmax: bool = Field(False, description="mi: take the softmax twice, as its public code does")
    orpo_lambda: NotNegative = Field(0.1, description="orpo_distill: weight of the odds-ratio term")
    redi_alpha: NotNegative = Field(0.8, description="redi: weight of the negative's likelihood")
    dpo_beta: Positive = Field(0.1, description="dpo: how much a log-likelihood ratio counts")
    dpo_nll: NotNegative = Field(1.0, description="dpo: weight of the positive's own loss")
    dpo_guard: NotNegative = Field(50.0, description="dpo: DPO-Positive's lambda, against a positive below its start; 0: off")
    negative_from: Literal["start", "difference"] = Field(
        "start", description="difference: a negative is penalised from the first token that no positive shares"
    )


class NegativesRecipe(Section):
    """Where negatives come from: the teacher's minority, and the student of `lag` rounds ago; beyond the paper, positives with other
    numbers."""

    teacher: bool = True
    student: bool = True
    corrupted: NotNegativeCount = Field(0, description="how many a question: positives with one wrong step (after PORT, arXiv 2406.16061)")
    evolved: NotNegativeCount = Field(0, description="how many a question: positives for other numbers (after ECD, arXiv 2410.07513)")
    lag: Count | Literal["auto"] = Field("auto", description="rounds; auto = min(5, rounds // 5), at least 1")
    before_lag: Literal["oldest", "none"] = "oldest"
    per_question: Count = 1
    temperature: Positive = 1.5
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    right: Literal["keep", "drop", "positive"] = Field(
        "keep", description="student samples whose answer equals the label: negatives all the same (the paper), left out, or positives"
    )
    samplers: Count = 1
    cpus_per_sampler: NotNegative = 1.0
    gpus_per_sampler: NotNegative = 0.0
    resources_per_sampler: dict[str, float] = {}
    batch_size: Count = 64
    wait_timeout_s: Positive = 1800.0


# ------------------------------------------------------------------------------------------------------- training and what follows it


class RoundRecipe(Section):
    """The paper's "iteration": a fixed block of steps after which snapshots, negatives and D move on."""

    unit: Literal["steps", "epochs"] = "epochs"
    size: Count = 1


class WorkerRecipe(Section):
    """What one training worker asks of the cluster."""

    cpus: NotNegative = 1.0
    gpus: NotNegative = 0.0
    resources: dict[str, float] = {}
    threads: Count = 1


class ValidateRecipe(Section):
    """Validation during training; the best checkpoint is chosen on it and on nothing else."""

    every_rounds: Count = 1
    max_questions: Count | None = None
    choose_by: Literal["label", "rationale", "mean"] = "mean"


class TrainRecipe(Section):
    """Ray Train and DeepSpeed. The batch of a step is a pure function of (seed, step); workers only share it out."""

    rounds: Count = 10
    round: RoundRecipe = RoundRecipe()
    batch_size: Count = Field(64, description="questions per optimizer step, over all workers")
    micro_batch_size: Count | None = Field(None, description="questions a worker takes at a time; none: its whole share")
    workers: Count = 1
    worker: WorkerRecipe = WorkerRecipe()
    learning_rate: Positive = 5e-5
    schedule: Literal["linear", "constant"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: NotNegative = 0.01
    clip: Positive = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    validate_: ValidateRecipe = Field(ValidateRecipe(), alias="validate")
    keep_snapshots: Count | None = Field(None, description="none: as many as the lag needs")
    max_failures: Annotated[int, Field(ge=0)] = 1

    @model_validator(mode="after")
    def _shares(self):
        if self.batch_size < self.workers:
            raise ValueError(f"batch_size ({self.batch_size}) is below workers ({self.workers}): some would have nothing to do")
        return self


class EvaluateRecipe(Section):
    """What is measured on the test split, once, at the end."""

    baselines: tuple[ObjectiveName, ...] = Field(("finetune",), description="objectives trained and measured beside the recipe's own")
    base: bool = Field(True, description="measure the student before training as well")
    teacher_on_test: bool = Field(False, description="ask the teacher the test questions too, to measure it on them (paid for)")
    workers: Count = 1
    cpus_per_worker: NotNegative = 1.0
    gpus_per_worker: NotNegative = 0.0
    resources_per_worker: dict[str, float] = {}
    batch_size: Count = 64


class ServingRecipe(Section):
    """The student's endpoint. ``replicas`` are the fewest; ``max_replicas`` above them lets Ray Serve add more under load."""

    host: str = Field("127.0.0.1", description="anything but the loopback wants a key")
    port: Annotated[int, Field(ge=0, le=65_535)] = 8_000
    api_key_env: str = Field("QCRD_API_KEY", description="the variable that holds the bearer key which callers must send; unset = none")
    api_key_file: str | None = Field(None, description="a file that holds the key; it goes before the variable")
    engine: Literal["auto", "transformers", "ctranslate2", "vllm"] = Field("auto", description="auto = what fits the model")
    model_name: str = Field("student", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="what OpenAI's clients call the student")
    replicas: Count = 1
    max_replicas: Count | None = Field(None, description="none: as many as replicas, no autoscaling")
    cpus_per_replica: NotNegative = 1.0
    gpus_per_replica: NotNegative = 0.0
    resources_per_replica: dict[str, float] = {}
    max_batch_size: Count = 32
    batch_wait_s: NotNegative = 0.005
    max_queued_requests: Count = Field(1_000, description="per proxy; beyond them: 503 with Retry-After")
    request_timeout_s: Positive = 120.0
    max_body_bytes: Count = 1 << 20
    max_questions: Count = Field(64, description="in one request; each sample of a question counts")
    max_output_tokens: Count | None = Field(None, description="none: what the student was trained to write")

    @model_validator(mode="after")
    def _replicas(self):
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) is below replicas ({self.replicas})")
        return self


class Variant(Section):
    """A method of one's own for `qcrd compare`: another one with some keys changed."""

    like: str = Field("qcrd", description="the method it starts from")
    set: dict[str, Any] = Field({}, description="dotted keys of this recipe: {negatives.right: drop}")


class CompareRecipe(Section):
    """`qcrd compare`: every method with every seed on the same rationales. A cell is one training in one process."""

    variants: dict[str, Variant] = {}
    workers: Count | None = Field(None, description="cells trained at a time; none: as many as the cluster has room for")
    cpus_per_worker: Positive = 1.0
    gpus_per_worker: NotNegative = 0.0
    resources_per_worker: dict[str, float] = {}
    control: Split | None = Field(None, description="the base's own pretraining data with rationales: what `control` is trained on")
    resamples: Annotated[int, Field(ge=1_000)] = Field(10_000, description="of the bootstrap over questions and seeds")


class RayRecipe(Section):
    """Which Ray. `local` starts one on this machine; `auto` joins the one that the environment names."""

    address: str = Field("auto", description="auto (join the running cluster, else start a local one), local, or an address")
    num_cpus: Count | None = Field(None, description="logical CPUs of a local Ray; none: at least 8, so that every stage fits")
    schedule_timeout_s: Positive = Field(300.0, description="how long a stage waits for its resources before it names what is missing")


class TrackingRecipe(Section):
    """Where a training's numbers go besides metrics.jsonl and TensorBoard, which are always written."""

    mlflow: str | None = Field(None, description="an MLflow tracking URI (needs the mlflow or mlflow-skinny package); none: not used")
    experiment: str = Field("qcrd", description="the MLflow experiment")


class Recipe(Section):
    """One run. Sections that a run does not touch may be left out."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    run: str = Field(description="the run folder: an absolute path or URI, or a path relative to where `qcrd` is called")
    seed: int = 0
    task: TaskRecipe
    data: DataRecipe
    teacher: TeacherRecipe
    sampling: SamplingRecipe = SamplingRecipe()
    generation: GenerationRecipe = GenerationRecipe()
    vote: VoteRecipe = VoteRecipe()
    student: StudentRecipe
    discriminator: DiscriminatorRecipe = DiscriminatorRecipe()
    objective: ObjectiveRecipe = ObjectiveRecipe()
    negatives: NegativesRecipe = NegativesRecipe()
    train: TrainRecipe = TrainRecipe()
    evaluate: EvaluateRecipe = EvaluateRecipe()
    serve: ServingRecipe = ServingRecipe()
    tracking: TrackingRecipe = TrackingRecipe()
    compare: CompareRecipe = CompareRecipe()
    ray: RayRecipe = RayRecipe()

    @model_validator(mode="after")
    def _together(self):
        if self.sampling.temperature == 0.0 and self.sampling.k > 1:
            raise ValueError("sampling.k > 1 at sampling.temperature 0 asks for the same text k times: raise the temperature or set k to 1")
        if self.teacher.source == "openai" and self.generation.questions_per_request > 1:
            raise ValueError("generation.questions_per_request: an openai teacher takes one question a request, so leave it at 1")
        if self.data.train.generate and self.task.kind != "word_problems":
            raise ValueError(f"data.train.generate: only the word_problems task makes its own questions, not {self.task.kind}")
        return self

    @property
    def lag(self) -> int:
        """Rounds between the snapshot that writes negatives and the round they are used in ."""
        return self.negatives.lag if self.negatives.lag != "auto" else max(1, min(5, self.train.rounds // 5))
