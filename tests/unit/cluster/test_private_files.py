"""The folder of a local Ray's sessions and Ray's token: nobody else enters the one or reads the
other.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qcrd_ray.cluster.private_files import keep_token_private, session_parent
from qcrd_ray.errors import UserError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestSessions:
    @pytest.fixture(autouse=True)
    def place(self, monkeypatch) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir="/tmp") as place:  # pytest's are too long
            monkeypatch.setenv("RAY_TMPDIR", place)
            yield Path(place, f"qcrd-{os.getuid()}")

    def test_the_folder_is_the_users_alone(self, place):
        """Bug guarded: Ray opens the folder that it is given, and those in it, to everybody."""
        assert session_parent() == place and mode(place) == 0o700
        (place / "ray").mkdir(mode=0o777)
        assert session_parent() == place and mode(place) == 0o700

    def test_one_that_is_open_to_others_is_closed(self, place):
        place.mkdir(mode=0o755)
        assert mode(session_parent()) == 0o700

    @pytest.mark.parametrize("kind", ["a link", "a file"])
    def test_what_somebody_else_may_have_put_there_is_refused(self, kind, place, tmp_path):
        """Bug guarded: who makes the name first in /tmp would own the sessions' parent."""
        if kind == "a link":
            place.symlink_to(tmp_path)
        else:
            place.touch()
        with pytest.raises(UserError, match="RAY_TMPDIR"):
            session_parent()

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
    def test_a_folder_of_another_user_is_refused(self, place):
        place.mkdir()
        os.chown(place, 1, 1)
        with pytest.raises(UserError, match="no folder of yours"):
            session_parent()

    def test_a_place_that_leaves_no_room_for_a_sockets_name_is_passed_over(self, monkeypatch):
        """Ray fails where the name of a socket has more than 107 bytes."""
        monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'x' * 60}")
        monkeypatch.delenv("TMPDIR", raising=False)
        folder = session_parent()
        assert not Path("/tmp", "x" * 60).exists()
        socket = "/ray/session_2026-11-22_04-44-13_804733_4194304/sockets/plasma_store"
        assert len(f"{folder}{socket}") <= 107


class TestToken:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
            monkeypatch.delenv(name, raising=False)
        return tmp_path

    def test_a_new_one_is_like_rays_and_private(self, home):
        """Bug guarded: Ray writes it for everybody to read, and it lets in to every Ray."""
        from ray._private.authentication.authentication_token_generator import (
            generate_new_authentication_token,
        )

        keep_token_private(make=True)
        token = home / ".ray" / "auth_token"
        assert mode(token) == 0o600 and mode(token.parent) == 0o700
        made, rays = token.read_text(), generate_new_authentication_token()
        assert re.fullmatch("[0-9a-f]{64}", made) and re.fullmatch("[0-9a-f]{64}", rays)
        keep_token_private(make=True)
        assert token.read_text() == made
        assert [file.name for file in token.parent.iterdir()] == ["auth_token"]

    @pytest.mark.parametrize("make", [True, False])
    def test_one_that_others_can_read_is_closed(self, home, make):
        token = home / ".ray" / "auth_token"
        token.parent.mkdir()
        token.write_text("kept")
        token.chmod(0o644)
        keep_token_private(make=make)
        assert mode(token) == 0o600 and token.read_text() == "kept"

    @pytest.mark.parametrize(
        "setting", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "f" * 64}, {}]
    )
    def test_none_is_made_where_none_is_needed(self, home, setting, monkeypatch):
        for name, value in setting.items():
            monkeypatch.setenv(name, value)
        keep_token_private(make=setting != {})
        assert not (home / ".ray").exists()

    def test_a_file_that_the_user_names_is_left_and_warned_of(self, home, monkeypatch, caplog):
        """It may be a mounted secret, or belong to a group on purpose."""
        token = home / "token"
        token.write_text("f" * 64)
        token.chmod(0o640)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        with caplog.at_level(logging.WARNING):
            keep_token_private(make=True)
        assert mode(token) == 0o640 and "chmod" in caplog.text
        assert "f" * 64 not in caplog.text
        caplog.clear()
        token.chmod(0o600)
        keep_token_private(make=True)
        assert not caplog.text
