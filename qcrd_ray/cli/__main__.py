"""python -m qcrd_ray.cli, where there is no console script."""

from qcrd_ray.cli import main

main()
