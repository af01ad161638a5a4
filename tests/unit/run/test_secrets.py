"""API keys: a file goes before a variable, what is no key is refused, and no error shows one."""

from __future__ import annotations

import pytest

from qcrd_ray.errors import UserError
from qcrd_ray.run.secrets import read_api_key


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
