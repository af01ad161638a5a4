"""The bill before it is paid: what a run of a recipe will take, from two small runs of it.

calibration.py makes the small runs, figures.py reads what they took, estimate.py multiplies.
"""

from qcrd_ray.plan.calibration import calibrate
from qcrd_ray.plan.estimate import Estimate, StageEstimate, estimate
from qcrd_ray.plan.figures import Figures, Size

__all__ = ["Estimate", "Figures", "Size", "StageEstimate", "calibrate", "estimate"]
