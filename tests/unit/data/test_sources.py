"""CSV, Parquet and Hugging Face data sets, in the shapes in which public sets lie on the hub: no
row is lost there either.
"""

from __future__ import annotations

import csv
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from qcrd_ray.data.json_lines import RECODE
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import DataRecipe, Split, TaskRecipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.questions import read_questions

NLI = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])


@pytest.fixture(autouse=True)
def own_datasets_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def read(split, *, kind="arithmetic", columns=None, values=None):
    paths = {name: {"path": "x"} for name in ("train", "validation", "test")}
    data = DataRecipe.model_validate({**paths, "columns": columns or {}, "values": values or {}})
    task = build_task(TaskRecipe(kind=kind))
    return read_questions(
        Split(**split),
        task=task,
        columns=data.columns,
        values=data.values,
        kind=kind,
        max_chars=20_000,
    )


def table(rows, features=None):
    return datasets.Dataset.from_list(rows, features=features and datasets.Features(features))


def test_csv_with_quotes_line_ends_and_bad_rows(tmp_path):
    file = tmp_path / "x.csv"
    file.write_bytes(
        b'\xef\xbb\xbfid,question,answer\r\n1,"How many, then?",3\r\n2,"Two\nlines'
        b' ""quoted""",4\r\n\r\n3,caf\xe9?,5\r\n4,short\r\n5,Why?,\r\n'
    )
    questions, rejected = read({"path": str(file)})
    assert [(q.id, q.question, q.answer) for q in questions] == [
        ("1", "How many, then?", "3"),
        ("2", 'Two\nlines "quoted"', "4"),
        ("5", "Why?", None),
    ]
    assert [(r.row, r.reason) for r in rejected] == [
        (6, f"not UTF-8; {RECODE}"),
        (7, "2 cells, where the header names 3 columns"),
    ]
    assert rejected[0].text == "3,caf�?,5"


def test_a_quote_that_never_closes_costs_its_own_rows_alone(tmp_path):
    """Bug guarded: csv.Error, which would end the run; what Python's reader gives up on becomes a
    rejected row.
    """
    file = tmp_path / "x.csv"
    file.write_text('id,question\n1,One?\n2,"' + "x\n" * 70_000 + "3,Three?\n")
    questions, rejected = read({"path": str(file)})
    assert (
        questions[0].id == "1"
        and rejected[0].row == 3
        and "no CSV: field larger" in rejected[0].reason
    )


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "no header"),
        ("id,id,question\n1,2,x\n", "'id' is named twice"),
        ("id,question\n", "is empty"),
    ],
)
def test_a_csv_without_rows_or_names_says_so(tmp_path, content, match):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(UserError, match=match):
        read({"path": str(tmp_path / "x.csv")})


def test_tsv(tmp_path):
    (tmp_path / "x.tsv").write_text("id\tquestion\tanswer\n1\tHow many, then?\t3\n")
    assert read({"path": str(tmp_path / "x.tsv")})[0][0].question == "How many, then?"


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6)


@settings(deadline=None, max_examples=40)
@given(st.lists(CELL, max_size=8))
def test_no_csv_row_is_ever_lost(tmp_path_factory, texts):
    """Whatever Python's own writer writes."""
    path = tmp_path_factory.mktemp("rows") / "x.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "question"), ("good", "How many?"), *enumerate(texts)])
    questions, rejected = read({"path": str(path)})
    assert len(questions) + len(rejected) == 1 + len(texts)
    assert {q.id: q.question for q in questions} == {"good": "How many?"} | {
        str(i): t for i, t in enumerate(texts) if t.strip()
    }


def test_parquet_reads_the_columns_it_needs_and_no_nan_as_text(tmp_path):
    rows = {
        "uid": [1, 2, 3],
        "Q": ["One?", "Two?", None],
        "A": [3.0, float("nan"), 1.0],
        "image": [b"\xff"] * 3,
    }
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    questions, rejected = read(
        {"path": str(tmp_path / "x.parquet")}, columns={"id": "uid", "question": "Q", "answer": "A"}
    )
    assert [(q.id, q.question, q.answer) for q in questions] == [
        ("1", "One?", "3"),
        ("2", "Two?", None),
    ]
    assert (rejected[0].row, rejected[0].reason) == (3, "the question is empty") and json.loads(
        rejected[0].text
    )["uid"] == 3
    (tmp_path / "y.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="no Parquet file"):
        read({"path": str(tmp_path / "y.parquet")})


# Each public set as its rows lie on the hub: (rows, features, kind, data.columns, data.values) and
# what is read out of the first row.
ANLI = {
    "uid": "a",
    "premise": "A man sleeps.",
    "hypothesis": "A man rests.",
    "label": 0,
    "reason": "Sleep is rest.",
}
ESNLI = {
    "premise": "A man sleeps.",
    "hypothesis": "He runs.",
    "label": 2,
    "explanation_1": "No.",
    "explanation_2": "",
}
CQA = {
    "id": "c",
    "question": "Where?",
    "question_concept": "x",
    "choices": {"label": ["A", "B"], "text": ["zoo", "den"]},
    "answerKey": "B",
}
SVAMP = {
    "ID": "chal-1",
    "Body": "Jo had 3 pens.",
    "Question": "How many now?",
    "Equation": "3-1",
    "Answer": "2.0",
    "Type": "-",
}
GSM8K = {"question": "How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"}
SQUAD = {
    "id": "s",
    "context": "Rome is in Italy.",
    "question": "Where is Rome?",
    "answers": {"text": ["Italy", "in Italy"], "n": [1, 2]},
}
ARC = {
    "id": "r",
    "question": {
        "stem": "Why?",
        "choices": [{"text": "up", "label": "A"}, {"text": "down", "label": "B"}],
    },
    "answerKey": "A",
}
MEDMCQA = {
    "id": "m",
    "question": "Which?",
    "opa": "one",
    "opb": "two",
    "opc": "three",
    "opd": "",
    "cop": 1,
}
HUB = {
    "anli": (
        ANLI,
        {
            **{
                name: datasets.Value("string")
                for name in ("uid", "premise", "hypothesis", "reason")
            },
            "label": NLI,
        },
        "nli",
        {
            "id": "uid",
            "question": "Premise: {premise}\nHypothesis: {hypothesis}",
            "answer": "label",
            "rationale": "reason",
        },
        {},
        (
            "a",
            "Premise: A man sleeps.\nHypothesis: A man rests.",
            (),
            "entailment",
            "Sleep is rest.",
        ),
    ),
    "esnli": (
        ESNLI,
        None,
        "nli",
        {
            "question": "Premise: {premise}\nHypothesis: {hypothesis}",
            "answer": "label",
            "rationale": "explanation_1",
        },
        {0: "entailment", 1: "neutral", 2: "contradiction"},
        (None, "Premise: A man sleeps.\nHypothesis: He runs.", (), "contradiction", "No."),
    ),
    "commonsense_qa": (
        CQA,
        None,
        "multiple_choice",
        {"answer": "answerKey"},
        {},
        ("c", "Where?", ("zoo", "den"), "den", None),
    ),
    "svamp": (
        SVAMP,
        None,
        "arithmetic",
        {"id": "ID", "question": "{Body} {Question}", "answer": "Answer"},
        {},
        ("chal-1", "Jo had 3 pens. How many now?", (), "2", None),
    ),
    "gsm8k": (GSM8K, None, "arithmetic", {}, {}, (None, "How many?", (), "7", None)),
    "arc": (
        ARC,
        None,
        "multiple_choice",
        {"question": "question.stem", "choices": "question.choices.text", "answer": "answerKey"},
        {},
        ("r", "Why?", ("up", "down"), "up", None),
    ),
    "medmcqa": (
        MEDMCQA,
        None,
        "multiple_choice",
        {"choices": ["opa", "opb", "opc", "opd"], "answer": "cop"},
        {0: "A", 1: "B", 2: "C", 3: "D"},
        ("m", "Which?", ("one", "two", "three"), "two", None),
    ),
}


@pytest.mark.parametrize("name", HUB)
def test_public_sets_are_read_as_they_lie_on_the_hub(name, tmp_path):
    row, features, kind, columns, values, expected = HUB[name]
    datasets.DatasetDict(
        {"train": table([row], features), "dev": table([row], features)}
    ).save_to_disk(tmp_path / "saved")
    [question], rejected = read(
        {"dataset": str(tmp_path / "saved"), "split": "train"},
        kind=kind,
        columns=columns,
        values=values,
    )
    id, *rest = expected
    assert not rejected and question.id == (id or question.id)
    assert (question.question, question.choices, question.answer, question.rationale) == tuple(rest)


def test_a_value_that_is_a_meaning_already_stays(tmp_path):
    """A set's export may know its class names or may not; one recipe reads both."""
    (tmp_path / "x.jsonl").write_text(
        '{"question": "a?", "answer": 1}\n{"question": "b?", "answer": "neutral"}\n'
    )
    questions, rejected = read(
        {"path": str(tmp_path / "x.jsonl")}, kind="nli", values={0: "entailment", 1: "neutral"}
    )
    assert [q.answer for q in questions] == ["neutral", "neutral"] and not rejected


def test_class_names_are_known_in_a_parquet_file_of_the_hub_too(tmp_path):
    rows, features = (
        [{"question": f"{i}?", "answer": label} for i, label in enumerate((0, 2, -1))],
        {"question": None, "answer": NLI},
    )
    table(rows, features | {"question": datasets.Value("string")}).to_parquet(
        tmp_path / "x.parquet"
    )
    questions, rejected = read({"path": str(tmp_path / "x.parquet")}, kind="nli")
    assert [q.answer for q in questions] == [
        "entailment",
        "contradiction",
        None,
    ] and not rejected  # -1: the hub's "no label"


def test_a_folder_of_data_files_and_its_splits(tmp_path):
    """The hub's own layout: load_dataset takes the split from a file's name. Splits add up with
    +.
    """
    folder = tmp_path / "set"
    folder.mkdir()
    for split, ids in (("train", (1, 2)), ("test", (3,))):
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps({"id": i, "question": f"{i}?", "answer": i}) + "\n" for i in ids)
        )
    assert [q.id for q in read({"dataset": str(folder), "split": "train"})[0]] == ["1", "2"]
    assert [
        q.id for q in read({"dataset": str(folder), "split": "train+test", "rows": (1, 3)})[0]
    ] == ["2", "3"]
    with pytest.raises(UserError, match="it has the splits train, test: say which with `split`"):
        read({"dataset": str(folder)})
    with pytest.raises(UserError, match=r"cannot be loaded: .*dev"):
        read({"dataset": str(folder), "split": "dev"})


def test_a_saved_folder_and_its_splits(tmp_path):
    parts = {name: table([{"id": name, "question": f"{name}?"}]) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "dict")
    parts["train"].save_to_disk(tmp_path / "one")
    assert [q.id for q in read({"dataset": str(tmp_path / "dict"), "split": "train+test"})[0]] == [
        "train",
        "test",
    ]
    assert [q.id for q in read({"dataset": str(tmp_path / "one")})[0]] == ["train"]
    with pytest.raises(UserError, match=r"it has the splits train, test: say which.*not 'dev'"):
        read({"dataset": str(tmp_path / "dict"), "split": "dev"})
    with pytest.raises(UserError, match="holds one split, so leave `split` out"):
        read({"dataset": str(tmp_path / "one"), "split": "train"})
    with pytest.raises(UserError, match="a folder has no revisions"):
        read({"dataset": str(tmp_path / "one"), "revision": "main"})


def test_a_hub_that_cannot_be_reached_is_said_in_the_hubs_words(monkeypatch, tmp_path):
    """As far as a hub id can be tried without a network: the call that is made, and what becomes of
    its failure.
    """
    asked = {}

    def load(name, config, **how):
        asked.update(name=name, config=config, **how)
        raise ConnectionError("Couldn't reach 'facebook/anli' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        UserError,
        match=r"facebook/anli plain_text train_r1: the data set cannot be loaded: Couldn't reach",
    ):
        read(
            {
                "dataset": "facebook/anli",
                "config": "plain_text",
                "split": "train_r1",
                "revision": "main",
            },
            kind="nli",
        )
    assert asked == {
        "name": "facebook/anli",
        "config": "plain_text",
        "split": "train_r1",
        "revision": "main",
    }
    with pytest.raises(UserError, match="there is no such folder"):
        read({"dataset": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    ("row", "columns", "reason"),
    [
        (
            {"premise": "x", "hypothesis": None},
            {"question": "P: {premise} H: {hypothesis}"},
            "hypothesis is empty (data.columns.question)",
        ),
        (
            {"question": "x", "answer": "e"},
            {"answer": "answer.text"},
            "answer.text: there is no 'text' in a str (data.columns.answer)",
        ),
        (
            {"question": "x", "q": ["y"]},
            {"question": "{question} {q}"},
            "q must be a text, not list (data.columns.question)",
        ),
        (
            {"question": "x", "q": ["y"]},
            {"question": "q"},
            "q must be a text, not list (data.columns.question)",
        ),
        (
            {"question": "x", "a": "1", "b": {}},
            {"choices": ["a", "b"]},
            "each of [a, b] must be a text, not dict (data.columns.choices)",
        ),
        (
            {"question": "x", "answer": 7},
            {"answer": "answer"},
            "answer is '7', which data.values does not name; it names 0, true",
        ),
    ],
)
def test_a_row_that_the_mapping_does_not_fit_is_rejected_with_key_and_column(
    tmp_path, row, columns, reason
):
    good = {key: "3" for key in ("question", "premise", "hypothesis", "q", "a", "b")} | {
        "answer": {"text": 0}
    }
    if "answer.text" not in columns.values():
        good["answer"] = 0
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    questions, [rejected] = read(
        {"path": str(tmp_path / "x.jsonl")}, columns=columns, values={0: "3", True: "4"}
    )
    assert len(questions) == 1 and rejected.row == 2 and reason in rejected.reason


def test_an_empty_choice_between_others_does_not_move_the_letters(tmp_path):
    """Bug guarded: with an empty option left out, the gold letter D would name another choice."""
    rows = [
        {"question": f"{i}?", "a": "x", "b": b, "c": "z", "answer": "C"}
        for i, b in enumerate(("y", ""))
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    [question], [rejected] = read(
        {"path": str(tmp_path / "x.jsonl")},
        kind="multiple_choice",
        columns={"choices": ["a", "b", "c"]},
    )
    assert question.answer == "z" and rejected.reason == "a choice is empty"


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        (
            {"question": "{Body} {Qestion}"},
            r"no row has the column 'Qestion'; did you mean 'Question'\?.*data\.columns\.question",
        ),
        (
            {"question": "Question", "choices": ["Body", "c"]},
            r"no row has the column 'c'.*data\.columns\.choices",
        ),
        ({"question": "Question", "answer": "answer.text"}, r"no row has the column 'answer'"),
        ({"question": "{Body"}, "each brace must close around a column's name"),
        ({"question": "{} {Body}"}, "each brace must close"),
    ],
)
def test_a_mapping_to_columns_that_are_not_there_is_refused_at_once(tmp_path, columns, match):
    (tmp_path / "x.jsonl").write_text(json.dumps({"Body": "x", "Question": "y"}))
    with pytest.raises(UserError, match=match):
        read({"path": str(tmp_path / "x.jsonl")}, columns=columns)


def test_braces_and_points_in_names(tmp_path):
    row = {"a.b": "3", "a": {"b": "4"}, "q{1}": "how?"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    [question], _ = read(
        {"path": str(tmp_path / "x.jsonl")}, columns={"question": "{{a}} {a.b}", "answer": "a.b"}
    )
    assert (question.question, question.answer) == ("{a} 3", "3")


@pytest.mark.parametrize(
    ("split", "match"),
    [
        ({}, "give exactly one of `path`"),
        ({"path": "x", "dataset": "y"}, "give exactly one of `path`"),
        ({"path": "x", "split": "train"}, "split: only a `dataset` has that"),
    ],
)
def test_a_split_has_one_source(split, match):
    with pytest.raises(ValidationError, match=match):
        Split(**split)


@pytest.mark.parametrize(
    ("split", "origin"),
    [
        ({"path": "/home/somebody/x.csv"}, "x.csv"),
        ({"dataset": "/home/somebody/set", "split": "train"}, "set train"),
        ({"dataset": "facebook/anli", "split": "train_r1"}, "facebook/anli train_r1"),
        ({"generate": 3}, None),
    ],
)
def test_an_origin_names_no_folder_of_the_machine(split, origin):
    assert Split(**split).origin == origin
