"""Recipes: every mistake is named with its place, its key and what was expected."""

from __future__ import annotations

import re
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe, ServeTeacher
from qcrd_ray.recipe.file import dump_recipe, load_recipe

RECIPE = """\
name: small
run: runs/small
task:
  kind: arithmetic
data:
  train: {path: train.jsonl}
  validation: {path: validation.jsonl}
  test: {path: test.jsonl}
teacher:
  source: serve
  model: demo
student:
  model: demo
train:
  rounds: 3
"""


@pytest.fixture
def write(tmp_path):
    def _write(text=RECIPE):
        path = tmp_path / "r.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def mistake(path, *overrides) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def test_a_recipe_and_its_overrides(write):
    recipe = load_recipe(
        write(),
        [
            "train.rounds=4",
            "train.learning_rate=1e-4",
            "data.train.rows=[0, 10]",
            'task.instruction=""',
        ],
    )
    assert (
        recipe.train.rounds,
        recipe.train.learning_rate,
        recipe.data.train.rows,
        recipe.task.instruction,
    ) == (4, 1e-4, (0, 10), "")
    assert recipe.train.batch_size == 64  # untouched keys keep their defaults
    assert load_recipe(write(), ["a=1"][:0]).train.rounds == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  rounds: 3",
            "  runds: 3",
            "r.yaml:15: train.runds: there is no such key; did you mean train.rounds?",
        ),
        (
            "  rounds: 3",
            "  beta: 3",
            "r.yaml:15: train.beta: there is no such key; did you mean objective.beta?",
        ),
        (
            "  rounds: 3",
            "  zzzzz: 3",
            "r.yaml:15: train.zzzzz: there is no such key; train has: rounds, round,",
        ),
        (
            "  rounds: 3",
            "  validate_: {}",
            "r.yaml:15: train.validate_: there is no such key; did you mean train.validate?",
        ),
        ("  rounds: 3", "  rounds: 0", "r.yaml:15: train.rounds: expected at least 1, not 0"),
        (
            "  rounds: 3",
            "  rounds: 2.5",
            "r.yaml:15: train.rounds: expected a whole number, not 2.5",
        ),
        (
            "  rounds: 3",
            "  rounds: many",
            "r.yaml:15: train.rounds: expected a whole number, not 'many'",
        ),
        (
            "  rounds: 3",
            "  rounds: [3]",
            "r.yaml:15: train.rounds: expected a whole number, not [3]",
        ),
        (
            "  rounds: 3",
            "  round: {unit: weeks}",
            "r.yaml:15: train.round.unit: expected 'steps' or 'epochs', not 'weeks'",
        ),
        (
            "  rounds: 3",
            "  batch_size: 2\n  workers: 4",
            "r.yaml:14: train: batch_size (2) is below workers (4)",
        ),
        (
            "train:\n",
            "sampling: {k: 0}\ntrain:\n",
            "r.yaml:14: sampling.k: expected at least 1, not 0",
        ),
        (
            "train:\n",
            "objective: {beta: -1}\ntrain:\n",
            "r.yaml:14: objective.beta: expected at least 0.0, not -1",
        ),
        (
            "train:\n",
            "objective: {delta: .inf}\ntrain:\n",
            "r.yaml:14: objective.delta: expected a finite number, not inf",
        ),
        (
            "train:\n",
            "negatives: {lag: 0}\ntrain:\n",
            "r.yaml:14: negatives.lag: expected at least 1 or 'auto', not 0",
        ),
        (
            "train:\n",
            "negatives: {lag: never}\ntrain:\n",
            "r.yaml:14: negatives.lag: expected a whole number or 'auto', not 'never'",
        ),
        (
            "train:\n  rounds: 3",
            "train: fast",
            "r.yaml:14: train: expected keys and values, not 'fast'",
        ),
        (
            "  model: demo\nstudent",
            "  modle: demo\nstudent",
            "r.yaml:11: teacher.modle: there is no such key; did you mean teacher.model?",
        ),
        (
            "  source: serve",
            "  source: api",
            "r.yaml:10: teacher.source: expected 'serve' or 'openai' or 'recording', not 'api'",
        ),
        (
            "  source: serve\n",
            "",
            "r.yaml:9: teacher.source: is missing; expected 'serve' or 'openai' or 'recording'",
        ),
        (
            "  kind: arithmetic",
            "  kind: math",
            "r.yaml:4: task.kind: expected word_problems, arithmetic, ",
        ),
        (
            "  kind: arithmetic",
            "  kind: nli\n  examples: [{qestion: x}]",
            "r.yaml:5: task.examples.0.qestion: there is no such key",
        ),
        ("  test: {path: test.jsonl}\n", "", "r.yaml:5: data.test: is missing"),
        (
            "  test: {path: test.jsonl}",
            "  test: {}",
            "r.yaml:8: data.test: give exactly one of `path`",
        ),
        ("task:\n", "task_:\n", "r.yaml: task: is missing"),
        ("name: small", "name: 2024-01-01", "r.yaml:1: name: expected a text (put it in quotes"),
        (
            "  rounds: 3",
            "  rounds: 3\n  rounds: 4",
            "r.yaml:16: train.rounds is given twice, first at",
        ),
        (
            "  rounds: 3",
            "  rounds: !!python/name:os.system",
            "r.yaml:15: not YAML that a recipe may hold",
        ),
        ("  rounds: 3", "  rounds: {3", "r.yaml:16: not YAML that a recipe may hold"),
        ("  rounds: 3", "\trounds: 3", "r.yaml:15: not YAML that a recipe may hold"),
        ("train:\n  rounds: 3", "train: &t\n  round: *t", "train.round holds itself"),
    ],
)
def test_a_mistake_is_named_with_its_place(write, old, new, message):
    assert old in RECIPE
    assert message in mistake(write(RECIPE.replace(old, new, 1)))


def test_all_mistakes_are_told_at_once(write):
    wrong = RECIPE.replace("rounds: 3", "rounds: 0\n  warmup: 1").replace(
        "source: serve", "source: serve\n  min_replica: 0"
    )
    text = mistake(write(wrong))
    assert [re.sub(r".*/", "", line).split(":")[:3] for line in text.splitlines()] == [
        ["r.yaml", "11", " teacher.min_replica"],
        ["r.yaml", "16", " train.rounds"],
        ["r.yaml", "17", " train.warmup"],
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.rounds=0", "--set train.rounds=0: train.rounds: expected at least 1, not 0"),
        (
            "train.rond=3",
            "--set train.rond=3: train.rond: there is no such key; did you mean train.round",
        ),
        ("rounds", "--set rounds: expected key=value"),
        ("=3", "--set =3: expected key=value"),
        ("train..rounds=3", "expected key=value"),
        ("name.first=x", "--set name.first=x: name holds 'small', not keys"),
        ("train.rounds={", "--set train.rounds={:1: not YAML"),
        ("train={rounds: 0}", "--set train={rounds: 0}: train.rounds: expected at least 1, not 0"),
        (
            "data.train.rows=[5, 3]",
            (
                "r.yaml:6 (with --set data.train.rows=[5, 3]): data.train: rows must be [first,"
                " past the last]"
            ),
        ),
        (
            "sampling.temperature=0",
            "r.yaml (with --set sampling.temperature=0): sampling.k > 1 at sampling.temperature 0",
        ),
        (
            "sampling={k: 2, adaptive: {}}",
            "sampling: adaptive: 2 samples are too few to save any; raise k to 3 or more",
        ),
        (
            "sampling.adaptive={rule: window, window: 5}",
            "sampling: adaptive.window (5) must be below k (5)",
        ),
        (
            "sampling.adaptive={threshold: 0.5}",
            "sampling.adaptive.threshold: expected more than 0.5, not 0.5",
        ),
        (
            "data.train.rows=[0, 1, 2]",
            "--set data.train.rows=[0, 1, 2]: data.train.rows: expected at most 2 items",
        ),
        ("teacher.path=x", "--set teacher.path=x: teacher.path: there is no such key"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(write, override, message):
    assert message in mistake(write(), override)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the recipe is empty"),
        ("# nothing\n", "not nothing"),
        ("- a\n", "not a list"),
        ("hello", "not 'hello'"),
        (b"name: \xff", "not UTF-8: byte 0xff at position 6"),
    ],
)
def test_what_is_no_recipe(write, content, message):
    assert message in mistake(write(content))


def test_no_file(tmp_path):
    assert "there is no such recipe" in mistake(tmp_path / "none.yaml")
    assert "is a folder" in mistake(tmp_path)


def test_a_section_with_all_keys_commented_out_takes_its_defaults(write):
    assert load_recipe(write(RECIPE.replace("  rounds: 3", "  # rounds: 3"))).train.rounds == 10


def test_the_environment_is_not_looked_at(write, monkeypatch):
    """A run folder's recipe must not hold one machine's paths; they are filled in when a file is
    opened.
    """
    monkeypatch.setenv("WHERE", "/here")
    path = write(RECIPE.replace("train.jsonl", "'${WHERE}/train.jsonl'"))
    assert load_recipe(path).data.train.path == "${WHERE}/train.jsonl"


def test_a_written_recipe_is_whole_and_reads_back(write, tmp_path):
    recipe = load_recipe(
        write(), ["data.held_out={path: h.jsonl, rows: [1, 2]}", "data.columns={question: Body}"]
    )
    text = dump_recipe(recipe)
    assert load_recipe(write(text)) == recipe
    assert set(yaml.safe_load(text)) == set(Recipe.model_fields)  # defaults included


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=10)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)
@given(options=st.dictionaries(texts, values, max_size=3), model=texts)
def test_any_values_read_back(tmp_path_factory, options, model):
    """Guards against texts that come back as numbers ("1e5", "0x10", "no") and numbers that come
    back as texts (1e-05).
    """
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_text(RECIPE)
    recipe = load_recipe(path)
    recipe = recipe.model_copy(
        update={"teacher": ServeTeacher(source="serve", model=model, engine_kwargs=options)}
    )
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


TEXTS = [
    "1e5",
    "1e-05",
    "0x10",
    "no",
    "null",
    "~",
    "2024-01-01",
    "1_000",
    "=",
    "<<",
    "${X}",
    " a ",
    "a: b",
    "# c",
    "é\n\n x",
    "a\x85b",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_stays_a_text(write, text):
    recipe = load_recipe(write())
    recipe = recipe.model_copy(
        update={
            "teacher": ServeTeacher(
                source="serve", model=text, engine_kwargs={"x": text, "y": 1e-05}
            )
        }
    )
    assert load_recipe(write(dump_recipe(recipe))) == recipe


def _laughs(levels):
    """Each level names the one before it nine times."""
    lines = ["a0: &a0 [x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 3_000 + "]" * 3_000, "r.yaml:1: .*nested more than 50 levels deep"),
        ("{a: " * 3_000 + "1" + "}" * 3_000, "r.yaml:1: .*nested more than 50 levels deep"),
        (_laughs(12), "more than 20,000 keys and items; each alias repeats"),
        ("name: " + "x" * (1 << 20), "1,048,582 bytes are no recipe"),
    ],
    ids=["lists", "mappings", "aliases", "size"],
)
def test_what_would_take_for_ever_is_refused_at_once(tmp_path, text, message):
    """Guards a recipe of a kilobyte that takes minutes, or ends in a RecursionError."""
    file = tmp_path / "r.yaml"
    file.write_text(text)
    began = time.monotonic()
    with pytest.raises(UserError, match=message):
        load_recipe(file)
    assert time.monotonic() - began < 5
