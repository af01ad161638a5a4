"""Walk the stages on four nodes of this machine, one a group, and print on which group each kind of
actor was: run by test_node_groups.py.

python tests/support/tied_stages.py <an empty folder>
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from training_tiny import tiny_recipe, write_run

from qcrd_ray import evaluation, rationales, serving, training
from qcrd_ray.models.student_folder import export_student
from qcrd_ray.runs.folder import RunFolder

DATA, TRAINER = {"data": 0.001}, {"trainer": 0.001}


def main(root: Path) -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    groups = {cluster.head_node.node_id: "head"}
    for name in ("teacher", "trainer", "data"):
        groups[cluster.add_node(num_cpus=4, resources={name: 1}).node_id] = name
    ray.init(address=cluster.address, log_to_driver=False)
    walk(root)
    actors = defaultdict(set)
    for actor in ray._private.state.actors().values():
        actors[actor["ActorClassName"]].add(groups.get(actor["Address"]["NodeID"], ""))
    print(json.dumps({name: sorted(where) for name, where in actors.items()}))
    serving.stop()
    ray.shutdown()
    cluster.shutdown()


def walk(root: Path) -> None:
    """Each stage once, tied as a recipe for a cluster ties it."""
    questions = write_lines(
        root / "questions.jsonl",
        [{"question": f"What is {i} + 5?", "answer": str(i + 5)} for i in range(20)],
    )
    said = write_lines(
        root / "said.jsonl", [{"completion": f"So the answer is {i + 5}."} for i in range(20)]
    )
    recipe = tiny_recipe(
        **{
            "run": str(root / "run"),
            "sampling": {"k": 1},
            "generation": {"actors": 2, "rows_per_block": 4, "actor": {"resources": DATA}},
            "train.rounds": 1,
            "train.worker": {"cpus": 0.5, "resources": TRAINER},
            "negatives.sampler.resources": TRAINER,
            "evaluate": {"baselines": [], "worker": {"resources": TRAINER}},
            "serve": {"port": 0, "replica": {"resources": DATA}},
        }
    )
    asked = tiny_recipe(
        **{
            "run": str(root / "asked"),
            "task.kind": "arithmetic",
            "data": {split: {"path": questions} for split in ("train", "validation", "test")},
            "teacher.path": said,
            "sampling": {"k": 1},
            "generation": recipe.generation.model_dump(),
        }
    )
    rationales.generate(asked, RunFolder(root / "asked"))
    folder = write_run(root / "run")
    training.train(recipe, folder, objective="qcrd")
    results = evaluation.evaluate(recipe, folder)
    serving.start(export_student(recipe, folder, results=results), recipe.serve)


def write_lines(path: Path, rows: list[dict]) -> str:
    path.write_text(
        "".join(json.dumps({"id": f"q{number}", **row}) + "\n" for number, row in enumerate(rows))
    )
    return str(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
