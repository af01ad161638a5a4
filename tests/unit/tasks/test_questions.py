"""Reading questions: what people's files do wrong is named, and no row is lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Split, TaskRecipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.questions import read_questions


def read(path, *, kind="arithmetic", columns=None, max_chars=20_000, **split):
    task = build_task(TaskRecipe(kind=kind))
    return read_questions(
        Split(path=str(path), **split),
        task=task,
        columns=columns or {},
        kind=kind,
        max_chars=max_chars,
    )


def row(id="q", question="How many?", answer="3", **more):
    return {"id": id, "question": question, "answer": answer, **more}


@pytest.fixture
def write(tmp_path):
    """Write lines (dicts as JSON, bytes and texts as they are) to a file and return its path."""

    def _write(*lines, name="questions.jsonl"):
        raw = [
            (
                line
                if isinstance(line, bytes)
                else line.encode()
                if isinstance(line, str)
                else json.dumps(line).encode()
            )
            for line in lines
        ]
        (tmp_path / name).write_bytes(b"\n".join(raw) + b"\n")
        return tmp_path / name

    return _write


def test_a_plain_file(write):
    questions, rejected = read(
        write(row("a", answer="32.0 apples", rationale="Because."), row("b", answer=7))
    )
    assert not rejected
    assert [(q.id, q.answer, q.rationale) for q in questions] == [
        ("a", "32", "Because."),
        ("b", "7", None),
    ]  # gold in canonical spelling


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "x", "question": "caf\xe9"}', "not UTF-8: byte 0xe9 at position"),
        ('{"id": "x", ', "no JSON: Expecting"),
        ("id,question", "no JSON"),
        ('["x"]', "a JSON list, where an object"),
        ("[" * 100_000, "JSON that cannot be read"),  # RecursionError
        ('{"id": ' + "9" * 5000 + "}", "JSON that cannot be read"),  # Python's limit on digits
        (
            '{"id": "x", "question": "\\ud800"}',
            "half of a surrogate pair",
        ),  # cannot be written as Parquet later
        ({"id": "x", "answer": "3"}, "the question is empty"),
        (row("x", question=" "), "the question is empty"),
        (row("x", question=["How many?"]), "question must be a text, not list"),
        (
            row("x", question="x" * 100_000),
            "100,000 characters, over task.max_question_chars = 20,000",
        ),
        (row("x", answer="many"), "the answer 'many' is not one number"),
        (row("x", answer=True), "answer must be a text, not bool"),
        (row("x", choices="a, b"), "choices must be a list of texts, not str"),
        (row(None), "no id"),
        (row("a"), "a duplicate of line 1"),
        (row("a", answer="4"), "a duplicate of line 1, with the answer '4' where that has '3'"),
    ],
)
def test_a_bad_row_is_rejected_with_its_line_and_reason(write, line, reason):
    questions, rejected = read(write(row("a"), "", line, row("z")))
    assert [q.id for q in questions] == ["a", "z"]
    assert (
        len(rejected) == 1 and rejected[0].row == 3 and reason in rejected[0].reason
    )  # the blank line counts as a line, not as a row
    assert rejected[0].text and len(rejected[0].text) <= 2_000


def test_a_row_without_an_answer_is_kept(write):
    """It can be asked, voted on and distilled; only what needs gold leaves it out."""
    questions, rejected = read(
        write(row("a"), {"id": "b", "question": "Why?"}, row("c", answer=None), row("d", answer=""))
    )
    assert [q.answer for q in questions] == ["3", None, None, None] and not rejected


def test_editors_marks_and_line_ends(write):
    questions, rejected = read(
        write(
            b"\xef\xbb\xbf" + json.dumps(row("a")).encode() + b"\r",
            b"\r",
            json.dumps(row("b")).encode() + b"\r",
        )
    )
    assert [q.id for q in questions] == ["a", "b"] and not rejected


def test_ids_that_are_numbers_become_texts(write):
    assert [q.id for q in read(write(row(7), row(8)))[0]] == ["7", "8"]


def test_a_file_without_ids_gets_them_from_the_questions(write):
    """Made from the text, not from the place: a file put in another order asks nothing again."""
    first, _ = read(write({"question": "One?"}, {"question": "Two?"}))
    second, rejected = read(write({"question": "Two?"}, {"question": "One?"}, {"question": "One?"}))
    assert {q.id: q.question for q in first} == {q.id: q.question for q in second}
    assert [r.reason for r in rejected] == ["a duplicate of line 2"]


def test_one_id_for_two_questions_names_both_lines(write):
    with pytest.raises(
        UserError, match="id 'a' stands for two different questions, in lines 1 and 3"
    ):
        read(write(row("a"), row("b"), row("a", question="How much?")))


def test_columns_are_mapped(write):
    questions, _ = read(
        write({"uid": 1, "Body": "How many?", "gold": "3"}),
        columns={"id": "uid", "question": "Body", "answer": "gold"},
    )
    assert (questions[0].id, questions[0].question, questions[0].answer) == ("1", "How many?", "3")


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        (
            {},
            (
                r"no row has the column 'question'; did you mean 'Question'.*The columns are: id,"
                r" Question.*data\.columns\.question"
            ),
        ),
        (
            {"question": "Question", "answer": "gold"},
            r"no row has the column 'gold'.*data\.columns\.answer",
        ),
        ({"question": "Question", "id": "uid"}, r"no row has the column 'uid'.*data\.columns\.id"),
    ],
)
def test_a_wrong_column_names_those_that_there_are(write, columns, match):
    with pytest.raises(UserError, match=match):
        read(
            write({"id": 1, "Question": "How many?"}, {"id": 2, "Question": "How much?"}),
            columns=columns,
        )


def test_multiple_choice_needs_choices(write):
    with pytest.raises(UserError, match="no row has the column 'choices'"):
        read(write(row(answer="x")), kind="multiple_choice")
    hub = row(answer="B", choices={"label": ["A", "B"], "text": ["wool", "bus"]})
    questions, _ = read(write(hub), kind="multiple_choice")
    assert (questions[0].choices, questions[0].answer) == (("wool", "bus"), "bus")


def test_a_missing_file_offers_its_neighbours(write):
    path = write(row())
    with pytest.raises(UserError, match=r"there is no such file; near it: questions\.jsonl"):
        read(path.with_name("question.jsonl"))
    with pytest.raises(UserError, match="nor the folder"):
        read(path.parent / "nowhere" / "x.jsonl")
    with pytest.raises(UserError, match=r"is a folder.*questions\.jsonl"):
        read(path.parent)


@pytest.mark.parametrize("content", [(), ("",), (" ", "\t")])
def test_an_empty_file_says_so(write, content):
    with pytest.raises(UserError, match="the file is empty"):
        read(write(*content))


def test_a_file_of_bad_rows_says_why(write):
    with pytest.raises(UserError, match=r"none of its 2 rows can be used:\n  row 1: no JSON"):
        read(write("x", "y"))


def test_variables_in_the_path(write, monkeypatch):
    path = write(row("a"))
    monkeypatch.setenv("QCRD_TEST_DATA", str(path.parent))
    assert read("${QCRD_TEST_DATA}/questions.jsonl")[0][0].id == "a"
    monkeypatch.delenv("QCRD_TEST_DATA")
    with pytest.raises(UserError, match="the environment variable QCRD_TEST_DATA is not set"):
        read("${QCRD_TEST_DATA}/questions.jsonl")


def test_rows_and_shuffle_share_a_file_out(write):
    """Two splits of one file must be disjoint whatever rows of it are bad."""
    path = write(*(row(i, question=f"{i}?") for i in range(8)), "bad", row(3, question="3?"))
    parts = [read(path, shuffle=5, rows=rows) for rows in ((0, 4), (4, 10))]
    ids = [q.id for questions, _ in parts for q in questions]
    assert sorted(ids) == [str(i) for i in range(8)] and ids != sorted(ids)
    assert [len(q) + len(r) for q, r in parts] == [4, 6]
    assert read(path, shuffle=5, rows=(0, 4)) == parts[0]
    assert [q.id for q in read(path, rows=(2, 4))[0]] == ["2", "3"]
    with pytest.raises(UserError, match=r"rows \[5, 11\] asks for more rows than the 10"):
        read(path, rows=(5, 11))


ROWS = st.binary(max_size=30) | st.fixed_dictionaries(
    {"id": st.integers(), "question": st.text(max_size=5)}
)


@settings(deadline=None, max_examples=50)
@given(st.lists(ROWS, max_size=8))
def test_no_row_is_ever_lost(tmp_path_factory, lines):
    raw = [
        line.replace(b"\n", b"") if isinstance(line, bytes) else json.dumps(line).encode()
        for line in lines
    ]
    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    path.write_bytes(b"\n".join([b'{"id": "good", "question": "How many?"}', *raw]))
    try:
        questions, rejected = read(path)
    except UserError as error:
        assert "two different questions" in str(error)
        return
    assert len(questions) + len(rejected) == 1 + sum(bool(line.strip()) for line in raw)


def generated(**split):
    task = build_task(TaskRecipe(kind="word_problems"))
    return read_questions(
        Split(**split), task=task, columns={}, kind="word_problems", max_chars=20_000
    )


def test_the_generator_is_a_source_too():
    questions, rejected = generated(generate=20, seed=3, kind="held_out")
    assert len(questions) == 20 and not rejected and len({q.id for q in questions}) == 20
    task = build_task(TaskRecipe(kind="word_problems"))
    assert all(
        task.parse(task.explanation(q.rationale, q.answer, q), q).answer == q.answer
        for q in questions
    )
    with pytest.raises(UserError, match="kind must be one of seen, held_out"):
        generated(generate=20, kind="heldout")
    with pytest.raises(UserError, match="only the word_problems task"):
        read_questions(Split(generate=3), task=task, columns={}, kind="nli", max_chars=10)
