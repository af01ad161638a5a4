"""A model folder with code of its own (`auto_map`), which transformers runs only when trusted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

# A configuration and models that transformers does not know: without the code nothing can be read.
CODE = """
from transformers import T5Config, T5ForConditionalGeneration, T5Model


class ShoutingT5Config(T5Config):
    model_type = "shouting_t5"


class ShoutingT5Model(T5Model):
    config_class = ShoutingT5Config


class ShoutingT5ForConditionalGeneration(T5ForConditionalGeneration):
    config_class = ShoutingT5Config
"""
CLASS = "ShoutingT5ForConditionalGeneration"


def write_custom_t5(source: Path, folder: Path) -> Path:
    """Write the T5 in ``source`` to ``folder`` as a model with code of its own."""
    shutil.copytree(source, folder)
    (folder / "modeling_shouting_t5.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "shouting_t5",
        "architectures": [CLASS],
        "auto_map": {
            "AutoConfig": "modeling_shouting_t5.ShoutingT5Config",
            "AutoModel": "modeling_shouting_t5.ShoutingT5Model",
            "AutoModelForSeq2SeqLM": f"modeling_shouting_t5.{CLASS}",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
