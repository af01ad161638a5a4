"""Run by test_generation.py in a process of its own, to be killed: python killed_generation.py
<recipe.json> <asked folder> <delay>.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

from asked_teacher import AskedTeacher

from qcrd_ray.cluster.resources import connect
from qcrd_ray.rationales import generate
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.folder import RunFolder

if __name__ == "__main__":
    recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
    connect(recipe.ray)
    folder = RunFolder.open(recipe)
    with folder.mirror.in_step(every_s=0.2) if folder.mirror else nullcontext():
        generate(
            recipe, folder, teacher=AskedTeacher(Path(sys.argv[2]), delay_s=float(sys.argv[3]))
        )
