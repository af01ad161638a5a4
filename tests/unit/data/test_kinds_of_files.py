"""Files as people have them: JSON lists, semicolons, old encodings. What is safe is read, and the
rest is refused with the command that helps; no row is taken for another.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from qcrd_ray.data import json_array
from qcrd_ray.data.sources import open_source
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Split

ROWS = [{"id": "a", "question": "Grüße?", "answer": 1}, {"id": "b", "question": "2?", "answer": 2}]


def rows(file, content: bytes | str):
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    source = open_source(Split(path=str(file)))
    return source.columns(), list(source.rows(source.columns()))


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_json_list_is_read(tmp_path, name, indent, mark):
    """Bug guarded: its lines were read one by one, and all rejected as no JSON."""
    text = json.dumps(ROWS, indent=indent, ensure_ascii=False)
    columns, lines = rows(tmp_path / name, mark + text)
    assert columns == ["id", "question", "answer"]
    assert [(line.number, line.data) for line in lines] == [(1, ROWS[0]), (2, ROWS[1])]


def test_an_item_that_is_no_object_is_one_rejected_row(tmp_path):
    _, lines = rows(tmp_path / "x.json", '[{"id": "a"}, 7, {"id": "b"}]')
    assert [line.data for line in lines] == [{"id": "a"}, None, {"id": "b"}]
    assert "a JSON int, where an object" in lines[1].reason and lines[1].text == "7"


def test_lines_of_lists_stay_lines(tmp_path):
    """What only looks like a list is read as before."""
    _, lines = rows(tmp_path / "x.jsonl", '[1]\n{"id": "a"}\n')
    assert [line.data for line in lines] == [None, {"id": "a"}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{\n  "data": [\n    {"id": "a"}]}', r"one JSON object over several lines.*jq -c '\.KEY"),
        ('{"data": [\n{"id": "a"},\n{"id": "b"}]}', r"jq -c '\.KEY\[\]' x\.json > x\.jsonl"),
        ('[{"id": "a"},\n{"id": "b"', r"begins as a JSON list, and is none"),
        ('[{"id": "ä"}]'.encode("latin-1"), r"not UTF-8: byte 0xe4.*iconv -f WINDOWS-1252"),
        ('{"id": "a"}'.encode("utf-16"), r"the file is UTF-16; `iconv -f UTF-16"),
        (b"PK\x03\x04...", r"a spreadsheet \(\.xlsx\); save the sheet as CSV"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_remedy(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        rows(tmp_path / "x.json", content)


def test_a_list_that_does_not_fit_is_refused_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(json_array, "MAX_BYTES", 10)
    with pytest.raises(UserError, match=r"jq -c '\.\[\]' x\.json > x\.jsonl"):
        rows(tmp_path / "x.json", json.dumps(ROWS))


@pytest.mark.parametrize(("name", "mark"), [("x.csv", ";"), ("x.csv", "\t"), ("x.tsv", "\t")])
def test_a_csv_without_commas_is_parted_by_what_its_header_holds(tmp_path, name, mark):
    """Bug guarded: a spreadsheet's `;` made one column of the header, and of each row."""
    content = f'id{mark}question{mark}answer\na{mark}"1{mark} 2?"{mark}3,5\n'
    columns, (line,) = rows(tmp_path / name, content)
    assert columns == ["id", "question", "answer"]
    assert line.data == {"id": "a", "question": f"1{mark} 2?", "answer": "3,5"}


def test_a_comma_in_the_header_decides(tmp_path):
    columns, (line,) = rows(tmp_path / "x.csv", "id,question;more\na,b;c\n")
    assert columns == ["id", "question;more"] and line.data == {"id": "a", "question;more": "b;c"}


def test_latin_1_is_refused_row_by_row_and_the_command_helps(tmp_path):
    """It is never guessed; what the advice names makes the same rows of it."""
    file, text = tmp_path / "x.csv", "id,question\na,Grüße?\nb,two?\n"
    _, (bad, good) = rows(file, text.encode("latin-1"))
    assert bad.data is None and "iconv -f WINDOWS-1252 -t UTF-8" in bad.reason
    assert good.data == {"id": "b", "question": "two?"}
    command = ["iconv", "-f", "WINDOWS-1252", "-t", "UTF-8", str(file)]
    done = subprocess.run(command, capture_output=True, check=True).stdout
    _, (first, _) = rows(tmp_path / "y.csv", done)
    assert first.data == {"id": "a", "question": "Grüße?"}


def test_a_header_in_latin_1_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match=r"header is not UTF-8; .*iconv"):
        rows(tmp_path / "x.csv", "id,größe\na,1\n".encode("latin-1"))
