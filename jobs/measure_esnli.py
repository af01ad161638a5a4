"""Run the recipe of e-SNLI at its full size: 549,367 questions with five texts each.

    python jobs/measure_esnli.py --data datasets/esnli --out /data/esnli

The recipe is jobs/recipes/paper/esnli_t5_small.yaml with a tiny student and two short rounds. Its
questions are recorded ones of ``--data``, numbered, in Parquet files as the hub exports them; the
texts are recorded ones too, several put together, as the recipe's instruction asks for two to five
sentences: 1.2 GB in one column, 2.3 with the rationales beside them. Each stage is a call of its
own; the output is a JSON line. It takes 5 GB of disk and, on two cores, 20 minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))

from measure_scale import ROOT, call

from qcrd_ray.data.json_lines import read_json_lines
from qcrd_ray.runs.provenance import describe_code

RECIPE = ROOT / "jobs" / "recipes" / "paper" / "esnli_t5_small.yaml"
SIZES = {"train": 549_367, "validation": 9_842, "test": 9_824}
SAMPLES, TEXTS = 5, 7  # a question; recorded texts in a sample, some 420 characters
LABELS = ("entailment", "neutral", "contradiction")
TINY = "{scratch: {d_model: 64, d_ff: 128, layers: 1, heads: 2, vocabulary: 2000}}"


def write_data(data: Path, hub: Path, recording: Path) -> int:
    """Write the data set and its recording; returns the characters of all texts."""
    rows = [line.data or {} for line in read_json_lines(str(data / "train.jsonl"))]
    said = [line.data or {} for line in read_json_lines(str(data / "teacher.jsonl"))]
    texts = [each["completion"].partition("\nAnswer:")[0] for each in said]
    draw, characters = random.Random(0), 0
    with recording.open("w") as file:
        for split, size in SIZES.items():
            made = []
            for number, row in zip(range(size), itertools.cycle(rows), strict=False):
                premise, hypothesis = (
                    row["question"].removeprefix("Premise: ").split("\nHypothesis: ")
                )
                label = LABELS.index(row["answer"])
                made.append(
                    {"premise": f"{split} {number}: {premise}", "hypothesis": hypothesis}
                    | {"label": label, "explanation_1": ""}
                )
                id = made[-1]["uid"] = f"{split}-{number}"
                for _ in range(SAMPLES if split != "validation" else 0):
                    answer = draw.choices([row["answer"], draw.choice(LABELS)], [3, 2])[0]
                    text = f"{' '.join(draw.choices(texts, k=TEXTS))} So the answer is {answer}."
                    characters += len(text)
                    file.write(json.dumps({"id": id, "completion": text}) + "\n")
            out = hub / "plain_text" / split / "0000.parquet"
            out.parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(made), out)
    return characters


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="train.jsonl, teacher.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="where the run is made")
    chosen = parser.parse_args()
    out = chosen.out.absolute() / "esnli"  # deleted at the end; what else lies in --out is not
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    row: dict[str, object] = {"questions": SIZES["train"], "samples": SAMPLES}
    row["characters"] = write_data(chosen.data, out / "hub", out / "teacher.jsonl")
    settings = [
        *(f"data.{split}.dataset={out / 'hub'}" for split in SIZES),
        *(f"data.{split}.revision=null" for split in SIZES),
        *("data.columns.id=uid", f"run={out / 'run'}", f"student={TINY}"),
        f"teacher={{source: recording, path: {out / 'teacher.jsonl'}}}",
        *("generation.actors=2", "generation.actor={}", "negatives.student=false"),
        "discriminator={hidden: 32, pretrain_steps: 5, steps_per_round: 2, batch_size: 8}",
        *("train.rounds=2", "train.round.size=20", "train.precision=fp32", "train.workers=1"),
        *("train.worker={}", "train.validate.max_questions=32"),
        *("evaluate.workers=1", "evaluate.worker={}", "serve.replica={}"),
        "ray={address: local, num_cpus: 4}",
    ]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    for name, arguments in {
        "dry run": ("run", str(RECIPE), "--dry-run"),
        "generate": ("generate", str(RECIPE)),
        "train": ("train", str(RECIPE)),
    }.items():
        seconds, peaks = call(*arguments, *flags)
        row[name] = {"seconds": round(seconds, 1), "peak_mib": peaks}
        print(f"{name}: {json.dumps(row[name])}", file=sys.stderr, flush=True)
    shutil.rmtree(out)
    print(json.dumps(row | {"code": describe_code()}))


if __name__ == "__main__":
    main()
