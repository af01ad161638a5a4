"""Measure how fast the package is beside what it is built on.

    python jobs/bench.py all                   about half an hour on two cores
    python jobs/bench.py dss_step vote         some of them
    python jobs/bench.py table                 the kept results as a Markdown table

The two sides of a comparison take turns (jobs/benchmarks/pairs.py). Each benchmark prints one JSON
line, and keeps it in --out as <name>.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import commands, generation, serving, training
from benchmarks.pairs import Size, run, table

RESULTS = Path(__file__).resolve().parent / "recipes" / "results" / "bench"
BENCHMARKS = {
    **generation.BENCHMARKS,
    **training.BENCHMARKS,
    **serving.BENCHMARKS,
    **commands.BENCHMARKS,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=[*BENCHMARKS, "all", "table"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/bench"), help="for models and runs; can be deleted"
    )
    parser.add_argument("--pairs", type=int, help="how many pairs; by default at least 7")
    parser.add_argument("--tiny", action="store_true", help="only show that they work")
    chosen = parser.parse_args()
    if "table" in chosen.names:
        print(table(chosen.out), end="")
        return
    names = list(BENCHMARKS) if "all" in chosen.names else chosen.names
    work = chosen.work.absolute() / ("tiny" if chosen.tiny else "usual")
    size = Size(work, tiny=chosen.tiny)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        line = json.dumps(run(name, BENCHMARKS[name], size, pairs=chosen.pairs))
        (chosen.out / f"{name}.json").write_text(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
