"""What was read from samples: counted once each, and shown text by text with `qcrd parse`."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Outcome
from qcrd_ray.errors import UserError
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.report.parse import parse_texts
from qcrd_ray.report.reading import ReadingSummary

TEXTS = ["6 + 2 = 8. So the answer is 8.", "The answer is 8.", "It is 7.", "The answer is ±8."]


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"id": "q1", "question": "6 and 2?", "answer": "8"}\n')
    split = {"path": str(tmp_path / "q.jsonl")}
    (tmp_path / "c.jsonl").write_text(
        "".join(json.dumps({"id": "q1", "completion": text}) + "\n" for text in TEXTS)
    )
    (tmp_path / "r.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "t",
                "run": str(tmp_path / "run"),
                "task": {"kind": "arithmetic"},
                "data": {"train": split, "validation": split, "test": split},
                "teacher": {"source": "recording", "path": str(tmp_path / "c.jsonl")},
                "sampling": {"k": 4},
                "student": {"model": "x"},
            }
        )
    )
    return load_recipe(tmp_path / "r.yaml")


def test_each_text_is_shown_with_its_source_or_reason(recipe, tmp_path):
    lines = list(parse_texts(recipe, tmp_path / "c.jsonl"))
    assert lines[0] == "q1: '8' from 'So the answer is 8.', right"
    assert lines[2] == "q1: '7' from 'It is 7.', gold: '8'"
    assert "unread, no one number can be read for sure in '±8'" in lines[3]
    assert lines[5] == "4 samples of 1 questions"
    totals = {line[2:38].strip(): line.split()[-2] for line in lines[6:11]}
    assert totals == {
        "single samples right": "50.0",
        "votes right": "100.0",
        "samples without a readable answer": "25.0",
        "samples cut off by the token limit": "0.0",
        "questions whose vote is tied": "0.0",
    }
    assert "±8" in lines[-1]


def test_standard_input_and_texts_without_an_id(recipe, monkeypatch):
    raw = io.BytesIO(b'{"completion": "The answer is 9."}\n')
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=raw))
    lines = list(parse_texts(recipe, Path("-")))
    assert lines[0] == "line 1: '9' from 'answer is 9.'"
    assert not any("right" in line for line in lines)  # nothing is known to compare with


def test_a_row_without_a_text_is_refused(recipe, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"id": "q1", "text": "8"}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl:1: no 'completion'.*teacher\.columns"):
        list(parse_texts(recipe, tmp_path / "bad.jsonl"))


def test_a_sample_that_was_cut_off_is_not_counted_as_unread():
    summary = ReadingSummary()
    cut = {"answer": None, "reason": "cut off", "finish_reason": "length", "text": "It"}
    unread = {"answer": None, "reason": "none", "finish_reason": "stop", "text": "I do not know"}
    for number in range(5):
        summary.add(
            id=str(number), gold="8", outcome="no_consensus", vote=None, completions=[cut, unread]
        )
    assert (summary.samples, summary.cut_off, summary.unread, summary.ties) == (10, 5, 5, 5)
    assert (summary.known, summary.right) == (10, 0)
    assert [each.id for each in summary.examples] == ["0", "1", "2"]  # three are enough


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "1", "2"]),
            st.sampled_from(list(Outcome)),
            st.sampled_from([None, "1", "2"]),
            st.lists(
                st.tuples(st.sampled_from([None, "1", "2"]), st.sampled_from(["stop", "length"])),
                max_size=3,
            ),
        ),
        max_size=6,
    )
)
def test_a_table_is_counted_as_its_rows_are(rows):
    one, other = ReadingSummary(), ReadingSummary()
    made = [
        {
            "question_id": "q",
            "gold": gold,
            "outcome": outcome.value,
            "vote": vote,
            "completions": [
                {"answer": answer, "reason": "", "finish_reason": finish}
                for answer, finish in samples
            ],
        }
        for gold, outcome, vote, samples in rows
    ]
    for row in made:
        one.add(id="q", **{key: row[key] for key in ("gold", "outcome", "vote", "completions")})
    table = pa.Table.from_pylist([dict(row) for row in made], schema=RATIONALE_SET_SCHEMA)
    other.add_rows(table)
    assert replace(one, examples=[]) == other
