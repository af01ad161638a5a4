"""The recording as teacher: which K of the recorded completions are taken, and what a bad file is
told.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import pickle
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import RecordedTeacher, SamplingRecipe
from qcrd_ray.teacher import TeacherRequest
from qcrd_ray.teacher import recording as module
from qcrd_ray.teacher.recording import Recording, RecordingIndex


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recording(
    path: str, *, k: int = 5, seed: int = 0, adaptive: dict | None = None, **columns
) -> Recording:
    return Recording(
        RecordedTeacher(source="recording", path=path, columns=columns),
        SamplingRecipe(k=k, adaptive=adaptive),
        seed=seed,
    )


def texts(teacher: Recording, *ids: str, samples: int = 99, first: int = 0) -> list[list[str]]:
    asks = [TeacherRequest(Question(id=id, question="?"), "?", samples, first) for id in ids]
    return [
        [completion.text for completion in answer.completions]
        for answer in asyncio.run(teacher.complete(asks))
    ]


@pytest.fixture
def ten(tmp_path) -> str:
    """Two questions, ten completions each, the right ones first: as SVAMP's recording is sorted."""
    return write(
        tmp_path / "ten.jsonl",
        [{"id": id, "completion": f"{id}{i}"} for id in "ab" for i in range(10)],
    )


def test_k_of_them_are_chosen_and_not_the_first_k(ten):
    """The SVAMP recording is sorted by correctness: the first five would make the teacher look
    perfect.
    """
    chosen = [texts(recording(ten, seed=seed), "a")[0] for seed in range(20)]
    assert all(len(set(texts_)) == 5 for texts_ in chosen)
    assert len({text for texts_ in chosen for text in texts_}) == 10


def test_the_choice_depends_on_seed_and_question_alone(ten):
    assert texts(recording(ten), "a", "b") == [
        texts(recording(ten), "a")[0],
        texts(recording(ten), "b")[0],
    ]
    assert texts(recording(ten, seed=1), "a") != texts(recording(ten, seed=2), "a")


def test_questions_do_not_share_one_choice(ten):
    a, b = texts(recording(ten), "a", "b")
    assert [text[1:] for text in a] != [text[1:] for text in b]


def test_fewer_than_k_are_given_as_they_are_and_an_unknown_id_gets_none(ten):
    assert texts(recording(ten, k=11), "a", "z") == [[f"a{i}" for i in range(10)], []]


@pytest.mark.parametrize("k", [7, 10])
def test_waves_are_the_same_choice_bit_by_bit(ten, k):
    """Bugs guarded: a second wave of the same samples; and of a file with just k, sorted by
    correctness, the first wave would be its right ones.
    """
    teacher = recording(ten, k=k, adaptive={})
    whole = texts(teacher, "a")[0]
    waves = [texts(teacher, "a", samples=3, first=first)[0] for first in range(0, 10, 3)]
    assert [text for wave in waves for text in wave] == whole
    assert len(set(whole)) == k and whole != sorted(whole)
    assert texts(recording(ten, k=10), "a") == [[f"a{i}" for i in range(10)]], "not in waves"


def test_columns_are_mapped_and_numbers_serve_as_ids(tmp_path):
    rows = [{"qid": 7, "out": "the text", "why": "length"}, {"qid": 7, "out": "more", "why": None}]
    teacher = recording(
        write(tmp_path / "r.jsonl", rows), id="qid", completion="out", finish_reason="why"
    )
    (answer,) = asyncio.run(
        teacher.complete([TeacherRequest(Question(id="7", question="?"), "?", 5)])
    )
    assert [(c.text, c.finish_reason) for c in answer.completions] == [
        ("the text", "length"),
        ("more", "stop"),
    ]


def test_it_travels_without_the_recorded_text(ten):
    """Each actor reads the file; a recording of gigabytes must not travel in every actor's
    arguments.
    """
    teacher = recording(ten)
    teacher.check([Question(id="a", question="?")])
    assert len(pickle.dumps(teacher)) < 3_000
    assert texts(pickle.loads(pickle.dumps(teacher)), "a") == texts(teacher, "a")


def test_only_places_are_held_and_not_the_texts(tmp_path):
    """Bug guarded: the driver and every actor held the whole recording, 6 KB a question."""
    rows = [{"id": i % 50, "completion": f"{i} " + "word " * 500} for i in range(400)]
    teacher = recording(write(tmp_path / "r.jsonl", rows), k=10)
    index = RecordingIndex.build(teacher._recipe)
    assert (len(index), index.questions) == (400, 50)
    assert len(pickle.dumps(index)) < 400 * 16 + 2_000
    assert [text.split()[0] for text in texts(teacher, "7")[0]] == [
        str(i) for i in range(7, 400, 50)
    ]


def test_a_file_is_read_once_and_again_when_it_has_changed(ten, monkeypatch):
    """Bug guarded: a start of a run read a recording of 5 million rows three times."""
    lines = []
    read = module._read
    monkeypatch.setattr(module, "_read", lambda *arguments: lines.append(0) or read(*arguments))
    assert [len(RecordingIndex.build(recording(ten)._recipe)) for _ in range(3)] == [20, 20, 20]
    assert len(lines) == 20
    with open(ten, "a", encoding="utf-8") as file:
        file.write('{"id": "c", "completion": "c0"}\n')
    assert len(RecordingIndex.build(recording(ten)._recipe)) == 21


def test_two_ids_of_one_hash_do_not_share_completions(ten, monkeypatch):
    monkeypatch.setattr(module, "_hash", lambda id: 5)
    assert sorted(texts(recording(ten, k=10), "b")[0]) == [f"b{i}" for i in range(10)]


def test_identity_is_the_contents_and_not_the_name(ten, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(ten).read_bytes())
    assert recording(ten).identity() == recording(str(copy)).identity()
    copy.write_text(copy.read_text() + json.dumps({"id": "a", "completion": "one more"}) + "\n")
    assert recording(ten).identity() != recording(str(copy)).identity()


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (b'{"id": "a", "completion": "x"}\nnot json\n', r":2: .*JSON"),
        (b'{"id": "a", "completion": "x"}\n\xff\xfe\n', r":2: not UTF-8"),
        (b'["a", "x"]\n', r":1: a JSON list"),
        (
            b'{"id": "a", "text": "x"}\n',
            (
                r":1: no 'completion' in this row, which has 'id', 'text';"
                r" .*teacher.columns.completion"
            ),
        ),
        (b'{"completion": "x"}\n', r":1: no 'id' .*teacher.columns.id"),
        (b"", r"empty"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, contents, told):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=told):
        recording(str(path)).check([Question(id="a", question="?")])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"missing\.jsonl"):
        recording(str(tmp_path / "missing.jsonl")).check([Question(id="a", question="?")])


def test_a_recording_of_other_questions_is_refused(ten):
    with pytest.raises(
        UserError,
        match=(
            r"no completion for any question(?s:.*)'q1'(?s:.*)'a', 'b'(?s:.*)teacher\.columns\.id"
        ),
    ):
        recording(ten).check([Question(id="q1", question="?")])


def test_one_known_question_is_enough(ten):
    recording(ten).check([Question(id="q1", question="?"), Question(id="a", question="?")])


ROWS = [
    {"qid": f"00{i % 3}", "text": f'{i}, "quoted"\nand a second line: \u00e9', "why": "length"}
    for i in range(12)
]


def table(path: Path) -> str:
    """The rows of ROWS as the kind of file that the ending names."""
    frame = pa.Table.from_pylist(ROWS)
    if path.suffix == ".parquet":
        pq.write_table(frame, path, row_group_size=5)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif path.suffix == ".jsonl":
        write(path, ROWS)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ROWS[0], delimiter={".tsv": "\t"}.get(path.suffix, ","))
            writer.writeheader()
            writer.writerows(ROWS)
    return str(path)


def of_table(file: str, **options) -> Recording:
    columns = {"id": "qid", "completion": "text", "finish_reason": "why"}
    recipe = RecordedTeacher(source="recording", path=file, columns=columns)
    return Recording(recipe, SamplingRecipe(k=3), seed=0, **options)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".json"])
def test_a_table_answers_as_the_same_rows_in_json_lines(tmp_path, ending):
    """Guards ids that become numbers (007 is 7), and texts with line ends, quotes and commas."""
    lines, other = of_table(table(tmp_path / "r.jsonl")), of_table(table(tmp_path / f"r{ending}"))
    assert texts(other, "000", "001", "7") == texts(lines, "000", "001", "7")
    assert len(texts(other, "000")[0]) == 3
    index = RecordingIndex.build(other._recipe)
    assert {each.finish_reason for each in index.completions("002")} == {"length"}
    assert (len(index), index.questions, index.first) == (12, 3, ["000", "001", "002"])
    index.close()


def test_all_who_ask_read_one_copy_that_goes_when_the_teacher_stops(tmp_path):
    """Bugs guarded: a copy for each actor, one beside the user's file, or one that is left."""
    file, copy = table(tmp_path / "r.csv"), tmp_path / "run" / ".copy.jsonl"
    teacher = of_table(file, copy=copy)
    teacher.check([Question(id="000", question="?")])
    sent = pickle.loads(pickle.dumps(teacher._index))
    assert len(sent.completions("000")) == 4
    sent.close()
    assert teacher.identity()["sha256"] == hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    teacher.stop()
    assert not copy.exists() and {path.name for path in tmp_path.iterdir()} == {"r.csv", "run"}


def test_a_table_is_read_a_block_at_a_time(tmp_path):
    """Bug guarded: a table of gigabytes as Python values at once; 30 MB here, in one row group."""
    rows = {"id": [str(i % 50) for i in range(3_000)], "completion": ["x" * 10_000] * 3_000}
    file = tmp_path / "r.parquet"
    pq.write_table(pa.table(rows), file)
    recipe = RecordedTeacher(source="recording", path=str(file))
    tracemalloc.start()
    try:
        index = RecordingIndex.build(recipe)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(index) == 3_000
    assert peak < 20e6  # a block is 1,000 rows, 10 MB


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ("qid,text\na,b\n", r"r\.csv:2: no 'id' .* has 'qid', 'text'; .*teacher\.columns\.id"),
        ("id,completion\na,b\nc\n", r"r\.csv:3: 1 cells, .* 2 columns; fix or delete this row"),
        ("id,completion\n", "r\\.csv: the file is empty"),
    ],
)
def test_a_bad_table_is_refused_with_its_row(tmp_path, contents, told):
    (tmp_path / "r.csv").write_text(contents)
    with pytest.raises(UserError, match=told):
        recording(str(tmp_path / "r.csv")).check([Question(id="a", question="?")])


def test_half_of_a_character_is_refused_with_its_row(tmp_path):
    """Bug guarded: a traceback, since no file can hold what a JSON list can spell."""
    file = tmp_path / "r.json"
    file.write_text('[{"id": "a", "completion": "x"}, {"id": "a", "completion": "\\ud83d"}]')
    with pytest.raises(UserError, match=r"r\.json:2: half of a character"):
        RecordingIndex.build(recording(str(file))._recipe)
