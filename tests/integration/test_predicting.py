"""`qcrd predict` on a local Ray: every row ends once, in order, also after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from endpoint_tiny import client, load, with_judge

from qcrd_ray.errors import MissingResource
from qcrd_ray.inference import load_engine
from qcrd_ray.prediction.stage import PredictOptions, predict, prepare
from qcrd_ray.tasks.word_problems import generate

pytestmark = pytest.mark.integration

BAD = 'not JSON\n{"id": "no question"}\n\n{"id": 7, "question": "' + "x" * 30_000 + '"}\n'


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_questions(file: Path, count: int) -> list[str]:
    questions = [question.question for question in generate(count, seed=5)]
    lines = [json.dumps({"id": i, "question": question}) for i, question in enumerate(questions)]
    file.write_text("\n".join([*lines[:10], BAD + lines[10], *lines[11:]]), encoding="utf-8")
    return questions


def test_every_row_ends_once_and_in_order(local_ray, exported_student, tmp_path):
    questions = write_questions(tmp_path / "in.jsonl", 50)
    options = PredictOptions(rationale=True, quality=True, batch_size=8)
    job = prepare(
        exported_student,
        str(tmp_path / "in.jsonl"),
        tmp_path / "out.jsonl",
        options=options,
        rows_per_part=16,
    )
    reports = []
    counts = predict(job, workers=2, report=lambda *told: reports.append(told))
    assert (counts.answered, counts.rejected) == (50, 3)
    assert [done for done, _, _ in reports][-1] == 53 and {total for _, total, _ in reports} == {53}

    answers = read(tmp_path / "out.jsonl")
    assert [answer["id"] for answer in answers] == [str(i) for i in range(50)]
    assert [answer["row"] for answer in answers] == [*range(1, 11), *range(15, 55)]
    written = load_engine(exported_student).generate(
        [f"predict: {question}" for question in questions], max_tokens=12
    )
    assert [answer["text"] for answer in answers] == [text.text for (text,) in written]
    assert all(
        answer.keys() == {"row", "id", "label", "text", "rationale", "rationale_answer", "quality"}
        for answer in answers
    )
    assert all(0 <= answer["quality"] <= 1 for answer in answers)

    rejected = read(tmp_path / "out.rejected.jsonl")
    assert [(row["row"], row["id"]) for row in rejected] == [
        (11, None),
        (12, "no question"),
        (14, "7"),
    ]
    assert (
        "no JSON" in rejected[0]["reason"]
        and "empty" in rejected[1]["reason"]
        and "over task.max_question" in rejected[2]["reason"]
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "in.jsonl",
        "out.jsonl",
        "out.rejected.jsonl",
    ]


def test_the_votes_of_a_file_are_those_of_the_endpoint(local_ray, exported_student, tmp_path):
    questions = write_questions(tmp_path / "in.jsonl", 12)
    student = with_judge(exported_student, tmp_path / "student")
    job = prepare(
        student,
        str(tmp_path / "in.jsonl"),
        tmp_path / "out.jsonl",
        options=PredictOptions(samples=4),
        rows_per_part=5,
    )
    counts = predict(job)
    assert (counts.answered, counts.rejected) == (12, 3)
    asked = client(load(student)).post(
        "/v1/predict", json=[{"question": question, "samples": 4} for question in questions]
    )
    fields = ("vote", "vote_kind", "vote_rationale", "confidence", "votes", "shares")
    for row, answer in zip(read(tmp_path / "out.jsonl"), asked.json(), strict=True):
        assert row.keys() == {"row", "id", "label", "text", *fields}
        assert row["vote_kind"] == "judged"
        for field in fields:
            close = field in ("confidence", "shares") and row[field] is not None
            assert (pytest.approx(row[field], abs=1e-4) if close else row[field]) == answer[field]


def test_a_killed_call_goes_on_where_it_stopped(local_ray, exported_student, tmp_path):
    """The second call must answer the missing parts alone, and leave what a single call would have
    left.
    """
    write_questions(tmp_path / "in.jsonl", 800)
    address = ray.get_runtime_context().gcs_address
    names = [exported_student, tmp_path / "in.jsonl", tmp_path / "out.jsonl"]
    command = [
        sys.executable,
        Path(__file__).parents[1] / "support" / "predicted_file.py",
        address,
        *names,
    ]
    finished: dict[str, int] = {}
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        deadline = time.monotonic() + 120
        while len(finished) < 3 and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            finished = {
                file.name: file.stat().st_mtime_ns
                for file in (tmp_path / "out.jsonl.parts").glob("*.answers.jsonl")
            }
        os.kill(driver.pid, signal.SIGKILL)
    assert 3 <= len(finished) < 51

    job = prepare(
        exported_student,
        str(tmp_path / "in.jsonl"),
        tmp_path / "out.jsonl",
        options=PredictOptions(rationale=True),
        rows_per_part=16,
    )
    left = {part.number for part in job.parts if not job.output.answers_of(part.number).exists()}
    assert (
        left
        and {
            file.name: file.stat().st_mtime_ns for file in job.output.parts.glob("*.answers.jsonl")
        }.items()
        >= finished.items()
    )
    reports = []
    counts = predict(job, report=lambda *told: reports.append(told))
    assert (counts.answered, counts.rejected) == (800, 3)
    assert reports[0][0] > 16 * len(finished), "what was finished is not counted as done"
    assert [answer["id"] for answer in read(tmp_path / "out.jsonl")] == [str(i) for i in range(800)]


def test_more_than_the_cluster_has_is_refused(local_ray, exported_student, tmp_path):
    write_questions(tmp_path / "in.jsonl", 40)
    job = prepare(
        exported_student,
        str(tmp_path / "in.jsonl"),
        tmp_path / "out.jsonl",
        options=PredictOptions(),
        rows_per_part=4,
    )
    with pytest.raises(MissingResource, match=r"predicting \(--workers\) asks for 9 CPU"):
        predict(job, workers=9)
