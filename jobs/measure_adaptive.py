"""Measure what adaptive sampling saves on recorded samples, and what that costs in votes.

    python jobs/measure_adaptive.py --data FOLDER

FOLDER holds svamp/ and last_letters/, each with train.jsonl (id, question, answer) and
teacher.jsonl (id, completion). Each setting of `sampling.adaptive` asks the recorded samples of
each question in an order that a seed shuffles, as the stage would ask a teacher. The vote that it
ends with is compared with the vote of all k, and both with the gold answer. Writes adaptive.json
and adaptive.md under jobs/recipes/results/bench/; `python docs/figures.py` draws the chart.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from qcrd_ray.data.json_lines import read_json_lines
from qcrd_ray.data.records import Question
from qcrd_ray.method.self_consistency import count_votes, lead_probability
from qcrd_ray.rationales.settled import next_wave
from qcrd_ray.recipe import AdaptiveRecipe, TaskRecipe
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.provenance import describe_code
from qcrd_ray.tasks import build_task

RESULTS = Path(__file__).resolve().parent / "recipes" / "results" / "bench" / "adaptive"
TASKS = {
    "svamp": TaskRecipe(kind="arithmetic"),
    "last_letters": TaskRecipe(kind="short_text", closing="The answer is {answer}."),
}
MEASURED = (
    ("svamp", 5),
    ("svamp", 10),
    ("last_letters", 5),
    ("last_letters", 10),
    ("last_letters", 40),
)
THRESHOLDS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
WINDOWS = (2, 3, 4, 5, 8)
FINE = (0.51, 0.76, 0.88, 0.94, 0.96, 0.98, 0.985, 0.99, 0.995, 0.999, 1.0)  # for equal spending
BUDGETS = range(2, 11)  # samples a question
WAYS = ("even", "adaptive", "budgeted")

Votes = Sequence[str | None]  # of one question's samples, in the order of asking


@dataclass(frozen=True)
class Recorded:
    """Questions of one set, by their ids: what each sample votes for, and the gold answers."""

    votes: dict[str, Votes]
    gold: dict[str, str | None]

    def draw(self, k: int, seed: int) -> list[Votes]:
        """``k`` samples of each question in an order that the seed shuffles."""
        return [random.Random(f"{seed}:{id}").sample(each, k) for id, each in self.votes.items()]


def read(folder: Path, task_recipe: TaskRecipe) -> Recorded:
    """Parse a set's samples as the stage does."""
    task = build_task(task_recipe)
    questions = {
        line.data["id"]: Question.from_row(line.data | {"choices": (), "rationale": None})
        for line in read_json_lines(str(folder / "train.jsonl"))
        if line.data
    }
    votes: dict[str, list[str | None]] = {id: [] for id in questions}
    for line in read_json_lines(str(folder / "teacher.jsonl")):
        assert line.data, line.reason
        id = line.data["id"]
        votes[id].append(task.parse(line.data["completion"], questions[id]).answer)
    gold = {id: task.canonical(each.answer or "", each) for id, each in questions.items()}
    return Recorded(dict(votes), gold)


def winner(votes: Votes) -> str | None:
    """The answer with strictly most votes; None: a tie, or nobody voted."""
    leaders = count_votes(votes).leaders
    return leaders[0] if len(leaders) == 1 else None


def ask(votes: Votes, *, k: int, adaptive: AdaptiveRecipe) -> tuple[int, int]:
    """How many samples and how many requests a question takes."""
    asked = requests = 0
    while wave := next_wave(votes[:asked], k=k, adaptive=adaptive):
        asked, requests = asked + wave, requests + 1
    return asked, requests


def score(drawn: Sequence[Votes], asked: Sequence[int], gold: Sequence[str | None]) -> dict:
    """Samples a question, agreement with the vote of all, and accuracy, with ``asked`` of each."""
    votes = [winner(each[:count]) for each, count in zip(drawn, asked, strict=True)]
    full = [winner(each) for each in drawn]
    return {
        "samples": mean(asked),
        "agreement": mean(a == b for a, b in zip(votes, full, strict=True)),
        "accuracy": _right(votes, gold),
        "accuracy_full": _right(full, gold),
    }


def _right(votes: Sequence[str | None], gold: Sequence[str | None]) -> float:
    return mean(a is not None and a == b for a, b in zip(votes, gold, strict=True))


def settings() -> Iterator[AdaptiveRecipe]:
    yield from (AdaptiveRecipe(threshold=each) for each in THRESHOLDS)
    yield from (AdaptiveRecipe(rule="window", window=each) for each in WINDOWS)


def name_of(rule: AdaptiveRecipe) -> str:
    return f"window {rule.window}" if rule.rule == "window" else f"posterior {rule.threshold:g}"


def measure(recorded: Recorded, rule: AdaptiveRecipe, *, k: int, seeds: int) -> dict:
    """A rule's means over the seeds; ``agreement_sd`` is the spread from seed to seed."""
    gold, found = list(recorded.gold.values()), []
    for seed in range(seeds):
        drawn = recorded.draw(k, seed)
        spent = [ask(each, k=k, adaptive=rule) for each in drawn]
        row = score(drawn, [samples for samples, _ in spent], gold)
        found.append(row | {"requests": mean(requests for _, requests in spent)})
    means = {key: mean(row[key] for row in found) for key in found[0]}
    spread = stdev(row["agreement"] for row in found) if seeds > 1 else 0.0
    return {"rule": name_of(rule), "share": means["samples"] / k, **means, "agreement_sd": spread}


# --- The same number of samples, spent in three ways ---


def spend(drawn: Sequence[Votes], *, k: int) -> Iterator[list[int]]:
    """Samples of each question after each one: the next always to the least certain vote.

    Ends when no further sample could change a vote.
    """
    asked = [0] * len(drawn)
    queue = [(0.5, number) for number in range(len(drawn))]
    while queue:
        _, number = heapq.heappop(queue)
        asked[number] += 1
        yield asked
        leader, runner_up = count_votes(drawn[number][: asked[number]]).two_most
        if leader - runner_up <= k - asked[number] and asked[number] < k:
            heapq.heappush(queue, (lead_probability(leader, runner_up), number))


def compare(recorded: Recorded, *, k: int, seeds: int) -> list[dict]:
    """Agreement and accuracy at 2 to 10 samples a question: even, adaptive, least certain first.

    Between two thresholds adaptive sampling is interpolated by its samples: a share of the
    questions asked with each. None where a way does not spend as much.
    """
    fine = [measure(recorded, AdaptiveRecipe(threshold=t), k=k, seeds=seeds) for t in FINE]
    gold, rows = list(recorded.gold.values()), []
    budgeted: dict[int, list[dict]] = {}
    for seed in range(seeds):
        drawn = recorded.draw(k, seed)
        for spent, asked in enumerate(spend(drawn, k=k), 1):
            if spent % len(drawn) == 0:
                budgeted.setdefault(spent // len(drawn), []).append(score(drawn, asked, gold))
    for budget in BUDGETS:
        even = [
            score(drawn, [budget] * len(drawn), gold)
            for drawn in (recorded.draw(k, seed) for seed in range(seeds))
        ]
        least_certain = budgeted.get(budget, [])
        row: dict = {"samples": budget}
        for key in ("agreement", "accuracy"):
            row[key] = {
                "even": mean(each[key] for each in even),
                "adaptive": _interpolated(fine, key, budget),
                "budgeted": (
                    mean(each[key] for each in least_certain)
                    if len(least_certain) == seeds
                    else None
                ),
            }
        rows.append(row)
    return rows


def _interpolated(rows: Sequence[dict], key: str, samples: float) -> float | None:
    rows = sorted(rows, key=lambda row: row["samples"])
    for low, high in pairwise(rows):
        if low["samples"] <= samples <= high["samples"]:
            part = (samples - low["samples"]) / ((high["samples"] - low["samples"]) or 1.0)
            return low[key] + part * (high[key] - low[key])
    return None


# --- The page ---


def markdown(results: dict) -> str:
    """The tables of the results."""
    lines = [
        "# Adaptive sampling on recorded samples",
        "",
        f"Means over {results['seeds']} orders of asking. `same` is the share of questions whose"
        " vote is that of all k samples (a tie is a vote of its own), `sd` its spread over the"
        " orders; `right` is against gold, and a tie is wrong. Written by"
        " `jobs/measure_adaptive.py`.",
        "",
        "| set | k | rule | samples | share, % | requests | same, % | sd | right, % | of all k |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in results["sets"]:
        lines += [_rule_row(each["set"], each["k"], row) for row in each["rules"]]
    lines += [
        "",
        "## The same number of samples, spent in three ways",
        "",
        "| set | k | samples a question | same: even | adaptive | budgeted | right: even | adaptive"
        " | budgeted |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in results["budgets"]:
        lines += [_budget_row(each["set"], each["k"], row) for row in each["rows"]]
    return "\n".join([*lines, ""])


def _rule_row(name: str, k: int, row: dict) -> str:
    cells = [
        *(name, f"{k}", row["rule"], f"{row['samples']:.2f}", _percent(row["share"])),
        *(f"{row['requests']:.2f}", _percent(row["agreement"], 2)),
        *(_percent(row["agreement_sd"], 2), _percent(row["accuracy"])),
        _percent(row["accuracy_full"]),
    ]
    return f"| {' | '.join(cells)} |"


def _budget_row(name: str, k: int, row: dict) -> str:
    shares = [row[key][way] for key in ("agreement", "accuracy") for way in WAYS]
    cells = ["-" if share is None else _percent(share, 2) for share in shares]
    return f"| {' | '.join([name, f'{k}', str(row['samples']), *cells])} |"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--data", type=Path, required=True, help="the recorded sets")
    arguments.add_argument("--seeds", type=int, default=10, help="orders of asking")
    arguments.add_argument("--out", type=Path, default=RESULTS, help="without .json and .md")
    chosen = arguments.parse_args()
    recorded = {name: read(chosen.data / name, task) for name, task in TASKS.items()}
    sets = [
        {
            "set": name,
            "k": k,
            "questions": len(recorded[name].votes),
            "rules": [
                measure(recorded[name], rule, k=k, seeds=chosen.seeds)
                for rule in settings()
                if rule.rule == "posterior" or rule.window < k
            ],
        }
        for name, k in MEASURED
    ]
    budgets = [
        {"set": name, "k": k, "rows": compare(recorded[name], k=k, seeds=chosen.seeds)}
        for name, k in MEASURED
        if k >= max(BUDGETS)
    ]
    command = "python jobs/measure_adaptive.py --data <folder>"
    results = {
        "command": command,
        **describe_code(),
        "seeds": chosen.seeds,
        "sets": sets,
        "budgets": budgets,
    }
    write_text(chosen.out.with_suffix(".json"), json.dumps(results, indent=1) + "\n")
    write_text(chosen.out.with_suffix(".md"), markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
