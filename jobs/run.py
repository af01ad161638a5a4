r"""Any verb of `qcrd` as a Ray job; without a verb, all stages (`qcrd run`):

    ray job submit --working-dir . -- \
        python jobs/run.py jobs/recipes/demo.yaml --set run=/shared/runs/demo
    ray job submit --working-dir . -- \
        python jobs/run.py train jobs/recipes/demo.yaml --set run=/shared/runs/demo

Takes what `qcrd <verb>` takes. The run folder must be an absolute path: the job's working directory
is a copy that goes away with it.
"""

import sys
from pathlib import Path

# the submitted working directory holds the package
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qcrd_ray.cli import VERBS, main

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] not in VERBS:
        sys.argv.insert(1, "run")
    main()
