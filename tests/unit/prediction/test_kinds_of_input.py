"""What training reads, `qcrd predict` reads; and what it writes, by the output's ending."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.inference.answering import Student
from qcrd_ray.models.student_folder import StudentFolder
from qcrd_ray.prediction.formats import write_answers
from qcrd_ray.prediction.stage import prepare
from qcrd_ray.prediction.worker import PredictOptions, Predictor, answer

ROWS = [
    {"key": f"k{i}", "problem": f'Anna has {i} "red" plums,\nand buys 2. How many?', "answer": "?"}
    for i in range(5)
]
COLUMNS = {"id": "key", "question": "problem"}


def as_csv(path: Path, mark=",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0], delimiter=mark)
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def as_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def as_list(path: Path) -> Path:
    path.write_text(json.dumps(ROWS, indent=1))
    return path


def as_lines(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def as_folder(path: Path) -> Path:
    datasets.DatasetDict({"new": datasets.Dataset.from_list(ROWS)}).save_to_disk(path)
    return path


KINDS = {
    "in.jsonl": as_lines,
    "in.json": as_list,
    "in.csv": as_csv,
    "in.tsv": lambda path: as_csv(path, "\t"),
    "semicolons.csv": lambda path: as_csv(path, ";"),
    "in.parquet": as_parquet,
    "saved": as_folder,
}


def job_of(student, file, output, **options):
    split = "new" if file.is_dir() else None
    return prepare(
        student,
        str(file),
        output,
        options=PredictOptions(columns=COLUMNS, **options),
        split=split,
        rows_per_part=2,
    )


def answered(job):
    """What the actors do, here in this process."""
    predictor = Predictor(job.student.path, job.file, job.output, job.options, threads=1)
    for part in job.parts:
        predictor(
            {name: getattr(part, name) for name in ("number", "start", "end", "first_line", "rows")}
        )
    return job.output.join(job.parts, job.options.fields)


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_gives_the_answers_of_the_others(tmp_path, exported_student, name):
    """Bug guarded: a CSV was read as JSON Lines, and each of its rows rejected after a minute. An
    `answer` in the rows, here one that is no number, is not looked at.
    """
    (tmp_path / "there").mkdir()
    file = KINDS[name](tmp_path / name)
    job = job_of(exported_student, file, tmp_path / "there" / "out.jsonl")
    assert answered(job).answered == 5
    written = (tmp_path / "there" / "out.jsonl").read_text()
    rows = [json.loads(line) for line in written.splitlines()]
    assert [row["id"] for row in rows] == [row["key"] for row in ROWS]
    student = Student(StudentFolder.open(exported_student))
    asked = [Question(id=row["key"], question=row["problem"]) for row in ROWS]
    assert [row["text"] for row in rows] == [
        each["text"] for each in answer(student, asked, PredictOptions())
    ]
    assert [each.name for each in (tmp_path / "there").iterdir()] == ["out.jsonl"]


def test_a_killed_job_of_a_csv_goes_on(tmp_path, exported_student):
    """What was spooled for it is read again by the next call, and nothing else lies about."""
    file = as_csv(tmp_path / "in.csv")
    first = job_of(exported_student, file, tmp_path / "out.jsonl")
    again = job_of(exported_student, file, tmp_path / "out.jsonl")
    assert again.parts == first.parts and again.file == first.file
    lines = [line.data for part in again.parts for line in again.file.read(part)]
    assert lines == [{"key": row["key"], "problem": row["problem"]} for row in ROWS]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.csv", "out.jsonl.parts"]
    file.write_text(file.read_text().replace("k4", "k5"))
    with pytest.raises(UserError, match="begun with another input"):
        job_of(exported_student, file, tmp_path / "out.jsonl")
    assert not list(tmp_path.glob(".*"))


def test_answers_as_csv_and_parquet_are_those_of_json_lines(tmp_path, exported_student):
    file = as_csv(tmp_path / "in.csv")
    read = {}
    for ending in ("jsonl", "csv", "parquet"):
        output = tmp_path / f"out.{ending}"
        answered(job_of(exported_student, file, output, rationale=True, samples=3))
        read[ending] = output
    lines = [json.loads(line) for line in read["jsonl"].read_text().splitlines()]
    assert len(lines) == 5
    table = pq.read_table(read["parquet"])
    assert table.column_names == list(lines[0])
    for row, line in zip(table.to_pylist(), lines, strict=True):
        row |= {name: dict(row[name]) for name in ("votes", "shares")}
        assert row == line
    with read["csv"].open(newline="") as cells:
        for row, line in zip(csv.DictReader(cells), lines, strict=True):
            assert json.loads(row["votes"]) == line["votes"]
            assert row["rationale"] == line["rationale"] and row["id"] == line["id"]
            assert row["label"] == (line["label"] or "")


def test_votes_are_mappings_in_each_format(tmp_path):
    """JSON in a cell, a map in Parquet."""
    part, fields = tmp_path / "0.jsonl", ("row", "votes", "shares")
    rows = [
        {"row": 1, "votes": {"3": 2, "ä": 1}, "shares": {"3": 0.75, "ä": 0.25}},
        {"row": 2, "votes": {}, "shares": {}},
    ]
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_answers([part], tmp_path / "x.parquet", format=".parquet", fields=fields)
    write_answers([part], tmp_path / "x.csv", format=".csv", fields=fields)
    read = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [
        {**row, "votes": dict(row["votes"]), "shares": dict(row["shares"])} for row in read
    ] == rows
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as cells:
        first, second = csv.DictReader(cells)
    assert json.loads(first["votes"]) == rows[0]["votes"] and "ä" in first["votes"]
    assert second["votes"] == "{}"


def test_the_fields_are_those_of_the_answers(tmp_path, exported_student):
    """They head a CSV, so one that is missing there would be missing from every row."""
    options = PredictOptions(rationale=True, quality=True, samples=2)
    part = tmp_path / "0.jsonl"
    part.write_text(json.dumps(dict.fromkeys(options.fields, None)) + "\n")
    for format in (".csv", ".parquet"):
        target = tmp_path / f"x{format}"
        assert write_answers([part], target, format=format, fields=options.fields) == 1
    file = as_lines(tmp_path / "in.jsonl")
    job = job_of(exported_student, file, tmp_path / "o.jsonl", quality=True, samples=2)
    answered(job)
    first, *_ = (tmp_path / "o.jsonl").read_text().splitlines()
    assert tuple(json.loads(first)) == job.options.fields


@pytest.mark.parametrize("name", ["out.xlsx", "out", "out.json"])
def test_an_ending_that_is_not_written_is_refused_at_once(tmp_path, exported_student, name):
    with pytest.raises(UserError, match=r"answers are written as \.jsonl, \.csv, \.parquet"):
        job_of(exported_student, as_csv(tmp_path / "in.csv"), tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == ["in.csv"]


def test_a_file_without_a_usable_row_is_refused_at_once(tmp_path, exported_student):
    """Bug guarded: 600 rejected rows, no answer, and exit code 0 after a minute and a half."""
    (tmp_path / "in.csv").write_text("key,problem\n" + "a,\n" * 5)
    with pytest.raises(UserError, match=r"(?s)none of the 5 rows .*row 2: the question is empty"):
        job_of(exported_student, tmp_path / "in.csv", tmp_path / "out.csv")
    assert [each.name for each in tmp_path.iterdir()] == ["in.csv"]


def test_nothing_is_left_where_nothing_was_answered(tmp_path, exported_student):
    """Where a glance did not show it; so that the mended call is not refused for the old one."""
    job = job_of(exported_student, as_lines(tmp_path / "in.jsonl"), tmp_path / "out.csv")
    for part in job.parts:
        rows = [{"row": i, "id": None, "reason": "bad", "text": ""} for i in range(part.rows)]
        job.output.rejected_of(part.number).write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
        job.output.answers_of(part.number).write_text("")
    with pytest.raises(UserError, match=r"none of the 5 rows can be answered.*\n  row 0: bad"):
        job.output.join(job.parts, job.options.fields)
    assert [each.name for each in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_name_that_may_be_a_data_set_says_how_to_name_one(tmp_path, exported_student):
    with pytest.raises(UserError, match="say which --split of it"):
        prepare(exported_student, "owner/name", tmp_path / "out.csv", options=PredictOptions())
