"""A run that is asked to stop, as `ray job stop` and Ctrl-C ask, in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qcrd_ray import cli

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
name: x
run: {folder}/run
task: {{kind: arithmetic}}
data:
  train: {{path: {folder}/questions.jsonl}}
  validation: {{path: {folder}/questions.jsonl}}
  test: {{path: {folder}/questions.jsonl}}
teacher: {{source: recording, path: {folder}/teacher.jsonl}}
sampling: {{k: 1}}
generation: {{rows_per_block: 1}}
student: {{scratch: {{}}}}
ray: {{address: local}}
"""


@pytest.fixture
def recipe(tmp_path):
    questions = [
        f'{{"id": "{i}", "question": "What is {i} + 1?", "answer": "{i + 1}"}}\n' for i in range(50)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(questions))
    (tmp_path / "teacher.jsonl").write_text(
        "".join(f'{{"id": "{i}", "completion": "The answer is {i + 1}."}}\n' for i in range(50))
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(folder=tmp_path))
    return path


@pytest.mark.integration
def test_sigterm_ends_a_stage_in_order(recipe):
    """Bug guarded: Ray's own handler of SIGTERM, which `ray.init` puts in the place of ours, or
    typer's, which says nothing.
    """
    job = [sys.executable, ROOT / "jobs" / "run.py", "generate", recipe]
    with subprocess.Popen(
        job, stderr=subprocess.PIPE, text=True, env=os.environ | {"RAY_AUTH_MODE": "disabled"}
    ) as process:
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.startswith("rationales"):  # Ray has started, and the stage has begun
                process.send_signal(signal.SIGTERM)
                break
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 143, "".join(seen) + rest
    assert "the same command goes on" in rest and "Traceback" not in rest, rest


def test_every_verb_is_a_job():
    assert {"run", "generate", "train", "evaluate", "serve", "doctor"} <= set(cli.VERBS)
