"""The rationales stage on a real local Ray: a recording from end to end, and what faults and kills
leave of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from asked_teacher import AskedTeacher, SlowTeacher

from qcrd_ray.cluster.resources import wait_for_resources
from qcrd_ray.errors import MissingResource, UserError
from qcrd_ray.rationales import generate, generate_splits, requests, stage
from qcrd_ray.rationales.store import RationaleStore
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.training.dataset import TrainingSet
from qcrd_ray.training.trainer import prepare_job

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


def make_recipe(
    root: Path,
    *,
    train: dict | None = None,
    teacher: dict | None = None,
    k: int = 3,
    adaptive: dict | None = None,
    **generation,
) -> Recipe:
    small = {"generate": 5, "seed": 9}
    return Recipe.model_validate(
        {
            "name": "generation",
            "run": str(root),
            "task": {
                "kind": "arithmetic" if train and "path" in train else "word_problems",
                "max_question_chars": 400,
            },
            "data": (
                {
                    "train": train or {"generate": 60, "seed": 1},
                    "validation": {"generate": 5},
                    "test": small,
                }
                if not (train and "path" in train)
                else {"train": train, "validation": train, "test": train}
            ),
            "teacher": teacher or {"source": "recording", "path": "unused.jsonl"},
            "sampling": {"k": k, "adaptive": adaptive},
            "generation": {
                "rows_per_block": 10,
                "requests_in_flight": 10,
                "backoff_s": 0.01,
                **generation,
            },
            "student": {"scratch": {}},
            "ray": {"address": "local", "num_cpus": 8},
        }
    )


def write_jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def outcomes(folder: RunFolder, split: str = "train") -> dict[str, str]:
    table = folder.read_rationales(split)
    assert table.num_rows == len(set(table["id"].to_pylist()))
    return dict(zip(table["question_id"].to_pylist(), table["outcome"].to_pylist(), strict=True))


def committed(root: Path) -> set[str]:
    """The question ids whose rows are on the disk for good."""
    store = RationaleStore(RunFolder(root).rationales("train"))
    tables = store.tables(["question_id"])
    return {id for table in tables for id in table["question_id"].to_pylist()}


def asked_in_the_end(teacher: AskedTeacher) -> int:
    """How many questions were asked, once nobody asks any more: actors outlive their driver."""
    before = -1
    while (now := len(teacher.asked())) > before:
        before = now
        time.sleep(3)
    return now


def test_a_recording_with_every_outcome(tmp_path):
    """Each of the five ends is reached, all rows are kept with their reasons, and the counts add up
    to the rows of the file.
    """
    questions = [
        {"id": id, "question": f"{id}: what is 3 + 5?", "answer": "8"}
        for id in ("right", "tied", "silent", "short", "absent")
    ]
    train = write_jsonl(
        tmp_path / "train.jsonl", [*questions, {"id": "long", "question": "x" * 500, "answer": "8"}]
    )
    said = {
        "right": ["8", "8", "3"],
        "tied": ["8", "3", ""],
        "silent": ["", "", ""],
        "short": ["8"],
    }
    completions = [
        {
            "id": id,
            "completion": f"Let us see. So the answer is {answer}." if answer else "I do not know.",
        }
        for id, answers in said.items()
        for answer in answers
    ]
    teacher = {"source": "recording", "path": write_jsonl(tmp_path / "teacher.jsonl", completions)}
    recipe = make_recipe(tmp_path / "run", train={"path": train}, teacher=teacher)
    folder, told = RunFolder(tmp_path / "run"), []
    manifest = generate(recipe, folder, report=lambda *line: told.append(line))

    assert manifest.outcomes == {
        "accepted": 1,
        "no_consensus": 1,
        "unparsed": 1,
        "failed": 2,
        "rejected_input": 1,
    }
    assert sum(manifest.outcomes.values()) == manifest.rows == 6
    assert outcomes(folder) == {
        "right": "accepted",
        "tied": "no_consensus",
        "silent": "unparsed",
        "short": "failed",
        "absent": "failed",
    }
    rows = {row["question_id"]: row for row in folder.read_rationales("train").to_pylist()}
    assert (rows["right"]["vote"], rows["right"]["gold"]) == ("8", "8")
    assert sorted(completion["role"] for completion in rows["right"]["completions"]) == [
        "negative",
        "positive",
        "positive",
    ]
    assert rows["short"]["reason"] == "1 of 3 completions came back"
    assert folder.rejected("train").exists()
    assert told[-1][:2] == (5, 5)

    again = generate(recipe, folder)
    assert again.outcomes == manifest.outcomes
    assert [call["asked"] for call in again.calls] == [
        5,
        2,
    ]  # the two that failed, and nothing that was finished


def test_settled_votes_save_samples_and_every_count_adds_up(tmp_path):
    """Waves of a recording: agreeing samples are not all asked, a question of few samples fails and
    is asked again by the next call, and no other is.
    """
    said = {"sure": "8" * 10, "torn": "8383838383", "silent": " " * 10, "short": "83"}
    said |= {f"sure-{i}": "8" * 10 for i in range(8)}
    questions = [{"id": id, "question": f"{id}: what is 3 + 5?", "answer": "8"} for id in said]
    completions = [
        {"id": id, "completion": f"So the answer is {answer}." if answer != " " else "Well."}
        for id, answers in said.items()
        for answer in answers
    ]
    recipe = make_recipe(
        tmp_path / "run",
        train={"path": write_jsonl(tmp_path / "train.jsonl", questions)},
        teacher={
            "source": "recording",
            "path": write_jsonl(tmp_path / "teacher.jsonl", completions),
        },
        k=10,
        adaptive={"threshold": 0.95},
        questions_per_request=3,
        max_failed_share=1.0,
    )
    folder = RunFolder(tmp_path / "run")
    manifest = generate(recipe, folder)
    rows = {row["question_id"]: row for row in folder.read_rationales("train").to_pylist()}
    asked = {id: (row["samples_asked"], row["asked_until"]) for id, row in rows.items()}
    assert {asked[id] for id in said if id.startswith("sure")} == {(4, "settled")}
    assert (asked["torn"], asked["silent"]) == ((10, "all_k"), (10, "all_k"))
    assert asked["short"][1] == "incomplete" and rows["short"]["outcome"] == "failed"
    assert sum(manifest.outcomes.values()) == manifest.rows == 12
    assert manifest.samples_asked == 9 * 4 + 2 * 10 == manifest.completions - 2
    assert manifest.samples_asked + manifest.samples_saved == 11 * 10
    again = generate(recipe, folder)
    assert [call["asked"] for call in again.calls] == [12, 1]
    assert again.samples_asked == manifest.samples_asked


def test_two_splits_share_one_teacher_and_a_finished_run_does_not_start_it(tmp_path):
    recipe, teacher = make_recipe(tmp_path / "run"), AskedTeacher(tmp_path)
    folder = RunFolder(tmp_path / "run")
    for split, rows in (("train", 60), ("test", 5)):
        assert generate(recipe, folder, split, teacher=teacher).outcomes["accepted"] == rows
    assert (
        teacher.started == 2
    )  # start() does nothing the second time, but is called where there is something to ask
    generate(recipe, folder, teacher=teacher)
    assert teacher.started == 2
    assert Counter(Counter(teacher.asked()).values()) == {1: 65}


def test_those_who_ask_start_beside_the_teacher_and_ask_once_it_is_ready(tmp_path):
    """Bug guarded: each waited for the other's start. Where nothing was asked yet the teacher also
    starts while the questions are read; a finished split does not start it.
    """
    recipe, teacher = make_recipe(tmp_path / "run"), SlowTeacher(tmp_path)
    folder = RunFolder(tmp_path / "run")
    assert generate(recipe, folder, teacher=teacher).outcomes["accepted"] == 60
    assert (teacher.deployed, teacher.started) == (2, 1)
    generate(recipe, folder, teacher=teacher)
    assert (teacher.deployed, teacher.started) == (2, 1)


def test_a_teacher_that_cannot_be_hosted_is_told_and_asked_nothing(tmp_path):
    teacher = SlowTeacher(tmp_path, broken=True)
    with pytest.raises(UserError, match="cannot be hosted"):
        generate(make_recipe(tmp_path / "run"), RunFolder(tmp_path / "run"), teacher=teacher)
    assert teacher.asked() == []


def test_an_actor_that_dies_loses_no_row_and_doubles_none(tmp_path):
    (tmp_path / "die").touch()
    recipe, teacher = make_recipe(tmp_path / "run"), AskedTeacher(tmp_path)
    manifest = generate(recipe, RunFolder(tmp_path / "run"), teacher=teacher)
    assert not (tmp_path / "die").exists()  # it did die
    assert manifest.outcomes["accepted"] == manifest.rows == 60
    assert len(outcomes(RunFolder(tmp_path / "run"))) == 60


def test_a_killed_driver_is_gone_on_from(tmp_path):
    """SIGKILL in the middle; the next run asks only what was in flight, or not asked yet.

    Bug guarded: every answered row of the blocks that were being asked was paid for again.
    """
    recipe, teacher = make_recipe(tmp_path / "run"), AskedTeacher(tmp_path)
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json(by_alias=True))
    here = Path(__file__).parents[1] / "support"
    command = [
        sys.executable,
        here / "killed_generation.py",
        tmp_path / "recipe.json",
        tmp_path,
        "1.5",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{here.parent.parent}:{os.environ.get('PYTHONPATH', '')}",
    }
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        deadline = time.monotonic() + 240
        while (
            len(committed(tmp_path / "run")) < 20
            and driver.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
    asked_before = asked_in_the_end(teacher)
    saved = committed(tmp_path / "run")
    assert 20 <= len(saved) < 60
    assert asked_before - len(saved) <= 10  # generation.requests_in_flight

    manifest = generate(recipe, RunFolder(tmp_path / "run"), teacher=teacher)
    asked = Counter(teacher.asked())
    assert manifest.outcomes["accepted"] == manifest.rows == len(asked) == 60
    assert manifest.calls[-1]["asked"] == 60 - len(saved)
    assert {asked[question_id] for question_id in saved} == {1}
    assert max(asked.values()) <= 2


def test_shards_and_large_blocks_change_no_row(tmp_path, monkeypatch):
    """A set of several shards is the same rows in the same files, whatever order it is asked in,
    and what is finished is found again in its shard when the file is sorted another way.
    """
    monkeypatch.setattr(requests, "ROWS_PER_SHARD", 15)
    monkeypatch.setattr(stage, "MAX_BLOCKS", 4)
    questions = [{"id": f"q{i}", "question": f"{i}: 3 + 5?", "answer": "8"} for i in range(60)]
    train = {"path": write_jsonl(tmp_path / "train.jsonl", questions)}
    recipe, teacher = make_recipe(tmp_path / "run", train=train), AskedTeacher(tmp_path)
    folder = RunFolder(tmp_path / "run")
    assert generate(recipe, folder, teacher=teacher).outcomes["accepted"] == 60
    files = folder.rationale_files("train")
    before = [pq.read_table(file)["question_id"].to_pylist() for file in files]
    assert [file.stem for file in files] == [f"0000{i}-of-00004" for i in range(4)]
    assert all(ids == sorted(ids) for ids in before)
    job = prepare_job(recipe, folder, "dss")  # a task for each shard
    prepared = [row.question.id for row in TrainingSet(job.data).rows()]
    assert prepared == [id for ids in before for id in ids]

    changed = [*questions[:40], {**questions[40], "question": "40: 2 + 6?"}, *questions[41:]]
    write_jsonl(tmp_path / "train.jsonl", changed[::-1])
    manifest = generate(recipe, folder, teacher=teacher)
    assert manifest.calls[-1]["asked"] == 1 and manifest.rows == 60
    assert Counter(teacher.asked()) == {f"q{i}": 1 + (i == 40) for i in range(60)}
    assert [pq.read_table(file)["question_id"].to_pylist() for file in files] == before


def test_a_teacher_that_fails_is_stopped_early_and_the_rest_is_asked_later(tmp_path):
    """Bug guarded: a dead teacher was asked every question of the set, and training went on with
    what it had answered before.
    """
    recipe = make_recipe(tmp_path / "run", train={"generate": 600, "seed": 1}, attempts=1, actors=1)
    teacher = AskedTeacher(tmp_path, k=1, delay_s=0.05)  # one of three samples: a failed row
    told = r"failed on \d+ of \d+ .*max_failed_share = 0.5: 1 of 3 completions came back"
    with pytest.raises(UserError, match=told):
        generate(recipe, RunFolder(tmp_path / "run"), teacher=teacher)
    assert 50 <= len(teacher.asked()) < 600
    teacher.k, asked = 3, len(committed(tmp_path / "run"))
    manifest = generate(recipe, RunFolder(tmp_path / "run"), teacher=teacher)
    assert manifest.outcomes["accepted"] == 600
    assert asked and manifest.calls[-1]["asked"] == 600  # every one of them had failed


def test_nothing_is_asked_once_a_training_has_begun(tmp_path):
    """Bug guarded: after an outage and a kill in training, the next call asked the failed rows
    again, and the training refused to go on, since its rationales had changed.
    """
    recipe = make_recipe(tmp_path / "run", attempts=1, max_failed_share=1.0)
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match="nothing that can be used"):
        generate(recipe, folder, teacher=AskedTeacher(tmp_path, k=1))
    (folder.training("qcrd") / "checkpoints" / "round-1").mkdir(parents=True)
    teacher = AskedTeacher(tmp_path / "run")
    manifest = generate(recipe, folder, teacher=teacher)
    assert manifest.outcomes["failed"] == 60 and teacher.asked() == []
    more = make_recipe(tmp_path / "run", train={"generate": 61, "seed": 1}, attempts=1)
    with pytest.raises(UserError, match=r"1 questions of train have not been asked.*Delete"):
        generate(more, folder, teacher=teacher)
    assert teacher.asked() == []


def test_a_teacher_that_says_nothing_useful_is_told_with_an_example(tmp_path):
    recipe, teacher = (
        make_recipe(tmp_path / "run"),
        AskedTeacher(tmp_path, text="Lovely weather today!"),
    )
    with pytest.raises(
        UserError, match=r"60 unparsed(?s:.*)Lovely weather(?s:.*)teacher\.columns\.completion"
    ):
        generate(recipe, RunFolder(tmp_path / "run"), teacher=teacher)
    assert set(outcomes(RunFolder(tmp_path / "run")).values()) == {"unparsed"}  # paid for, and kept


def test_generate_splits_starts_and_stops_the_recipes_own_teacher(tmp_path):
    recording = [
        {"id": f"{id}", "completion": "So the answer is 8."} for id in range(4) for _ in range(3)
    ]
    train = write_jsonl(
        tmp_path / "train.jsonl",
        [{"id": id, "question": f"{id}?", "answer": "8"} for id in range(4)],
    )
    teacher = {"source": "recording", "path": write_jsonl(tmp_path / "teacher.jsonl", recording)}
    recipe = make_recipe(tmp_path / "run", train={"path": train}, teacher=teacher)
    manifests = generate_splits(recipe, RunFolder(tmp_path / "run"), ["train", "test"])
    assert [(manifest.split, manifest.outcomes["accepted"]) for manifest in manifests] == [
        ("train", 4),
        ("test", 4),
    ]


def test_splits_are_asked_together_and_counted_apart(tmp_path, monkeypatch):
    """Guards the second start of those who ask, which took as long as a demo's test questions."""
    jobs = []
    ask = stage.ask_blocks
    monkeypatch.setattr(stage, "ask_blocks", lambda *a, **k: jobs.append(a[2]) or ask(*a, **k))
    recipe, teacher = make_recipe(tmp_path / "run"), AskedTeacher(tmp_path)
    folder = RunFolder(tmp_path / "run")
    train, test = generate_splits(recipe, folder, ["train", "test"], teacher=teacher)
    assert [[pending.split for pending in splits] for splits in jobs] == [["train", "test"]]
    assert (train.rows, test.rows) == (60, 5)
    assert len(set(teacher.asked())) == len(teacher.asked()) == 65
    (of_train,), (of_test,) = train.calls, test.calls
    assert (of_train["asked"], of_test["asked"]) == (60, 5)
    assert (of_train["tokens_out"], of_test["tokens_out"]) == (60 * 3 * 10, 5 * 3 * 10)
    assert of_train["seconds"] >= of_train["first_s"] >= 0
    assert of_test["seconds"] >= of_test["first_s"] >= 0
    # a row of one split that is gone is asked again by itself
    shard = next((folder.rationales("test") / "rows").glob("*.parquet"))
    pq.write_table(pq.read_table(shard).slice(1), shard)
    generate_splits(recipe, folder, ["train", "test"], teacher=teacher)
    assert [[pending.split for pending in splits] for splits in jobs[1:]] == [["test"]]
    assert len(teacher.asked()) == 66


@pytest.mark.parametrize(
    ("demands", "told"),
    [
        ([{"CPU": 9}], r"the stage asks for 9 CPU on one node, and the cluster has 8"),
        ([{"CPU": 5}, {"CPU": 5}], r"10 CPU, and the cluster has 8"),
        ([{"GPU": 1}], r"1 GPU on one node, and the cluster has 0"),
        ([{"CPU": 1, "rocket": 2}], r"2 rocket on one node"),
    ],
)
def test_an_impossible_demand_is_refused_at_once(demands, told):
    start = time.monotonic()
    with pytest.raises(MissingResource, match=told):
        wait_for_resources(demands, what="the stage", timeout_s=300)
    assert time.monotonic() - start < 5


def test_a_teacher_that_leaves_no_room_for_those_who_ask_is_not_started(tmp_path):
    """On two CPUs it started, and then asking waited five minutes for a share that it held."""
    recipe = make_recipe(tmp_path, teacher={"source": "serve", "model": "demo"}, actors=8)
    start = time.monotonic()
    with pytest.raises(
        MissingResource, match=r"the teacher and those who ask it \(teacher.*\d+ CPU.* has 8"
    ):
        generate(recipe, RunFolder(tmp_path))
    assert time.monotonic() - start < 60


def test_a_demand_that_others_hold_is_waited_for_and_then_named():
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([{"CPU": 6}])
    ray.get(group.ready())
    with pytest.raises(MissingResource, match=r"4 CPU \(2 free\).*other work holds it after 1 s"):
        wait_for_resources([{"CPU": 4}], what="the stage", timeout_s=1)
    remove_placement_group(group)
    wait_for_resources(
        [{"CPU": 4}, {"CPU": 4.0, "GPU": 0}, {"CPU": 0}], what="the stage", timeout_s=60
    )
