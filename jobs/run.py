"""The whole road as a Ray job:

    ray job submit --working-dir . -- python jobs/run.py jobs/recipes/demo.yaml --set run=/shared/runs/demo

Takes what `qcrd run` takes. The run folder must be an absolute path: the job's working directory is a copy that goes away with it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the submitted working directory holds the package

from qcrd_ray.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "run")
    main()
