"""What a GPU host shows with everything installed: `make gpu-test`.

Each has its counterpart on CPUs in tests/unit, tests/integration or tests/system, so that only the
GPU is new here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from gpu_checks import keep
from gpu_engines import PRECISIONS, STAGES, train_both
from training_tiny import tiny_recipe, write_run

ROOT = Path(__file__).parents[2]
ON_GPU = {
    "teacher.accelerator": "gpu",
    "train.worker.gpus": 0.25,
    "negatives.sampler.gpus": 0.1,
    "train.precision": "bf16",
    "discriminator.precision": "bf16",
    "evaluate.worker.gpus": 0.25,
}
SMALL = {
    "data.train.generate": 48,
    "data.validation.generate": 16,
    "data.test.generate": 24,
    "data.held_out": "null",
    "train.rounds": 3,
    "train.batch_size": 16,
    "discriminator.pretrain_steps": 4,
}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


def result(check: str, **figures) -> None:
    keep({"check": check, "device": torch.cuda.get_device_name(), **figures, "passed": True})


def test_the_pipeline_runs_on_the_gpu_and_needs_no_compiler(tmp_path):
    """The demo with every stage on one GPU, on a path without nvcc; the workers speak NCCL."""
    path = os.pathsep.join(
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not (Path(folder) / "nvcc").exists()
    )
    settings = [f"{key}={value}" for key, value in {**SMALL, **ON_GPU}.items()]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", "from qcrd_ray.cli import main; main()", "run"]
        + [str(ROOT / "jobs" / "recipes" / "demo.yaml"), "--set", f"run={tmp_path / 'run'}"]
        + [part for setting in settings for part in ("--set", setting)],
        env={**os.environ, "PATH": path, "NCCL_DEBUG": "INFO"},
        capture_output=True,
        text=True,
        timeout=1100,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "NCCL" in done.stdout + done.stderr
    assert (tmp_path / "run" / "student" / "model.safetensors").exists()
    result("pipeline", seconds=round(time.monotonic() - start))


def test_a_training_worker_that_dies_after_round_two_changes_nothing(tmp_path):
    """Ray Train restarts the group on the GPU; the rounds go on from their checkpoint."""
    ray = pytest.importorskip("ray")
    from qcrd_ray.training import train
    from qcrd_ray.training.metrics import read_metrics

    ray.init(num_gpus=1, num_cpus=8)
    changes = {"train.rounds": 4, "train.worker.gpus": 0.5, "train.workers": 1}
    listed = tmp_path / "train/qcrd/checkpoints/checkpoint_manager_snapshot.json"
    killed = []

    def kill_a_worker() -> None:
        while not (listed.exists() and "round-00002" in listed.read_text()):
            time.sleep(0.05)
        (worker, *_) = [
            process
            for process in psutil.Process().children(recursive=True)
            if "RayTrainWorker" in " ".join(process.cmdline())
        ]
        worker.kill()
        killed.append(worker.pid)

    threading.Thread(target=kill_a_worker, daemon=True).start()
    try:
        train(tiny_recipe(**changes), write_run(tmp_path), objective="qcrd")
    finally:
        ray.shutdown()
    assert killed and [row["round"] for row in read_metrics(tmp_path / "train/qcrd")] == [
        0,
        1,
        2,
        3,
    ]
    result("killed worker")


def test_both_engines_in_every_stage_and_precision_on_nccl(tiny_student, tmp_path, monkeypatch):
    """As on a CPU: the losses of plain torch."""
    pytest.importorskip("deepspeed")
    import torch.distributed as dist

    from qcrd_ray.tasks import build_task
    from qcrd_ray.training.process_group import ProcessGroup

    monkeypatch.setenv("LOCAL_RANK", "0")
    device = torch.device("cuda", 0)
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    group, found = ProcessGroup.current(device), {}
    questions = round_questions(tmp_path)
    try:
        for stage in STAGES:
            for precision in PRECISIONS:
                settings = tiny_recipe(
                    **{
                        "train.workers": 1,
                        "train.batch_size": 4,
                        "train.micro_batch_size": 2,
                        "train.zero_stage": stage,
                        "train.precision": precision,
                        "discriminator.precision": precision,
                    }
                )
                losses, d_loss = train_both(
                    settings,
                    tiny_student,
                    group,
                    questions=questions,
                    task=build_task(settings.task),
                )
                found[f"{stage} {precision}"] = losses
                assert losses[-1] < losses[0] and d_loss == d_loss
    finally:
        dist.destroy_process_group()
    for name, losses in found.items():
        tolerance = 1e-3 if name.endswith("fp32") else 0.03
        assert losses == pytest.approx(found["0 fp32"], rel=tolerance), name
    result("engines", losses=found)


def round_questions(root: Path) -> list:
    """The questions of a round, assembled from a small run folder."""
    from transformers import AutoTokenizer

    from qcrd_ray.training.dataset import TrainingSet, assemble
    from qcrd_ray.training.trainer import prepare_job

    job = prepare_job(tiny_recipe(), write_run(root / "questions"), "qcrd")
    rows = TrainingSet(job.data).read([0, 2, 4, 6])
    tokenizer = AutoTokenizer.from_pretrained(job.start)
    return list(assemble(rows, [], tokenizer=tokenizer, max_tokens=32).values())


def test_a_training_in_one_process_is_that_of_the_cpu(tmp_path):
    """The whole of it, as a comparison's trials run it, on the GPU in plain float32."""
    from qcrd_ray.training.metrics import read_metrics
    from qcrd_ray.training.process_group import ProcessGroup
    from qcrd_ray.training.trainer import prepare_job
    from qcrd_ray.training.worker import Worker

    rows = []
    for name in ("cpu", "cuda"):
        changes = {"train.workers": 1, "train.zero_stage": 0, "train.tf32": False}
        job = prepare_job(tiny_recipe(**changes), write_run(tmp_path / name), "qcrd")
        job.folder.mkdir()
        Worker(job, ProcessGroup.single(torch.device(name))).run()
        rows.append(read_metrics(job.folder))
    for ours, theirs in zip(*rows, strict=True):
        assert ours["student"]["loss"] == pytest.approx(theirs["student"]["loss"], abs=1e-3)
        assert ours["tokens"] == theirs["tokens"]
    result("one process", losses=[row["student"]["loss"] for row in rows[1]])


def test_a_vllm_student_answers_64_callers(exported_decoder):
    """A decoder-only student's engine on the GPU, asked from 64 threads through its student."""
    pytest.importorskip("vllm")
    program = f"""
import json, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from qcrd_ray.data.records import Question
from qcrd_ray.inference.answering import AnswerRequest, Student
from qcrd_ray.models.student_folder import StudentFolder
served = Student(StudentFolder.open(Path({str(exported_decoder)!r})), engine="vllm")
served.warm_up()
question = Question(id="1", question="Tom has 3 apples and buys 4 more. How many has he?")
request = AnswerRequest(question=question, head="label")
start = time.monotonic()
with ThreadPoolExecutor(64) as pool:
    answers = list(pool.map(lambda _: served.generate([request])[0][0].text, range(64)))
assert len(set(answers)) == 1, answers
print(json.dumps(round(64 / (time.monotonic() - start), 1)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result("vllm student", answers_per_s=json.loads(done.stdout.splitlines()[-1]))
