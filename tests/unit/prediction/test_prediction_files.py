"""Large files in parts: no row is lost or answered twice at a border, and nothing is written
over.
"""

from __future__ import annotations

import json

import pytest
from endpoint_tiny import with_judge
from hypothesis import given
from hypothesis import strategies as st

from qcrd_ray.data.json_lines import read_json_lines
from qcrd_ray.errors import UserError
from qcrd_ray.prediction.input import LineFile, split_file
from qcrd_ray.prediction.output import Output, RowCounts
from qcrd_ray.prediction.stage import prepare, read_columns
from qcrd_ray.prediction.worker import PredictOptions

RAW = [
    b'{"question": "1 + 1?"}',
    b'{"id": "\xc3\xa4"}\r',
    b"",
    b"  \t",
    b"{broken",
    b"\xff",
    b"[1]",
]
LINES = st.lists(st.sampled_from(RAW), max_size=30)


@given(lines=LINES, ends_in_newline=st.booleans(), mark=st.booleans(), rows=st.integers(1, 7))
def test_the_parts_hold_the_file(tmp_path_factory, lines, ends_in_newline, mark, rows):
    """Read in parts, a file has the same lines, numbers and reasons as read whole."""
    file = tmp_path_factory.mktemp("cut") / "in.jsonl"
    file.write_bytes(
        b"\xef\xbb\xbf" * mark + b"\n".join([*lines, b'{"last": 1}']) + b"\n" * ends_in_newline
    )
    parts, _ = split_file(file, rows=rows)
    lines = LineFile(path=file)
    assert [line for part in parts for line in lines.read(part)] == read_json_lines(str(file))
    assert [part.number for part in parts] == list(range(len(parts)))
    assert all(part.rows == len(list(lines.read(part))) for part in parts)
    assert all(part.rows == rows for part in parts[:-1])


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "in.jsonl").write_text("\n \n")
    with pytest.raises(UserError, match="empty"):
        split_file(tmp_path / "in.jsonl", rows=3)


def ask(tmp_path, student, *, rows=None, name="out.jsonl", **options):
    if rows is not None:
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prepare(
        student,
        str(tmp_path / "in.jsonl"),
        tmp_path / name,
        options=PredictOptions(**options),
        rows_per_part=2,
    )


def test_parts_are_joined_in_order_and_counted(tmp_path, exported_student):
    job = ask(tmp_path, exported_student, rows=[{"question": f"{i} + 1?"} for i in range(5)])
    for part in reversed(job.parts):
        job.output.rejected_of(part.number).write_text('{"row": 3}\n' if part.number == 1 else "")
        job.output.answers_of(part.number).write_text(
            f'{{"part": {part.number}, "label": "2"}}\n' * (part.rows - (part.number == 1))
        )
    counts = job.output.join(job.parts, job.options.fields)
    assert counts == RowCounts(answered=4, rejected=1, unread=0)
    assert [
        json.loads(line)["part"] for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ] == [0, 0, 1, 2]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "in.jsonl",
        "out.jsonl",
        "out.rejected.jsonl",
    ]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.parquet"])
def test_rows_without_an_answer_that_can_be_read_are_told(tmp_path, exported_student, name):
    """Bug guarded: a student that writes nonsense had "answered" each row, with an empty cell."""
    rows = [{"question": f"{i} + 1?"} for i in range(4)]
    job = ask(tmp_path, exported_student, rows=rows, name=name, samples=2)
    answers = [(None, None), ("2", None), (None, "2"), (None, None)]
    empty = dict.fromkeys(job.options.fields)
    for part in job.parts:
        two = answers[2 * part.number :][:2]
        lines = [json.dumps(empty | {"label": label, "vote": vote}) for label, vote in two]
        job.output.answers_of(part.number).write_text("".join(f"{line}\n" for line in lines))
        job.output.rejected_of(part.number).write_text("")
    counts = job.output.join(job.parts, job.options.fields)
    assert counts == RowCounts(answered=4, rejected=0, unread=2)


@pytest.mark.parametrize("there", ["out.jsonl", "out.rejected.jsonl", "out.jsonl.parts"])
def test_nothing_is_written_over(tmp_path, exported_student, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(UserError, match=f"{there} exists"):
        ask(tmp_path, exported_student, rows=[{"question": "1 + 1?"}])
    assert (tmp_path / there).read_text() == "mine"


def test_what_was_begun_with_something_else_is_not_gone_on_with(tmp_path, exported_student):
    """Half the answers with a rationale and half without, or of another file, would look like one
    output.
    """
    rows = [{"question": "1 + 1?"}]
    ask(tmp_path, exported_student, rows=rows)
    ask(tmp_path, exported_student)  # the same call again: what was killed goes on
    ask(tmp_path, exported_student, engine="transformers", batch_size=3)  # writes the same
    with pytest.raises(UserError, match=r"begun with another rationale"):
        ask(tmp_path, exported_student, rationale=True)
    with pytest.raises(UserError, match=r"begun with another input"):
        ask(tmp_path, exported_student, rows=[*rows, *rows])


def test_another_vote_is_another_job(tmp_path, exported_student):
    """Also where it is another by default: a judge has been put into the folder since."""
    rows = [{"question": "1 + 1?"}]
    ask(tmp_path, exported_student, rows=rows, samples=4)
    ask(tmp_path, exported_student, samples=4, vote="plain")  # which it was
    with pytest.raises(UserError, match=r"begun with another samples"):
        ask(tmp_path, exported_student, samples=5)
    judged = with_judge(exported_student, tmp_path / "judged")
    with pytest.raises(UserError, match=r"begun with another vote and another judge"):
        ask(tmp_path, judged, samples=4)
    ask(tmp_path, judged, samples=4, vote="plain")


def test_votes_that_cannot_be_held_are_told(tmp_path, exported_student):
    rows = [{"question": "1 + 1?"}]
    with pytest.raises(UserError, match=r"--vote judged: .* holds no judge"):
        ask(tmp_path, exported_student, rows=rows, samples=4, vote="judged")
    with pytest.raises(UserError, match=r"say how many by --samples"):
        ask(tmp_path, exported_student, rows=rows, vote="plain")
    assert not Output(tmp_path / "out.jsonl").parts.exists()


def test_mistakes_are_told_before_anything_starts(tmp_path, exported_student, tiny_student):
    rows = [{"problem": "1 + 1?", "id": 1}]
    with pytest.raises(
        UserError, match=r"no row has the column 'question'.*--column question=\.\.\."
    ):
        ask(tmp_path, exported_student, rows=rows)
    with pytest.raises(UserError, match=r"serve\.engine: vllm cannot run"):
        ask(tmp_path, exported_student, rows=rows, engine="vllm")
    with pytest.raises(UserError, match=r"no student folder"):
        ask(tmp_path, tiny_student, rows=rows)
    with pytest.raises(UserError, match=r"there is no folder"):
        ask(
            tmp_path,
            exported_student,
            rows=rows,
            columns={"question": "problem"},
            name="no/out.jsonl",
        )
    assert not Output(tmp_path / "out.jsonl").parts.exists()


def test_columns():
    assert read_columns(["question=problem", "id=a=b"]) == {"question": "problem", "id": "a=b"}
    for wrong in ("question", "question=", "=problem", "query=problem", "answer=gold"):
        with pytest.raises(UserError, match="--column"):
            read_columns([wrong])
