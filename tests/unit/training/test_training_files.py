"""What passes between trainer, samplers and driver through files: snapshots, negatives, metrics,
progress, and the start model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from contextlib import suppress

import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from teacher_tiny import write_llama
from training_tiny import tiny_recipe, write_run
from transformers import AutoTokenizer

from qcrd_ray.data.records import StudentNegative
from qcrd_ray.errors import UserError
from qcrd_ray.method.discriminator import Discriminator
from qcrd_ray.method.tokenization import tokenize_inputs
from qcrd_ray.recipe import DiscriminatorRecipe, ScratchRecipe, StudentRecipe
from qcrd_ray.training.checkpoints import SnapshotStore, is_better, snapshots_kept
from qcrd_ray.training.dataset import rounds_of
from qcrd_ray.training.metrics import MetricsWriter, read_metrics, read_progress
from qcrd_ray.training.process_group import ProcessGroup
from qcrd_ray.training.start_models import (
    check_start,
    check_weights,
    train_tokenizer,
    write_discriminator_start,
    write_start,
)
from qcrd_ray.training.student_negatives import NegativeSampler, NegativesFolder, round_snapshot
from qcrd_ray.training.trainer import prepare_job


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs root, to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def publish(snapshots, snapshot):
    snapshots.staging(snapshot).mkdir(parents=True)
    (snapshots.staging(snapshot) / "config.json").write_text(str(snapshot))
    return snapshots.publish(snapshot)


def test_the_ring_holds_every_snapshot_that_is_still_to_be_sampled(tmp_path):
    """Guards a snapshot that is deleted before its negatives are made: through a whole run, with
    the trainer a round behind the snapshots.
    """
    for lag in (1, 2, 3):
        recipe = tiny_recipe(**{"negatives.lag": lag, "train.rounds": 8})
        snapshots = SnapshotStore(tmp_path / str(lag), keep=snapshots_kept(recipe))
        publish(snapshots, 0)
        for round in range(8):
            assert snapshots.exists(round_snapshot(recipe, round)), (lag, round)
            publish(snapshots, round + 1)
            snapshots.prune(round + 1)
            assert sum(entry.name.isdigit() for entry in snapshots.folder.iterdir()) <= lag + 1


def test_the_ring_holds_the_reference_to_the_end(tmp_path):
    """Bug guarded: a resumed training could not read the student that its pairs refer to."""
    snapshots = SnapshotStore(tmp_path, keep=2, always=2)
    for snapshot in range(6):
        publish(snapshots, snapshot)
        snapshots.prune(snapshot)
    assert [snapshot for snapshot in range(6) if snapshots.exists(snapshot)] == [2, 4, 5]


def test_a_snapshot_is_seen_whole_or_not_at_all(tmp_path):
    """A sampler may read a snapshot that a redone round would write again: the first one stays."""
    snapshots = SnapshotStore(tmp_path, keep=2)
    snapshots.staging(3).mkdir()
    assert not snapshots.exists(3)
    (snapshots.staging(3) / "config.json").write_text("first")
    snapshots.publish(3)
    snapshots.staging(3).mkdir()
    (snapshots.staging(3) / "config.json").write_text("again")
    assert (snapshots.publish(3) / "config.json").read_text() == "first"
    assert not snapshots.staging(3).exists()


def test_too_small_a_ring_is_refused():
    with pytest.raises(
        UserError, match=r"train.keep_snapshots: 2 are fewer than negatives.lag \+ 1 = 4"
    ):
        snapshots_kept(tiny_recipe(**{"train.keep_snapshots": 2, "negatives.lag": 3}))
    assert snapshots_kept(tiny_recipe(**{"train.keep_snapshots": 5, "negatives.lag": 3})) == 5


def test_which_snapshot_a_rounds_negatives_come_from():
    recipe = tiny_recipe(**{"negatives.lag": 2})
    assert [round_snapshot(recipe, round) for round in range(5)] == [0, 0, 0, 1, 2]
    recipe = tiny_recipe(**{"negatives.lag": 2, "negatives.before_lag": "none"})
    assert [round_snapshot(recipe, round) for round in range(4)] == [None, None, 0, 1]
    assert round_snapshot(tiny_recipe(**{"negatives.student": False}), 7) is None
    recipe = tiny_recipe(**{"train.rounds": 5, "objective.sft_rounds": 2})
    assert [round_snapshot(recipe, round) for round in range(5)] == [None, None, 1, 2, 3]


def test_late_negatives_are_waited_for_and_read_again(tmp_path):
    """The trainer goes on when the last part arrives; a resumed one reads the same rows without
    waiting.
    """
    files = NegativesFolder(tmp_path / "negatives", parts=2)
    rows = [
        StudentNegative(question_id=str(i), round=4, snapshot=1, text=f"text {i}", right=None)
        for i in range(3)
    ]
    files.write(4, 0, rows[:2])
    assert [path.name for path in files.missing(4)] == ["00004.part-1-of-2.parquet"]
    threading.Timer(0.3, lambda: files.write(4, 1, rows[2:])).start()
    assert files.wait(4, snapshot=1, timeout_s=10) > 0.2
    assert files.read(4) == rows
    assert files.wait(4, snapshot=1, timeout_s=0) < 0.1


def test_negatives_that_never_come_say_what_to_do(tmp_path):
    files = NegativesFolder(tmp_path, parts=1)
    start = time.monotonic()
    with pytest.raises(
        UserError,
        match=(
            r"round 2 \(from snapshot 1\) did not come within 0.2 s: 00002.part-0-of-1.parquet"
            r" missing"
        ),
    ):
        files.wait(2, snapshot=1, timeout_s=0.2)
    assert time.monotonic() - start < 2


def test_a_failed_sampler_ends_the_wait_with_its_traceback(tmp_path):
    """Guards half an hour of waiting for a sampler that has died of a bug."""
    files = NegativesFolder(tmp_path, parts=1)
    files.failure.write_text("sampler 0:\nKeyError: 'x'")
    with pytest.raises(RuntimeError, match="KeyError"):
        files.wait(0, snapshot=0, timeout_s=60)


def test_a_broken_part_is_named_and_sampled_again(tmp_path, caplog):
    """Guards what a lost disk left of a part: it was believed for ever, and no call got past it."""
    files = NegativesFolder(tmp_path, parts=2)
    row = StudentNegative(question_id="1", round=0, snapshot=0, text="text " * 50, right=None)
    for part in range(2):
        files.write(0, part, [row] * 50)
    whole = files.part(0, 0).read_bytes()
    files.part(0, 0).write_bytes(whole[: len(whole) // 2])
    files.begin()
    assert files.missing(0) == [files.part(0, 0)]
    assert "00000.part-0-of-2.parquet cannot be read" in caplog.text


def test_a_round_whose_snapshot_has_gone_holds_no_sampler_up(tmp_path):
    """Guards a sampler that waits for ever for a snapshot that was pruned long ago."""
    recipe = tiny_recipe(**{"train.rounds": 8, "negatives.lag": 1})
    sampler = NegativeSampler(recipe=recipe, folder=tmp_path, data=tmp_path / "data")
    snapshots = SnapshotStore(tmp_path / "snapshots", keep=snapshots_kept(recipe))
    for snapshot in range(5):
        publish(snapshots, snapshot)
        snapshots.prune(snapshot)
    sampler.write_part(0, 0)
    assert sampler.files.missing(0)


def test_a_sampler_on_a_full_disk_still_says_that_it_failed(small_disk):
    """Guards half an hour of waiting, and the blame put on `negatives.samplers`: on a full disk
    the reason could not be written.
    """
    files = NegativesFolder(small_disk / "negatives", parts=1)
    files.begin()
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 512)
    files.fail(0, "Traceback: " + "no space left on device " * 500)
    with pytest.raises(RuntimeError, match="sampler 0 could not write why, as on a full disk"):
        files.wait(0, snapshot=0, timeout_s=60)


def test_metrics_of_rounds_that_are_run_again_are_dropped(tmp_path):
    """Guards doubled rows after a resume, and a last line that a kill cut short.

    Bug guarded: a page of zeros, which a lost host leaves, ended each later call.
    """
    writer = MetricsWriter(tmp_path, first_round=0, first_step=0)
    for round in range(3):
        writer.round(
            {
                "round": round,
                "step": 4 * round + 4,
                "student": {"l_pos": 1.5},
                "best": True,
                "note": "text",
            }
        )
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("\0" * 4096 + '\n{"round": 3, "st')
    assert [row["round"] for row in read_metrics(tmp_path)] == [0, 1, 2]
    MetricsWriter(tmp_path, first_round=2, first_step=8).close()
    assert [row["round"] for row in read_metrics(tmp_path)] == [0, 1]


def test_a_row_after_a_torn_line_is_kept(tmp_path):
    """Bug guarded: a worker that outlived its driver appended its next row to half a line, and the
    checkpoint of that round was gone on from with the row missing.
    """
    writer = MetricsWriter(tmp_path, first_round=0, first_step=0)
    writer.round({"round": 0, "step": 4})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 9, "st')
    writer.round({"round": 1, "step": 8})
    assert [row["round"] for row in read_metrics(tmp_path)] == [0, 1]


@pytest.mark.parametrize(
    ("accuracies", "kept"), [([0.0, 0.0, 0.0], 2), ([0.0, 0.25, 0.25, 0.0], 1), ([0.5, 0.25], 0)]
)
def test_the_best_round_of_several(accuracies, kept):
    """Bug guarded: where nothing was right in any round, the first was kept, which had learnt least
    and wrote nothing.
    """
    best = 0
    for round, accuracy in enumerate(accuracies):
        if round and is_better(accuracy, than=accuracies[best]):
            best = round
    assert best == kept


def test_tensorboard_holds_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = MetricsWriter(tmp_path, first_round=0, first_step=0)
    writer.round({"round": 0, "step": 5, "student": {"l_pos": 1.5}, "learning_rate": 0.25})
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    } == {
        "student/l_pos": [(5, 1.5)],
        "learning_rate": [(5, 0.25)],
    }


def test_progress(tmp_path):
    assert read_progress(tmp_path) == {"step": 0, "note": "starting"}
    writer = MetricsWriter(tmp_path, first_round=0, first_step=0)
    writer.progress(7, "round 2/3")
    assert read_progress(tmp_path) == {"step": 7, "note": "round 2/3"}


def test_a_new_phase_is_shown_at_once_and_a_count_at_most_twice_a_second(tmp_path, monkeypatch):
    """A step may take a millisecond, and a phase half a minute: neither floods or hides it."""
    now = [100.0]
    monkeypatch.setattr("qcrd_ray.training.metrics.time.monotonic", lambda: now[0])
    writer = MetricsWriter(tmp_path, first_round=0, first_step=0)
    shown = []
    for seconds, phase, count in (
        (0.0, "pretraining", "0/9"),
        (0.1, "pretraining", "1/9"),
        (0.6, "pretraining", "2/9"),
        (0.61, "round 1/3", ""),
    ):
        now[0] = 100.0 + seconds
        writer.progress(0, phase, count)
        shown.append(read_progress(tmp_path)["note"])
    assert shown == ["pretraining 0/9", "pretraining 0/9", "pretraining 2/9", "round 1/3"]


def test_a_trained_tokenizer_says_any_text_back():
    """Guards unknown tokens and lost spaces: what the student is taught must decode to the same
    text.
    """
    tokenizer = train_tokenizer(
        ["predict: Tom has 12 apples.", "So the answer is 7."] * 3, vocabulary=300
    )
    for text in ("Tom has 12 apples.\nHow many?", "naïve × 3 = 日本", "a  b"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    ids = tokenizer("12").input_ids
    assert len(ids) == 3 and ids[-1] == tokenizer.eos_token_id == 1 and tokenizer.pad_token_id == 0
    assert tokenizer("a", "b").input_ids.count(tokenizer.eos_token_id) == 2, (
        "question and rationale are told apart"
    )


def test_the_start_is_written_once_and_is_the_same_for_a_seed(tmp_path):
    recipe = StudentRecipe(
        scratch=ScratchRecipe(d_model=16, d_ff=16, layers=1, heads=2, vocabulary=300), dropout=0.25
    )
    for name in ("a", "b"):
        write_start(recipe, tmp_path / name, texts=["one two three"], seed=3)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (
        tmp_path / "b" / "model.safetensors"
    ).read_bytes()
    assert json.loads((tmp_path / "a" / "config.json").read_text())["dropout_rate"] == 0.25
    before = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns
    write_start(recipe, tmp_path / "a", texts=["other"], seed=4)
    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == before
    assert AutoTokenizer.from_pretrained(tmp_path / "a").eos_token == "</s>"


def test_a_pretrained_start_keeps_its_weights_and_takes_the_dropout(tiny_student, tmp_path):
    write_start(
        StudentRecipe(model=str(tiny_student), dropout=0.4), tmp_path / "start", texts=[], seed=0
    )
    from safetensors.torch import load_file

    ours, theirs = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "start", tiny_student)
    )
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert json.loads((tmp_path / "start" / "config.json").read_text())["dropout_rate"] == 0.4


def test_a_discriminator_of_more_layers_than_there_are():
    for student in (StudentRecipe(scratch=ScratchRecipe(layers=3)), StudentRecipe(model="demo")):
        check_start(student, DiscriminatorRecipe(layers=2))
        with pytest.raises(UserError, match=r"discriminator.layers: .* has [23] layers, not 4"):
            check_start(student, DiscriminatorRecipe(layers=4))


def test_a_student_that_cannot_be_trained_is_refused_before_anything_starts(tmp_path, tiny_student):
    with pytest.raises(UserError, match="no such folder"):
        check_start(StudentRecipe(model=str(tmp_path / "nowhere")), DiscriminatorRecipe())
    shutil.copytree(
        tiny_student, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "special*")
    )
    with pytest.raises(UserError, match="has no tokenizer"):
        check_start(StudentRecipe(model=str(tmp_path / "bare")), DiscriminatorRecipe())
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"discriminator.model: .*empty has no tokenizer"):
        check_start(
            StudentRecipe(model=str(tiny_student)),
            DiscriminatorRecipe(model=str(tmp_path / "empty")),
        )


def test_a_scratch_llama_is_a_student_that_pads_and_reads_lines(tmp_path):
    scratch = ScratchRecipe(kind="llama", d_model=16, d_ff=16, layers=1, heads=2, vocabulary=300)
    recipe = StudentRecipe(scratch=scratch, max_input_tokens=30, max_target_tokens=12)
    tokenizer = write_start(recipe, tmp_path, texts=["one two three"], seed=3)
    assert json.loads((tmp_path / "config.json").read_text())["max_position_embeddings"] == 42
    (ids,) = tokenize_inputs(tokenizer, ["predict: one"], max_tokens=30).rows
    assert tokenizer.decode(ids) == "predict: one\n"
    assert tokenizer.pad_token_id == 0


def test_a_decoder_only_start_says_by_its_tokenizer_how_questions_are_read(tmp_path):
    """All who read a start, a snapshot or an exported student go by its chat template and its
    padding token.
    """
    own = "{% for m in messages %}{{ 'So ' + m['content'] + ' .' }}{% endfor %}"
    for chat, template, text in (
        ("auto", own, "So the ."),
        ("never", own, "the\n"),
        ("auto", None, "the\n"),
        ("always", own, "So the ."),
    ):
        model = write_llama(tmp_path / "model", chat_template=template)
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.pad_token = None
        tokenizer.save_pretrained(model)
        write_start(
            StudentRecipe(model=str(model), chat=chat), tmp_path / "start", texts=[], seed=0
        )
        start = AutoTokenizer.from_pretrained(tmp_path / "start")
        assert (
            start.apply_chat_template(
                [{"role": "user", "content": "the"}], add_generation_prompt=True, tokenize=False
            )
            == text
        )
        assert start.pad_token == start.eos_token
        shutil.rmtree(tmp_path / "model")
        shutil.rmtree(tmp_path / "start")


def test_a_students_chat_template_is_the_same_on_any_day(tmp_path):
    """Llama 3's puts the date in: a student would be trained with one prompt and asked with
    another.
    """
    template = (
        "{{ strftime_now('%Y') }} \"é😀\" {% for m in messages %}{{ m['role'] + '\n' + m['content']"
        " + '\t.' }}{% endfor %}"
    )
    model = write_llama(tmp_path / "model", chat_template=template)
    message = [{"role": "user", "content": "the"}]
    shown = AutoTokenizer.from_pretrained(model).apply_chat_template(message, tokenize=False)
    tokenizer = write_start(StudentRecipe(model=str(model)), tmp_path / "start", texts=[], seed=0)
    assert "strftime" not in tokenizer.chat_template
    assert tokenizer.apply_chat_template(message, tokenize=False) == shown


@pytest.mark.parametrize(
    ("settings", "template", "told"),
    [
        (
            {"chat": "always"},
            None,
            r"student\.chat: always, and the tokenizer of .* has no chat template",
        ),
        ({}, "nothing of the message", r"student\.chat: .* does not show .*; set it to never"),
        (
            {"max_input_tokens": 200, "max_target_tokens": 57},
            None,
            r"is 257, and .* reads 256 tokens \(max_position_embeddings",
        ),
    ],
)
def test_a_decoder_only_student_that_cannot_be_trained_is_refused(
    tmp_path, settings, template, told
):
    model = write_llama(tmp_path, chat_template=template)
    with pytest.raises(UserError, match=told):
        check_start(
            StudentRecipe(
                model=str(model), **{"max_input_tokens": 64, "max_target_tokens": 64, **settings}
            ),
            DiscriminatorRecipe(),
        )


def test_an_encoder_decoder_takes_no_chat_template(tiny_student):
    with pytest.raises(UserError, match=r"student\.chat: .* encoder-decoder"):
        check_start(StudentRecipe(model=str(tiny_student), chat="always"), DiscriminatorRecipe())


def test_weights_that_are_pickled_are_named_before_anything_is_paid(tiny_student, tmp_path):
    """Bug guarded: the workers found it out, after the teacher had answered."""
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_student, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"discriminator.model: .*no model.safetensors"):
        check_start(StudentRecipe(scratch=ScratchRecipe()), DiscriminatorRecipe(model=str(pickled)))
    with pytest.raises(UserError, match=r"student.model: .*only pytorch_model.bin.* Convert it"):
        check_start(StudentRecipe(model=str(pickled)), DiscriminatorRecipe())


def test_of_a_hub_s_pickled_weights_one_is_warned_and_of_a_hub_out_of_reach_not(
    monkeypatch, caplog
):
    """The hub may convert them; the mend stands in the warning, for where it does not."""

    def unreachable(name):
        raise ConnectionError("offline")

    listed = "qcrd_ray.training.start_models.list_repo_files"
    for files in (unreachable, lambda name: ["pytorch_model.bin", "model.safetensors"]):
        monkeypatch.setattr(listed, files)
        check_weights("someone/model", key="student.model")
    assert not caplog.records
    monkeypatch.setattr(listed, lambda name: ["config.json", "pytorch_model.bin"])
    check_weights("someone/model", key="student.model")
    assert "student.model: someone/model has no model.safetensors" in caplog.text


def test_the_discriminators_own_model_is_written_once_on_the_driver(tiny_student, tmp_path):
    """The workers read a folder of the run, and ask no hub."""
    write_discriminator_start(str(tiny_student), tmp_path / "discriminator")
    before = (tmp_path / "discriminator" / "model.safetensors").stat().st_mtime_ns
    found = Discriminator.from_pretrained(tmp_path / "discriminator", hidden=8)
    assert found.encoder.config.hidden_size == 32
    assert AutoTokenizer.from_pretrained(tmp_path / "discriminator")("a").input_ids
    write_discriminator_start("/nowhere", tmp_path / "discriminator")  # there is one
    assert (tmp_path / "discriminator" / "model.safetensors").stat().st_mtime_ns == before
    recipe = tiny_recipe(**{"discriminator.model": str(tiny_student)})
    job = prepare_job(recipe, write_run(tmp_path / "run"), "qcrd")
    assert job.discriminator_start == tmp_path / "run" / "train" / "discriminator"
    assert (job.discriminator_start / "config.json").exists()
    plain = prepare_job(tiny_recipe(), write_run(tmp_path / "plain"), "qcrd")
    assert plain.discriminator_start == plain.start


def test_a_sum_over_workers_leaves_what_was_summed(tmp_path):
    """Bug guarded: the reduction is in place, and a checkpoint in mid-round would count twice."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/s", rank=0, world_size=1)
    try:
        group, ours = ProcessGroup.current(torch.device("cpu")), torch.ones(2)
        assert group.sum(ours).data_ptr() != ours.data_ptr()
    finally:
        dist.destroy_process_group()


def test_another_engine_samples_negatives_and_one_that_cannot_is_refused(tmp_path):
    """Bug guarded: the sampler took transformers' loop whatever the recipe said, and vLLM for a
    T5 would have failed in the sampler, after the teacher was paid.
    """
    folder = write_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"negatives\.engine: vllm cannot run .* encoder-decoder"):
        prepare_job(tiny_recipe(**{"negatives.engine": "vllm"}), folder, "qcrd")
    job = prepare_job(tiny_recipe(**{"negatives.engine": "ctranslate2"}), folder, "qcrd")
    shutil.copytree(job.start, SnapshotStore(job.folder / "snapshots", keep=1).path(0))
    sampler = NegativeSampler(recipe=job.recipe, folder=job.folder, data=job.data)
    sampler.write_part(0, 0)
    assert type(sampler._engine).__name__ == "CTranslate2Engine"
    rows = pq.read_table(sampler.files.part(0, 0)).to_pylist()
    asked = rounds_of(job.recipe, 24).question_indices(0)
    assert len({row["question_id"] for row in rows}) == len(rows) == len(asked)
