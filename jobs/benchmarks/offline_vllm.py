"""vLLM alone: `LLM.generate` in a process of its own, the other side of the `generate` benchmarks.

Reads JSON lists of prompts from standard input, one a line, and writes the seconds that each took;
before them, that it is ready.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main(model: str, engine: dict[str, Any], sampling: dict[str, Any]) -> None:
    # what the teacher's replica is given (qcrd_ray/teacher/serve.py)
    os.environ |= {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "TORCH_COMPILE_DISABLE": "1",
    }
    from vllm import LLM, SamplingParams

    llm = LLM(model=model, **engine)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        prompts = json.loads(line)
        began = time.monotonic()
        llm.generate(prompts, SamplingParams(**sampling), use_tqdm=False)
        print(json.dumps(time.monotonic() - began), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]))
