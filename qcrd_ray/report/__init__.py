"""report.html, one page about a run, and what a finished run prints.

The page is readable without a network and without JavaScript. Each module reads its part of the run
folder and draws it; the page says what a run has not reached. Imports the packages below:
rationales, training, evaluation, serving, tasks, run, data, method, recipe and errors.
"""

from qcrd_ray.report.page import write_report

__all__ = ["write_report"]
