"""A Hugging Face hub of one model, `x/y`, and the local cache that its files come to."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer


@dataclass
class FakeHub:
    """``files`` is what the hub holds; ``asked`` lists the auto classes that downloaded from it."""

    files: Path
    reachable: bool = True
    asked: list[str] = field(default_factory=list)


def fake_hub(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Serve a copy of ``model`` as `x/y`; its copy and the cache lie in ``folder``."""
    hub = FakeHub(shutil.copytree(model, folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
    cached = folder / "cache" / "models--x--y"
    snapshot = cached / "snapshots" / "abc"

    def serve(auto, wanted: str) -> None:
        read = auto.from_pretrained

        def from_pretrained(name, *, local_files_only=False, **kwargs):
            if not local_files_only:
                if not hub.reachable:
                    raise OSError("the hub is out of reach")
                hub.asked.append(auto.__name__)
                for file in hub.files.glob(wanted):
                    snapshot.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, snapshot)
            return read(name, local_files_only=True, **kwargs)

        monkeypatch.setattr(auto, "from_pretrained", from_pretrained)

    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    serve(AutoConfig, "config.json")
    serve(AutoTokenizer, "*token*")
    return hub
