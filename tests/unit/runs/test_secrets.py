"""API keys: a file goes before a variable, what is no key is refused, and no error shows one."""

from __future__ import annotations

import json

import pytest

from qcrd_ray.errors import UserError
from qcrd_ray.runs.secrets import read_api_key, without_key


def read(file=None, variable="QCRD_TEST_KEY"):
    return read_api_key(section="serve", file=file and str(file), variable=variable)


def test_a_file_goes_before_the_variable(tmp_path, monkeypatch):
    assert read() is None
    monkeypatch.setenv("QCRD_TEST_KEY", " from-env\n")
    assert read() == "from-env"
    (tmp_path / "key").write_text("from-file\n")
    assert read(tmp_path / "key") == "from-file"


def test_paths_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRETS", str(tmp_path))
    (tmp_path / "key").write_text("from-file")
    assert read("${SECRETS}/key") == "from-file"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no key"),
        (b" \n", "holds no key"),
        (b"two words", "no header"),
        (b"two\nlines", "no header"),
        (b"s\xc3\xa9cret", "ASCII"),
        (b"\xff\xff\xff", "ASCII"),
    ],
)
def test_what_is_no_key_is_refused_unseen(content, message, tmp_path):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UserError, match=rf"serve\.api_key_file: .*{message}") as raised:
        read(tmp_path / "key")
    text = content.decode("utf-8", "replace").strip()
    assert not text or text not in str(raised.value)
    assert raised.value.__cause__ is None


def test_an_empty_variable_is_not_taken_for_no_key(monkeypatch):
    monkeypatch.setenv("QCRD_TEST_KEY", "")
    with pytest.raises(UserError, match=r"serve\.api_key_env: the variable QCRD_TEST_KEY holds no"):
        read()


@pytest.mark.parametrize("key", ["sk-0123456789abcdef", "a/b+c=d\\e&f<g", 'quote"and\\\\more'])
def test_a_key_that_a_server_quotes_is_taken_out(key):
    """Bug guarded: PHP writes a slash in JSON as `\\/`, Go an ampersand as `\\u0026`; a key that
    holds one was found by no search for it, and came out whole when the JSON was read.
    """
    said = f"wrong key {key}!"
    spelt = {
        said,
        json.dumps(said),
        json.dumps(said).replace("/", "\\/"),
        json.dumps(said).replace("&", "\\u0026").replace("<", "\\u003C"),
        '"' + "".join(f"\\u{ord(each):04x}" for each in said) + '"',
    }
    for text in spelt:
        left = without_key(text, key)
        assert "<key>" in left and key not in left, text
        if text != said:
            assert json.loads(left) == "wrong key <key>!", text


@pytest.mark.parametrize("key", [None, "none", "EMPTY"])
def test_a_word_that_is_no_key_stays(key):
    """Bug guarded: with the key `none`, which local servers are given, that word disappeared from
    every answer of the teacher.
    """
    assert without_key("There are none. EMPTY", key) == "There are none. EMPTY"
