"""report.html: one self-contained page about a run, readable without a network and without
JavaScript.

Facts are read from the run folder's files (``facts/``), drawn as inline SVG (``charts``) and put
together (``sections/``, ``page``).
What a run has not got to yet is said on the page; nothing is made up.
"""

from qcrd_ray.report.page import write_report

__all__ = ["write_report"]
